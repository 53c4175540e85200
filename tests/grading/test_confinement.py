"""What may not be written from inside a confined process, by each of the two guards."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serial_lora_course.grading import confinement

# Run in a process of its own, since neither guard can be taken down again. Every line of ATTEMPTS
# tries to change something in `there`; the names of those that went through are printed.
PROGRAM = """
import json, os, pathlib, shutil, socket, sqlite3, subprocess, sys, tempfile
sys.path.insert(0, sys.argv[1])
import confinement
scratch, there, guard, attempts = sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4], sys.argv[5]
os.chdir(scratch)
shell = ["sh", "-c", f"echo changed > {there}/victim.txt"]
directory = os.open(there, os.O_RDONLY)
if guard == "landlock":
    confinement.landlock(scratch)
elif guard == "hook":
    confinement.watch(scratch, may_start_programs=False)
done, failed = [], []
for name, line in json.loads(attempts).items():
    try:
        exec(line)
        done.append(name)
    except (OSError, sqlite3.Error, subprocess.SubprocessError, shutil.Error) as error:
        failed.append(name)
print(json.dumps([done, failed]))
"""
BOTH = {
    "write": "open(there / 'victim.txt', 'w')",
    "append": "open(there / 'victim.txt', 'a')",
    "read and write": "open(there / 'victim.txt', 'r+')",
    "create": "(there / 'new.txt').touch()",
    "create by a relative path": "open(os.path.relpath(there / 'new.txt'), 'w')",
    "os.open": "os.open(there / 'new.txt', os.O_CREAT | os.O_WRONLY)",
    "remove": "(there / 'victim.txt').unlink()",
    "remove by a descriptor": "os.remove('victim.txt', dir_fd=directory)",
    "remove a tree": "shutil.rmtree(there / 'folder')",
    "move away": "(there / 'victim.txt').rename('mine.txt')",
    "move there": "open('mine.txt', 'w').close(); os.replace('mine.txt', there / 'new.txt')",
    "copy there": "shutil.copy(sys.executable, there)",
    "make a folder": "(there / 'more').mkdir()",
    "remove a folder": "(there / 'empty').rmdir()",
    "truncate": "os.truncate(there / 'victim.txt', 0)",
    "hard link in, then write": "os.link(there / 'victim.txt', 'l'); open('l', 'w').write('x')",
    "hard link out": "open('h.txt', 'w').close(); os.link('h.txt', there / 'new.txt')",
    "soft link there": "os.symlink('x', there / 'new.txt')",
    "write through a link": "os.symlink(there / 'victim.txt', 'soft'); open('soft', 'w')",
    "create through a linked folder": "os.symlink(there, 'way'); open('way/new.txt', 'w')",
    "database": "sqlite3.connect(there / 'd.sqlite').execute('create table t (a)')",
    "a program": "subprocess.run(shell, check=True, stderr=subprocess.DEVNULL)",
}
HOOK_ALONE = {
    "mode": "os.chmod(there / 'victim.txt', 0o777)",
    "times": "os.utime(there / 'victim.txt', (1, 1))",
    "os.system": "os.system(f'echo changed > {there}/victim.txt')",
}
ALLOWED = {
    "read": "assert (there / 'victim.txt').read_text() == 'as it was'",
    "list": "list(there.iterdir())",
    "write here": "open('own.txt', 'w').write('x')",
    "rename here": "os.rename('own.txt', 'other.txt')",
    "folders here": "os.makedirs('a/b'); shutil.rmtree('a')",
    "existing folder elsewhere": "os.makedirs(there, exist_ok=True)",
    "nowhere": "open(os.devnull, 'w').write('x')",
    "temporary": "tempfile.TemporaryFile(dir='.').write(b'x')",
    "link away, remove the link": "os.symlink(there, 'w'); os.remove('w')",
    "database in memory": "sqlite3.connect(':memory:').execute('create table t (a)')",
}


def probe_landlock() -> int:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(confinement.__file__).parent)!r}); "
        "import confinement; print(confinement.landlock('.'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    return int(done.stdout)


LANDLOCK = probe_landlock()
GUARDS = ["hook", *(["landlock"] if LANDLOCK else [])]


def attempt(tmp_path: Path, guard: str, attempts: dict[str, str]) -> tuple[list, list, Path]:
    scratch, there = tmp_path / "scratch", tmp_path / "there"
    scratch.mkdir(parents=True)
    furnish(there)
    course = str(Path(confinement.__file__).parent)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            course,
            str(scratch.resolve()),
            str(there.resolve()),
            guard,
            json.dumps(attempts),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return *json.loads(done.stdout.splitlines()[-1]), there


def furnish(there: Path) -> None:
    (there / "folder").mkdir(parents=True)
    (there / "empty").mkdir()
    (there / "victim.txt").write_text("as it was")
    (there / "folder" / "inner.txt").write_text("inner")


def picture(folder: Path) -> list:
    paths = [folder, *sorted(folder.rglob("*"))]
    return [
        (path.relative_to(folder), path.lstat().st_mode, path.is_file() and path.read_bytes())
        for path in paths
    ]


@pytest.mark.parametrize("guard", GUARDS)
def test_nothing_outside_can_be_changed(tmp_path, guard):
    attempts = BOTH | (HOOK_ALONE if guard == "hook" else {})
    done, failed, there = attempt(tmp_path, guard, attempts)
    assert done == []
    assert failed == list(attempts)
    furnish(tmp_path / "fresh")
    assert picture(there) == picture(tmp_path / "fresh")


@pytest.mark.parametrize("guard", GUARDS)
def test_what_a_notebook_needs_is_allowed(tmp_path, guard):
    done, failed, _ = attempt(tmp_path, guard, ALLOWED)
    assert failed == []
    assert done == list(ALLOWED)


def test_the_attempts_would_succeed_without_a_guard(tmp_path):
    """Otherwise the tests above would prove nothing."""
    for index, (name, line) in enumerate({**BOTH, **HOOK_ALONE}.items()):
        folder = tmp_path / str(index)
        scratch, there = folder / "scratch", folder / "there"
        scratch.mkdir(parents=True)
        furnish(there)
        before = picture(there)
        times = (there / "victim.txt").stat().st_mtime_ns
        names = {
            "there": there,
            "directory": os.open(there, os.O_RDONLY),
            "shell": ["sh", "-c", f"echo changed > {there}/victim.txt"],
        }
        header = "import os, shutil, sqlite3, subprocess, sys\n"
        home = os.getcwd()
        os.chdir(scratch)
        try:
            exec(header + line, names)
        finally:
            os.chdir(home)
            os.close(names["directory"])
        opened = name in ("append", "read and write")  # these only open, which is harm enough
        changed = picture(there) != before or (there / "victim.txt").stat().st_mtime_ns != times
        assert changed or opened, name


@pytest.mark.skipif(LANDLOCK < 4, reason="this kernel's Landlock does not know the network")
def test_programs_reach_no_server(tmp_path):
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    connect = f"socket.create_connection(('127.0.0.1', {port}), timeout=5)"
    _, failed, _ = attempt(tmp_path, "landlock", {"connect": connect})
    assert failed == ["connect"]
    assert attempt(tmp_path / "again", "none", {"connect": connect})[0] == ["connect"]


def test_both_guards_are_named():
    program = (
        f"import sys; sys.path.insert(0, {str(Path(confinement.__file__).parent)!r}); "
        "import confinement; print(confinement.confine('.'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = "Landlock" if LANDLOCK else "a Python audit hook alone"
    assert done.stdout.startswith(expected) and "hook" in done.stdout
