"""Run a Python module that may read everything and write only below one folder.

::

    python confinement.py FOLDER MODULE [ARGUMENT ...]

Two guards are put up before the module, or anything but the standard library, is loaded:

- *Landlock*, where the Linux kernel has it (5.13 or newer): the kernel itself refuses to write,
  create, rename or remove anything elsewhere, whoever asks: Python, compiled code, or a program
  that was started. Newer kernels also refuse TCP connections and signals to other processes.
- *A Python audit hook*, everywhere: it refuses what Python itself opens, renames, removes or
  changes elsewhere, in one clear sentence. Without Landlock it also refuses to start programs.
  It does not see files that compiled code opens (``torch.save``, ``safetensors``), nor what is
  opened by ``os.open`` relative to another folder's descriptor: Python does not tell that one.

The file runs as a script and imports nothing of the package: see ``grade.py``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import runpy
import struct
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_NO_NEW_PRIVILEGES = 38  # of prctl
# Rights in the file system that change something, as bits of linux/landlock.h: write a file,
# remove and make entries of every kind; moving between folders and truncating came later.
_CHANGES = sum(1 << bit for bit in (1, *range(4, 13)))
_SINCE = {2: 1 << 13, 3: 1 << 14}
_CHANGES_TO_A_FILE = 1 << 1 | 1 << 14
_CONNECT_TCP = 1 << 1
_SIGNALS_AND_ABSTRACT_SOCKETS = 0b11

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
# Audit event: for each of its paths, where it stands, where its directory's descriptor stands,
# and whether the event changes what a link points to, and not the link.
_CHANGING = {
    "os.remove": ((0, 1, False),),
    "os.rename": ((0, 2, False), (1, 3, False)),
    "os.mkdir": ((0, 2, False),),
    "os.rmdir": ((0, 1, False),),
    "os.link": ((0, 2, True), (1, 3, False)),
    "os.symlink": ((1, 2, False),),
    "os.truncate": ((0, None, True),),
    "os.chmod": ((0, 2, True),),
    "os.chown": ((0, 3, True),),
    "os.utime": ((0, 3, True),),
    "os.setxattr": ((0, None, True),),
    "os.removexattr": ((0, None, True),),
    "os.chflags": ((0, None, True),),
}
_STARTING = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "os.startfile",
    "pty.spawn",
}
_REFUSED = "a graded notebook may write only in its own folder"


def landlock(folder: str) -> int:
    """Let the kernel refuse, for this thread and all it starts, to write outside ``folder``.

    Returns:
        The version of Landlock in force; 0 where the kernel has none or does not let us use it.
    """
    if not sys.platform.startswith("linux"):
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long

    def call(number: int, *arguments: int | bytes | None) -> int:
        numbers = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        result = libc.syscall(ctypes.c_long(number), *numbers)
        if result < 0:
            raise OSError(ctypes.get_errno(), "Landlock")
        return result

    rules = None
    try:
        version = call(_CREATE_RULESET, None, 0, 1)
        changes = _CHANGES + sum(bit for since, bit in _SINCE.items() if version >= since)
        network = _CONNECT_TCP if version >= 4 else 0
        scope = _SIGNALS_AND_ABSTRACT_SOCKETS if version >= 6 else 0
        handled = struct.pack("=QQQ", changes, network, scope)
        rules = call(_CREATE_RULESET, handled, len(handled), 0)
        for path, rights in ((folder, changes), (os.devnull, changes & _CHANGES_TO_A_FILE)):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                call(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
            finally:
                os.close(place)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            return 0
        call(_RESTRICT_SELF, rules, 0)
        return version
    except OSError:
        return 0
    finally:
        if rules is not None:
            os.close(rules)


def watch(folder: str, may_start_programs: bool) -> None:
    """Refuse, for good, what Python does to files outside ``folder``; it must be a real path."""
    inside = os.path.join(folder, "")
    own = os.getpid()

    def refuse(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not (flags or 0) & _WRITING:
                return
            _require_inside(inside, path, None, True)
        elif event in _CHANGING:
            for place, directory, follows in _CHANGING[event]:
                given = None if directory is None else arguments[directory]
                _require_inside(inside, arguments[place], given, follows)
        elif event == "sqlite3.connect" and os.fsdecode(arguments[0]) not in (":memory:", ""):
            _require_inside(inside, arguments[0], None, True)
        elif event in _STARTING and not may_start_programs:
            raise PermissionError(errno.EACCES, "a graded notebook may not start programs here")
        elif event in ("os.kill", "os.killpg") and not may_start_programs and arguments[0] != own:
            raise PermissionError(errno.EACCES, "a graded notebook may not end other programs")

    sys.addaudithook(refuse)


def _require_inside(
    inside: str, path: str | bytes | int, directory: int | None, follows: bool
) -> None:
    if isinstance(path, int):
        place = _opened_as(path)
    else:
        name = os.fsdecode(path)
        if directory is not None and directory >= 0 and not os.path.isabs(name):
            name = os.path.join(_opened_as(directory), name)
        if follows:
            place = os.path.realpath(name)
        else:
            parent, last = os.path.split(os.path.normpath(os.path.abspath(name)))
            place = os.path.join(os.path.realpath(parent), last)
    if not os.path.join(place, "").startswith(inside) and place != os.devnull:
        raise PermissionError(errno.EACCES, _REFUSED, place)


def _opened_as(descriptor: int) -> str:
    """The path behind an open descriptor; nowhere in particular where the system does not tell."""
    if sys.platform == "darwin":
        import fcntl

        return os.fsdecode(fcntl.fcntl(descriptor, 50, bytes(1024)).rstrip(b"\0"))  # F_GETPATH
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.path.join(os.sep, "unknown")


def confine(folder: str) -> str:
    """Put both guards up; return what is in force, as a reader wants it."""
    folder = os.path.realpath(folder)
    version = landlock(folder)
    watch(folder, may_start_programs=version > 0)
    hook = "a Python audit hook"
    return f"Landlock {version} of the Linux kernel and {hook}" if version else f"{hook} alone"


def main() -> None:
    """Confine this process, say so in ``sys._serial_lora_confined``, and run the module."""
    folder, module, *arguments = sys.argv[1:]
    del sys.path[0]  # this file's folder, whose modules are not meant to be found by bare names
    sys._serial_lora_confined = confine(folder)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
