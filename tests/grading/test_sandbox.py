"""Attacks from inside a notebook: each fails in the sandbox, and would succeed outside it."""

import base64
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from serial_lora.errors import SerialLoRAError
from serial_lora_course.grading import sandbox
from serial_lora_course.grading.text import no_formula, one_line, plain, plain_outputs
from serial_lora_course.lessons.l02_count.figures import plot_quarter
from serial_lora_course.plots.style import display_figure

ROOT = Path(__file__).resolve().parents[2]
try:
    sandbox.require_bubblewrap()
    WHY_NOT = ""
except SerialLoRAError as error:
    WHY_NOT = str(error)
confined = pytest.mark.skipif(bool(WHY_NOT), reason=f"no sandbox here: {WHY_NOT}")

OPENING = """\
import ctypes, os, pathlib, resource, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def program(code):
    names = f"import os, socket\\nvictim, path, port = {victim!r}, {path!r}, {port!r}\\n"
    subprocess.run([sys.executable, "-I", "-c", names + code], check=True)
def worked(result):
    if result:
        raise OSError(ctypes.get_errno(), "refused")
"""
UNIX = "s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(path); s.recv(9)"
UDP = (
    "s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(2); "
    "s.sendto(b'x', ('127.0.0.1', port)); s.recv(9)"
)
ATTACKS = {  # a cell that ends without an error has done what it should not
    "a running program's socket": UNIX,
    "that socket, by a program": f'program("{UNIX}")',
    "an abstract socket": UNIX.replace("(path)", "('\\0' + path)"),
    "a server": "socket.create_connection(('127.0.0.1', port), timeout=2).recv(9)",
    "UDP": UDP,
    "UDP by a program": f'program("{UDP}")',
    "write": "open(victim, 'w').write('changed')",
    "create": "os.mkdir(victim + '.new')",
    "remove": "os.remove(victim + '.old')",
    "write by a program": 'program(\'open(victim, "a").write("x")\')',
    "chmod": "os.chmod(victim, 0o777)",
    "chmod by a program": "subprocess.run(['chmod', '777', victim], check=True)",
    "touch by a program": "subprocess.run(['touch', '-d', '2001-01-01', '-c', victim], check=True); "
    "os.stat(victim)",
    "chown by compiled code": "worked(libc.chown(os.fsencode(victim), os.getuid(), os.getgid()))",
    "times by compiled code": "worked(libc.utimes(os.fsencode(victim), None))",
    "signals": "os.kill(pid, 0)",
    "limits of the teacher's programs": "resource.prlimit(pid, resource.RLIMIT_NOFILE)",
    "priority of the teacher's programs": "os.setpriority(os.PRIO_PROCESS, pid, 19)",
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
    done = sandbox.run(notebook(*cells), sandbox.Limits(**limits))
    texts = [
        "".join(o.get("text", o.get("evalue", "")) for o in out) for out in done.outputs.values()
    ]
    return texts, done.ended


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


@confined
def test_no_attack_succeeds(outside, tmp_path):
    before = picture(tmp_path)
    done = sandbox.run(notebook(*outside), sandbox.Limits())
    assert not failed(done.outputs[0]), done
    succeeded = [name for i, name in enumerate(ATTACKS, 1) if not failed(done.outputs[i])]
    assert succeeded == []
    assert picture(tmp_path) == before


def test_the_attacks_succeed_without_the_sandbox(outside):
    """Otherwise the test above would prove nothing."""
    done = sandbox.run(notebook(*outside), sandbox.Limits(), unconfined=True)
    assert not failed(done.outputs[0]), done
    refused = [name for i, name in enumerate(ATTACKS, 1) if failed(done.outputs[i])]
    assert refused == []


@confined
def test_a_notebook_can_do_what_lessons_do_and_its_children_end_with_it():
    texts, _ = shown(
        "import tempfile, pathlib, os, subprocess, sys, torch",
        "print(pathlib.Path.home(), os.listdir(), tempfile.mkdtemp(), os.listdir('/home') if os.path.exists('/home') else '')",
        "pathlib.Path('own.txt').write_text('x'); torch.save(torch.ones(3), 'own.pt')",
        "print(subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True).stdout)",
        "from multiprocessing import shared_memory as s; s.SharedMemory(create=True, size=9).unlink()",
        "for _ in range(40):\n    subprocess.Popen(['sleep', '98765'], start_new_session=True)\nprint(1)",
    )
    assert texts[0] == texts[2] == texts[4] == "" and texts[3] == "42\n\n"
    assert texts[1].startswith("/tmp ") and texts[5] == "1\n"
    sleepers = [process for process in psutil.process_iter() if "98765" in commands(process)]
    assert psutil.wait_procs(sleepers, timeout=10)[1] == []


def commands(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@confined
def test_what_is_done_to_the_client_ends_that_notebook_alone():
    before = [psutil.Process().nice(), psutil.Process().rlimit(psutil.RLIMIT_CPU)]
    texts, ended = shown(
        "import os, resource, signal\nprint('here', flush=True)",
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    if int(pid) != os.getpid():\n"
        "        resource.prlimit(int(pid), resource.RLIMIT_CPU, (1, 1))\n"
        "        os.setpriority(os.PRIO_PROCESS, int(pid), 19)\n"
        "        os.kill(int(pid), signal.SIGKILL)",
    )
    assert (texts[0], ended) == ("here\n", "the process that ran the notebook ended")
    assert [psutil.Process().nice(), psutil.Process().rlimit(psutil.RLIMIT_CPU)] == before


@confined
def test_limits_of_time():
    stubborn = "while True:\n    try:\n        {}\n    except KeyboardInterrupt:\n        pass"
    texts, ended = shown(
        "while True:\n    pass", "print(1)", stubborn.format("print(1)"), "print(2)", cell_seconds=2
    )
    assert texts[0].endswith("took longer than 2 seconds") and texts[1] == "1\n"
    assert ended == "the cell took longer than 2 seconds and could not be stopped"
    assert len(texts) == 3
    assert shown("import time; time.sleep(60)", seconds=3)[1].endswith("longer than 3 seconds")


@confined
@pytest.mark.parametrize(
    ("cell", "limits", "why"),
    [
        ("import os\nwhile True:\n    os.fork()", {"threads": 90}, "90 processes and threads"),
        (
            "import os, time\nfor _ in range(4):\n    if not os.fork():\n"
            "        kept = bytearray(os.urandom(1) * (300 * 2**20)); time.sleep(60)\ntime.sleep(60)",
            {"memory": 2**30},
            "1 GB of memory",
        ),
    ],
    ids=["fork bomb", "memory of many"],
)
def test_what_ends_a_notebook(cell, limits, why):
    texts, ended = shown("print(1)", cell, "print(2)", **limits)
    assert texts[0] == "1\n" and "2\n" not in texts
    assert why in ended


@confined
def test_limits_of_memory_and_disk_leave_the_notebook_running():
    texts, _ = shown(
        "try:\n    x = bytearray(30 * 2**30)\nexcept MemoryError:\n    print('refused')",
        "def fill(path):\n    try:\n        with open(path, 'wb') as file:\n            while True:\n"
        "                file.write(bytes(2**20))\n    except OSError as error:\n        print(error.strerror)",
        "fill('/tmp/x'); fill('/dev/shm/x'); fill('/x'); fill('/dev/x')",
        "print(1)",
        scratch=2**26,
    )
    assert texts[0] == "refused\n" and texts[3] == "1\n"
    full, fixed = "No space left on device", "Read-only file system"
    assert texts[2].splitlines() == [full, full, fixed, fixed]


@confined
def test_what_a_notebook_shows_is_cut_and_plain():
    done = sandbox.run(
        notebook(
            "print('x' * 2 * 10**7)",
            "raise ValueError('\\x1b[31m\\x1b]0;title\\x07\\u202e=cmd' * 10**6)",
            "from IPython.display import HTML, display; display(HTML('<script>alert(1)</script>'))",
            "display({'image/png': '\"><script>', 'text/plain': 'x'}, raw=True)",
            "for i in range(500): print(i, flush=True); display(i)",
        ),
        sandbox.Limits(),
    )
    assert set(done.outputs) == {0, 1, 2, 3, 4}
    assert len(str(done.outputs)) < 10**6
    (error,) = done.outputs[1]
    assert error.evalue.startswith("=cmd=cmd")
    assert "script" not in str([done.outputs[2], done.outputs[3]])


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


@confined
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_the_sandbox_does_not_need_root(monkeypatch):
    monkeypatch.setattr(sandbox, "places", list)  # they may lie in root's home
    command = [*sandbox.bubblewrap(sandbox.Limits()), "id", "-u"]
    done = subprocess.run(command, user=65534, group=65534, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"other users may not here: {done.stderr}")
    assert done.stdout.split() == ["65534"]


@pytest.mark.parametrize("missing", ["not installed", "forbidden"])
def test_without_a_sandbox_nothing_is_run(monkeypatch, tmp_path, missing):
    if missing == "forbidden":
        (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'No permissions' >&2; exit 1\n")
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SerialLoRAError, match="--unconfined: a notebook then reads"):
        sandbox.run(notebook("open('/tmp/ran', 'w')"), sandbox.Limits())
