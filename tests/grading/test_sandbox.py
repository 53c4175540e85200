"""Attacks from inside a notebook: each fails in the sandbox, and would succeed outside it."""

import base64
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from serial_lora.errors import SerialLoRAError
from serial_lora_course.grading import sandbox
from serial_lora_course.grading.text import LONGEST, no_formula, one_line, plain, plain_outputs
from serial_lora_course.lessons.l02_count.figures import plot_quarter
from serial_lora_course.plots.style import display_figure
from tools import ROOT

try:
    sandbox.require_bubblewrap()
    WHY_NOT = ""
except SerialLoRAError as error:
    WHY_NOT = str(error)
confined = pytest.mark.skipif(bool(WHY_NOT), reason=f"no sandbox here: {WHY_NOT}")

OPENING = """\
import ctypes, os, pathlib, resource, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def worked(result):
    if result:
        raise OSError(ctypes.get_errno(), "refused")
"""
UNIX = "s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(path); s.recv(9)"
ATTACKS = {  # a cell that ends without an error has done what it should not
    "a running program's socket": UNIX,
    "an abstract socket": UNIX.replace("(path)", "('\\0' + path)"),
    "a server": "socket.create_connection(('127.0.0.1', port), timeout=2).recv(9)",
    "UDP": "s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(2); "
    "s.connect(('127.0.0.1', port)); s.send(b'x'); s.recv(9)",
    "write": "open(victim, 'w').write('changed')",
    "create": "os.mkdir(victim + '.new')",
    "remove": "os.remove(victim + '.old')",
    "chmod by a program": "subprocess.run(['chmod', '777', victim], check=True)",
    "chown by compiled code": "worked(libc.chown(os.fsencode(victim), os.getuid(), os.getgid()))",
    "signals": "os.kill(pid, 0)",
    "limits of the teacher's programs": "resource.prlimit(pid, resource.RLIMIT_NOFILE)",
    "read the teacher's files": "open(victim).read()",
    "read the teacher's processes": "open(f'/proc/{pid}/environ').read()",
    "read the teacher's variables": "os.environ['TOKEN']",
    "write into the course": "assert os.access(package, os.W_OK)",
}


def notebook(*cells: str) -> nbformat.NotebookNode:
    return new_notebook(cells=[new_code_cell(source) for source in cells])


def failed(outputs: list) -> bool:
    return any(output.output_type == "error" for output in outputs)


def shown(*cells: str, **limits: int) -> tuple[list[str], str]:
    """The text that each cell showed in the sandbox, and why no further one ran."""
    outputs, ended = sandbox.run(notebook(*cells), sandbox.Limits(**limits))
    texts = ["".join(o.get("text", o.get("evalue", "")) for o in out) for out in outputs.values()]
    return texts, ended


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The attacks as cells; what they aim at are files, a token, a process, and servers."""
    monkeypatch.setenv("TOKEN", "secret")
    victim, path = str(tmp_path / "victim.txt"), str(tmp_path / "s")
    for name in (victim, victim + ".old"):
        Path(name).write_text("as it was")
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    servers = [
        socket.create_server(udp.getsockname()),
        *(socket.socket(socket.AF_UNIX) for _ in "ab"),
    ]
    for server, address in zip(servers[1:], (path, "\0" + path), strict=True):
        server.bind(address)
        server.listen()
    for server in (udp, *servers):
        threading.Thread(target=answer, args=(server,), daemon=True).start()
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    facts = {"victim": victim, "path": path, "port": udp.getsockname()[1], "pid": program.pid}
    facts |= {"package": str(ROOT / "serial_lora_course")}
    yield [
        OPENING + "\n".join(f"{name} = {fact!r}" for name, fact in facts.items()),
        *ATTACKS.values(),
    ]
    program.kill()
    program.wait()


def answer(server: socket.socket) -> None:
    """Say something to whoever asks."""
    while True:
        if server.type == socket.SOCK_DGRAM:
            server.sendto(b"x", server.recvfrom(9)[1])
        else:
            with server.accept()[0] as connection:
                connection.send(b"x")


def picture(folder: Path) -> dict:
    found = {path.name: path.lstat() for path in (folder, *folder.iterdir())}
    return {name: (s.st_mode, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in found.items()}


@pytest.mark.parametrize("unconfined", [pytest.param(False, marks=confined), True])
def test_every_attack_fails_in_the_sandbox_and_succeeds_outside(outside, tmp_path, unconfined):
    before = picture(tmp_path)
    outputs, _ = sandbox.run(notebook(*outside), sandbox.Limits(), unconfined)
    assert not failed(outputs[0]), outputs
    succeeded = [name for i, name in enumerate(ATTACKS, 1) if not failed(outputs[i])]
    assert succeeded == (list(ATTACKS) if unconfined else [])
    assert unconfined or picture(tmp_path) == before


USUAL = {  # a cell, and what it shows
    "print(pathlib.Path.home(), pathlib.Path.cwd())": "/tmp /tmp\n",
    "pathlib.Path('own.txt').write_text('x')": "",
    "print(subprocess.run(['echo', '42'], capture_output=True, text=True).stdout)": "42\n\n",
    "from multiprocessing import shared_memory as s\ns.SharedMemory(create=True, size=9).unlink()": "",
    "for _ in range(40):\n    subprocess.Popen(['sleep', '98765'], start_new_session=True)": "",
    "try:\n    bytearray(30 * 2**30)\nexcept MemoryError:\n    print('refused')": "refused\n",
    "fill('/tmp/x'); fill('/dev/shm/x')": "No space left on device\n" * 2,
    "fill('/x'); fill('/dev/x')": "Read-only file system\n" * 2,
    "print('x' * 2 * 10**7)": "x" * LONGEST + "...",
    "print('\\x1b[31m\\x1b]0;title\\x07\\u202e=cmd')": "=cmd\n",
}
ODD = (
    "from IPython.display import HTML, display; display(HTML('<script>alert(1)</script>'))",
    "display({'image/png': '\"><script>', 'text/plain': 'x'}, raw=True)",
    "for i in range(500): print(i, flush=True); display(i)",
)
FILL = """
def fill(path):
    try:
        with open(path, 'wb') as file:
            while True:
                file.write(bytes(2**20))
    except OSError as error:
        print(error.strerror)
