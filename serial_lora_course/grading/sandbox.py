"""Run a learner's notebook where it can do no harm: in bubblewrap, with limits.

The process that runs it sees Python, the packages and the course, all read-only; an empty folder of
limited size that goes away with it; itself and what it starts; and no network, home, other notebook
or socket. Linux's own name spaces do that, and ``bwrap`` (the package bubblewrap) asks for them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nbformat
import psutil

import serial_lora
import serial_lora_course
from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.solved import SOLVED
from serial_lora_course.grading.text import one_line, plain_outputs
from serial_lora_course.offline import offline_environment

SCRATCH = "/tmp"
GB = 2**30
MOST_TOLD = 2**26  # bytes about one notebook
ON_ITS_OWN = "a notebook then reads, changes and sends what you can, so take an empty machine"
OURS = [Path(package.__file__).parent for package in (serial_lora, serial_lora_course)]
SYSTEM = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/sys/devices/system/cpu")
HIDDEN = ("/usr/local/share/nbgrader",)


@dataclass(frozen=True)
class Limits:
    """What one notebook may use; the number of threads includes those of all its processes."""

    cell_seconds: int = 170
    seconds: int = 5 * 170
    memory: int = 8 * GB
    scratch: int = GB
    threads: int = 1000


Outputs = dict[int, list[nbformat.NotebookNode]]
"""What the code cells of a notebook showed, by their index."""


def run(
    notebook: nbformat.NotebookNode, limits: Limits, unconfined: bool = False
) -> tuple[Outputs, str]:
    """Run a notebook, cell by cell, in a kernel of its own; nothing of it is left afterwards.

    Returns:
        What its cells showed, and why no further cell ran.

    Raises:
        SerialLoRAError: there is no sandbox on this machine.
    """
    if not unconfined:
        require_bubblewrap()
    within = {} if unconfined else {"DATA": limits.memory, "NPROC": limits.threads, "CORE": 0}
    settings = json.dumps({"seconds": limits.cell_seconds, "limits": within})
    command = [sys.executable, "-m", "serial_lora_course.grading.inside", settings]
    with (
        tempfile.TemporaryFile() as asked,
        tempfile.TemporaryFile() as told,
        tempfile.TemporaryDirectory() as scratch,
    ):
        asked.write(nbformat.writes(notebook).encode("utf-8", "replace"))
        asked.seek(0)
        process = subprocess.Popen(
            command if unconfined else [*bubblewrap(limits), *command],
            stdin=asked,
            stdout=told,
            stderr=subprocess.DEVNULL,
            cwd=scratch,
            env=environment(scratch, os.environ) if unconfined else environment(SCRATCH, {}),
            start_new_session=True,
        )
        family: list[psutil.Process] = []
        try:
            ended = watch(process, told, limits, family)
        finally:
            for member in [*family, process]:
                with suppress(psutil.Error):
                    member.kill()
            process.wait()
        return read(told, ended)


def watch(process: subprocess.Popen, told: BinaryIO, limits: Limits, family: list) -> str:
    """Wait for the end of a run, or end it at a limit: say at which. ``family``: what it started."""
    until = time.monotonic() + limits.seconds
    while process.poll() is None:
        memory = threads = 0
        family[:] = psutil.Process(process.pid).children(recursive=True)
        for member in family:
            try:
                memory, threads = memory + member.memory_info().rss, threads + member.num_threads()
            except psutil.Error:  # it has ended meanwhile
                continue
        if threads > limits.threads:  # first, since processes that share memory each count it
            return f"the notebook started more than {limits.threads} processes and threads"
        if memory > limits.memory:
            return f"the notebook took more than {limits.memory / GB:g} GB of memory"
        if time.monotonic() > until:
            return f"the notebook took longer than {limits.seconds} seconds"
        if os.fstat(told.fileno()).st_size > MOST_TOLD:
            return "the notebook showed too much"
        time.sleep(0.1)
    return "the process that ran the notebook ended"


def read(told: BinaryIO, ended: str) -> tuple[Outputs, str]:
    """What a run told, taken for nothing but what it may be: it comes from learners' code too."""
    told.seek(0)
    outputs = {}
    for line in told.read(MOST_TOLD).splitlines():
        try:
            found = json.loads(line)
            if "ended" in found:
                return outputs, one_line(found["ended"])
            outputs[int(found["cell"])] = plain_outputs(found["outputs"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            break  # half a line, where the run was ended in the middle of it
    return outputs, ended


def bubblewrap(limits: Limits) -> list[str]:
    """The beginning of a command line that shuts in what follows."""
    # The whole path: the program that is tried is the one that runs, whatever variables it gets.
    program = os.path.abspath(shutil.which("bwrap") or "bwrap")
    words = [program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for top in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr"):
        if os.path.islink(top):
            words += ["--symlink", os.readlink(top), top]
        else:
            words += ["--ro-bind-try", top, top]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for folder, size in (("/dev/shm", GB // 4), (SCRATCH, limits.scratch)):
        words += ["--size", str(size), "--tmpfs", folder]
    for place in (*SYSTEM, *places()):
        words += ["--ro-bind-try", place, place]
    for place in filter(os.path.isdir, HIDDEN):
        words += ["--size", "4096", "--tmpfs", place, "--remount-ro", place]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH, "--"]


def places() -> list[str]:
    """The folders of Python, the packages and the course, of which a check reads the solved lessons."""
    prefixes = [sys.base_prefix, sys.prefix]
    installed = [folder for folder in sys.path if any(Path(folder).glob("*.dist-info"))]
    found = [*prefixes, *map(os.path.realpath, prefixes), *installed, *OURS, SOLVED]
    return list(dict.fromkeys(map(os.path.abspath, found)))


def environment(scratch: str, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a graded notebook: nothing of the teacher's, no network, no GPU."""
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), given.get("PATH", os.defpath)]),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LANG": "C.UTF-8",
        **dict.fromkeys(("USER", "LOGNAME", "USERNAME"), "learner"),
        **dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), scratch),
        "CUDA_VISIBLE_DEVICES": "",
        "NBGRADER_EXECUTION": "autograde",
    }
    return offline_environment({**given, **own})


def require_bubblewrap() -> None:
    """Try the sandbox on nothing."""
    try:
        done = subprocess.run([*bubblewrap(Limits()), "true"], capture_output=True, text=True)
        trouble = one_line(done.stderr) if done.returncode else ""
    except FileNotFoundError:
        trouble = "it is not installed"
    if trouble:
        raise SerialLoRAError(
            f"Learners' code is shut in by the Linux package bubblewrap, which does not work here "
            f"({trouble}): mend that, or grade with --unconfined: {ON_ITS_OWN}."
        )
