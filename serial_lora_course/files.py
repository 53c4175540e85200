"""Readable JSON files that are there whole or not at all; odd names, and what cannot be read."""

from __future__ import annotations

import errno
import json
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# The library is imported where it is needed: it loads PyTorch, for which `--help` need not wait.


def refusal(error: OSError) -> str | None:
    """What the system refuses, in one sentence: no rights, a name too long, a full disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk is full ({error.strerror}); free some space or choose another place."
    if error.filename is None:
        return None
    name = error.filename2 or error.filename  # the second is what was to be replaced
    return f"{name} cannot be used ({error.strerror}); check its name, rights and disk."


@contextmanager
def refusals_told() -> Iterator[None]:
    """Raise what the system refuses as an error of one sentence."""
    try:
        yield
    except OSError as error:
        from serial_lora.errors import SerialLoRAError

        if told := refusal(error):
            raise SerialLoRAError(told) from error
        raise


@contextmanager
def alone(lock: Path, sentence: str) -> Iterator[None]:
    """One process at a time; the lock is freed however a process ends, and its file is gone then.

    Args:
        sentence: what the others are told.
    """
    from filelock import FileLock, Timeout

    from serial_lora.errors import SerialLoRAError

    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise SerialLoRAError(sentence) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows deletes no file that is open
            lock.unlink()
        held.release()


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with ``~`` for a home; that of a user who is not there stays as it was typed."""
    return Path(os.path.expanduser(path))


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write ``content`` as readable JSON, as :func:`serial_lora.files.write_whole` writes.

    Raises:
        OSError: it cannot be written.
        TypeError: the content has no form in JSON; nothing is written then.
    """
    from serial_lora.files import write_whole

    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return write_whole(path, text.encode())


ADAPTER_FILE = "adapter.safetensors"  # in a folder that holds a classifier
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # codes for a terminal, bytes that are no text, line breaks


def printable(text: str) -> str:
    """Text in one line: what a terminal would obey or cannot show is written out, as "\\n"."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in UNPRINTABLE else c for c in text)


def is_text(name: str) -> bool:
    """Whether a file's name is text, and not bytes of some other encoding."""
    return not any(unicodedata.category(c) == "Cs" for c in name)