"""


@confined
def test_a_notebook_does_what_lessons_do_and_shows_it_short_and_plain():
    limits = sandbox.Limits(scratch=2**26)
    outputs, _ = sandbox.run(notebook(OPENING + FILL, *USUAL, *ODD), limits)
    texts = ["".join(each.get("text", "") for each in outputs[i]) for i in range(1, 1 + len(USUAL))]
    assert texts == list(USUAL.values())
    assert not any(failed(outputs[i]) for i in range(1 + len(USUAL)))
    assert "script" not in str(outputs) and len(outputs) == 1 + len(USUAL) + len(ODD)
    assert len(str(outputs)) < 10**6
    started = psutil.process_iter(["cmdline"])
    sleepers = [process for process in started if "98765" in (process.info["cmdline"] or [])]
    assert psutil.wait_procs(sleepers, timeout=10)[1] == []  # what a notebook started ends with it


STUBBORN = "while True:\n    try: print(1)\n    except KeyboardInterrupt: pass"
BOMB = "import os\nwhile True:\n    os.fork()"
MEMORY = """
import os, time
for _ in range(4):
    if not os.fork():
        kept = bytearray(os.urandom(1) * (300 * 2**20)); time.sleep(60)
time.sleep(60)"""
KILLS = """
import os, signal
for pid in filter(str.isdigit, os.listdir('/proc')):
    if int(pid) != os.getpid():
        os.kill(int(pid), signal.SIGKILL)"""
NOT_REACHED = "print(2)"
GREEDY = {  # limits, and cells
    "late cells": ({"cell_seconds": 1}, "while True:\n    pass", "print(1)", STUBBORN),
    "90 processes and threads": ({"threads": 90}, BOMB, NOT_REACHED),
    "1 GB of memory": ({"memory": 2**30}, MEMORY, NOT_REACHED),
    "longer than 2 seconds": ({"seconds": 2}, "import time; time.sleep(60)", NOT_REACHED),
    "the process that ran the notebook ended": ({}, KILLS, NOT_REACHED),
}


@pytest.fixture(scope="module")
def ended():
    """The texts that greedy notebooks showed, and why no further cell ran; all ran at once."""
    with ThreadPoolExecutor(len(GREEDY)) as pool:
        runs = {
            why: pool.submit(shown, *cells, **limits) for why, (limits, *cells) in GREEDY.items()
        }
    return {why: run.result() for why, run in runs.items()}


@confined
def test_a_cell_that_takes_too_long_does_not_pass_and_the_next_one_runs(ended):
    (late, after, last), _ = ended["late cells"]
    assert after == "1\n"
    assert late.endswith("took longer than 1 seconds") and "took longer" in last


@confined
@pytest.mark.parametrize("why", list(GREEDY)[1:])
def test_what_ends_a_notebook(ended, why):
    texts, told = ended[why]
    assert "2\n" not in texts and why in told


def test_a_figure_of_the_course_stays_and_other_markup_does_not(capture_display):
    display_figure(plot_quarter(width=8, rank=1))
    data = [capture_display[0], {"text/html": '<img alt="" src="data:image/png;base64,"><b>">'}]
    figure, other = plain_outputs({"output_type": "display_data", "data": each} for each in data)
    assert base64.b64decode(figure.data["image/png"]).startswith(b"\x89PNG")
    assert not other.data


def test_text_for_a_terminal_and_a_spreadsheet():
    assert plain("\x1b[1;31mred\x1b[0m\x1b]8;;x\x07 \x9b1m\r\b\x00end\n") == "red 1mend\n"
    assert plain("a" * 10**6, 5) == "aaaaa..."
    assert one_line("a\udcff\n\tb") == "a b"
    for text in ("=1", "\t=1", " +1", "-1", "\u00a0@x", "\n=1"):
        assert no_formula(text) == f"'{text}"
    assert no_formula("a = 1") == "a = 1"


@pytest.mark.parametrize("missing", ["not installed", "forbidden"])
def test_without_a_sandbox_nothing_is_run(monkeypatch, tmp_path, missing):
    if missing == "forbidden":
        (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'No permissions' >&2; exit 1\n")
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SerialLoRAError, match="--unconfined: a notebook then reads"):
        sandbox.run(notebook("open('/tmp/ran', 'w')"), sandbox.Limits())
