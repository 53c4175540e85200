"""The door of every command line: what goes wrong ends in one sentence and an exit code.

    enter("serial-lora", app)

2 where whoever typed the command can mend it, 1 where only the course can: then what happened is kept
in a file to attach to a report. ``--debug``, anywhere in the command, shows the traceback in both cases.
"""

from __future__ import annotations

import platform
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import printable, refusals_told

DEBUG = "--debug"
STOPPED = 130  # by Ctrl-C


def enter(
    program: str,
    command: Callable[[list[str]], object],
    arguments: Sequence[str] | None = None,
    one_line: bool = True,
) -> NoReturn:
    """Run a command and end the process.

    Args:
        program: what the sentence begins with.
        command: takes the words of the command line; what it returns is the exit code.
        arguments: the words; those of this process if left out.
        one_line: whether whatever is said stands in one line; else as it was written.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, words = DEBUG in words, [word for word in words if word != DEBUG]

    def say(sentence: str) -> None:
        print(f"{program}: {printable(sentence) if one_line else sentence}", file=sys.stderr)

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names of files may hold any bytes
    try:
        with warnings.catch_warnings(), refusals_told():
            warnings.showwarning = lambda warned, *_: say(f"note: {warned}")
            sys.exit(command(words))
    except (KeyboardInterrupt, SystemExit) as ended:  # Typer makes the second of the first
        if getattr(ended, "code", STOPPED) != STOPPED:
            raise
        code, sentence = (
            STOPPED,
            "stopped; what was recorded is kept, and the same command goes on.",
        )
    except Exception as error:
        if debug:
            traceback.print_exc()
        foreseen = isinstance(error, SerialLoRAError)
        code, sentence = (2, str(error)) if foreseen else (1, _fault(program, words, error))
    say(sentence)
    sys.exit(code)


def _fault(program: str, words: Sequence[str], error: Exception) -> str:
    """What to say of an error that nobody foresaw; its traceback is kept."""
    told = f"{type(error).__name__} was not foreseen ({error})"
    facts = f"{program} {shlex.join(words)}\nPython {sys.version}, {platform.platform()}\n\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            prefix="serial-lora-",
            suffix=".txt",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file:
            file.write(facts + traceback.format_exc())
    except OSError:
        return f"{told}; this is a fault of the course, and {DEBUG} shows where it lies."
    return f"{told}; this is a fault of the course, so please report it and attach {file.name}."
