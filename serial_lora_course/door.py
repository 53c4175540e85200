"""The door of every command line: what goes wrong ends in one sentence and an exit code.

    enter("serial-lora", command)

2 where whoever typed the command can mend it, 1 where only the course can: then what happened is kept
in a file to attach to a report. ``--debug``, anywhere in the command, shows the traceback in both cases.
"""

from __future__ import annotations

import os
import platform
import shlex
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from serial_lora_course.files import printable, refusal

DEBUG = "--debug"
STOPPED = 130  # by Ctrl-C
GOES_ON = "stopped; what was recorded is kept, and the same command goes on."


def enter(
    program: str,
    command: Callable[[list[str]], object],
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Run a command and end the process.

    Args:
        program: what the sentence begins with.
        command: takes the words of the command line; what it returns is the exit code.
        arguments: the words; those of this process if left out.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, words = DEBUG in words, [word for word in words if word != DEBUG]
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever started this closed it
            setattr(sys, name, open(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):  # names may hold any bytes, and logs are watched
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)

    def say(sentence: object) -> None:
        print(f"{program}: {printable(str(sentence))}", file=sys.stderr)

    try:
        with _stops_noted() as stops, warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)  # whatever PYTHONWARNINGS says
            warnings.showwarning = lambda warned, *_: say(f"note: {warned}")
            code, sentence = command(words), ""
    except SystemExit as ended:
        code, sentence = ended.code, GOES_ON if ended.code == STOPPED else ""
    except KeyboardInterrupt:
        code, sentence = STOPPED, GOES_ON
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else what was left is tried again
        code, sentence = (STOPPED, GOES_ON) if stops else _ending(program, words, error)
    if sentence:
        say(sentence)
    sys.exit(code)


@contextmanager
def _stops_noted() -> Iterator[list[int]]:
    """A list that has an entry after Ctrl-C, of which a package that is loading makes other errors."""
    stops: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stops.append(number)
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else whoever started this ignores it
        signal.signal(signal.SIGINT, stop)
    try:
        yield stops
    finally:
        signal.signal(signal.SIGINT, before)


def _ending(program: str, words: Sequence[str], error: Exception) -> tuple[int, str]:
    """Exit code and sentence of an error; the traceback of one that nobody foresaw is kept."""
    ours = sys.modules.get("serial_lora.errors")  # nothing of it was raised where it is not loaded
    if ours and isinstance(error, ours.SerialLoRAError):
        return 2, str(error)
    if isinstance(error, BrokenPipeError):
        return 1, ""  # whoever read the output has enough
    if isinstance(error, OSError) and (told := refusal(error)):
        return 2, told
    sentence = f"{type(error).__name__} was not foreseen ({error}); this is a fault of the course"
    facts = f"{program} {shlex.join(words)}\nPython {sys.version}, {platform.platform()}\n\n"
    try:
        number, place = tempfile.mkstemp(".txt", "serial-lora-")
        with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(facts + traceback.format_exc())
    except OSError:
        return 1, f"{sentence}, and {DEBUG} shows where it lies."
    return 1, f"{sentence}, so please report it and attach {place}."
