"""Is this machine ready for the course? What is wrong, each with its remedy, and nothing where nothing is.

NOTE  fine for the tiny scale, worth knowing
FAIL  something in the course will not work; the line below says what to do
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

MEMORY_GB, DISK_GB = 3, 1
# Import names whose failure would stop a lesson in the middle (compiled extensions, above all).
IMPORTED = ("torch", "torchvision", "open_clip", "segment_anything", "accelerate", "skimage")
IMPORTED += ("sklearn", "matplotlib", "ipywidgets", "anywidget")
PIP = "python -m pip install"
COURSE = f'{PIP} -e ".[course]" in the course\'s folder'
NEWEST = (3, 14)  # for which all packages have been seen to be there; pip refuses what is too old


class Problem(NamedTuple):
    """Something that is wrong (``level`` FAIL) or worth knowing (NOTE), and what to do about it."""

    level: str
    what: str
    remedy: str


def doctor() -> int:
    """Say what this machine is and what is wrong with it; 0 where the tiny scale can run, else 1."""
    problems = [*look_at_python(sys.version_info[:2]), *look_at_packages("serial-lora-course")]
    problems += [problem for name in IMPORTED for problem in look_at_import(name)]
    machine = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if all(each.level != "FAIL" for each in problems):  # else these may lack a package
        import psutil

        from serial_lora_course.data.releases import data_root

        machine = f"{machine}, {device()}"
        problems += look_at_gpu()
        problems += look_at_memory(psutil.virtual_memory().available / 1e9)
        problems += look_at_disk(data_root())
    print(machine)
    for level, what, remedy in problems:
        print(f"{level}  {what}\n      -> {remedy}")
    wrong = sum(each.level == "FAIL" for each in problems)
    ready = "Ready: `serial-lora open` opens the lessons."
    print(f"To mend before you start: {wrong}." if wrong else ready)
    return 1 if wrong else 0


def device() -> str:
    """What PyTorch computes on."""
    import torch

    where = f"CPU with {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        free = max(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())) / 1e9
        where = f"CUDA, {torch.cuda.get_device_name()}, {free:.1f} GB free"
    elif torch.backends.mps.is_available():
        where = "MPS"
    return f"PyTorch {torch.__version__}, {where}"


def look_at_python(version: tuple[int, int]) -> Iterator[Problem]:
    """Is this Python newer than the course knows?"""
    if version > NEWEST:
        what = "Python {}.{} is newer than 3.14, for which the course is made".format(*version)
        yield Problem("NOTE", what, "if something fails, make the environment with 3.11 to 3.14")


def look_at_packages(of: str) -> Iterator[Problem]:
    """Is everything that a package and its course require installed, in a version that fits?"""
    try:
        from packaging.requirements import Requirement

        required = metadata.requires(of) or []
    except ModuleNotFoundError as error:  # of packaging, or of the package itself
        level = "NOTE" if error.name == of else "FAIL"  # a checkout may be imported as it is
        yield Problem(level, f"{error.name} is not installed", COURSE)
        return
    for each in map(Requirement, required):
        extras = [{"extra": extra} for extra in ("course", "lessons")]
        unused = each.marker is not None and not any(map(each.marker.evaluate, extras))
        if unused or each.name == of:  # course requires lessons of the same package
            continue
        wanted = f'{PIP} --upgrade "{each.name}{each.specifier}"'
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            yield Problem("FAIL", f"{each.name} is missing", wanted)
            continue
        if not each.specifier.contains(version, prereleases=True):
            yield Problem("FAIL", f"{each.name} {version} is not {each.specifier}", wanted)


def look_at_import(name: str) -> Iterator[Problem]:
    """Does a package that is there import?"""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken extension raises
        what = f"import {name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        yield Problem("FAIL", what, f"{PIP} --force-reinstall the package with {name}")


def look_at_gpu() -> Iterator[Problem]:
    """Is there a GPU that PyTorch cannot use?"""
    import torch

    there = torch.cuda.is_available() or torch.backends.mps.is_available()
    if not there and shutil.which("nvidia-smi"):
        remedy = "pytorch.org/get-started names the PyTorch build for your driver"
        yield Problem("NOTE", "an NVIDIA driver is here, and PyTorch cannot use it", remedy)


def look_at_memory(free_gb: float) -> Iterator[Problem]:
    """Is enough memory free for the largest tiny lesson?"""
    if free_gb < MEMORY_GB:
        what = f"{free_gb:.1f} GB of memory are free, and a lesson needs up to {MEMORY_GB}"
        yield Problem("FAIL", what, "close other programs, and shut down other notebooks' kernels")


def look_at_disk(folder: Path) -> Iterator[Problem]:
    """Is there room for the tiny data?"""
    while not os.path.exists(folder):  # Path.exists raises where it may not look
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < DISK_GB:
        what = f"{free_gb:.1f} GB of disk are free where data are kept"
        yield Problem("FAIL", what, "free some, or name another folder in SERIAL_LORA_DATA")
