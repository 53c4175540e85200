"""Files that are there whole or not at all, however a program ends."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serial_lora.errors import SerialLoRAError


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[None]:
    """Tell what the system refuses in one sentence."""
    try:
        yield
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        why = getattr(error, "strerror", None) or error
        raise SerialLoRAError(
            f"{path} could not be written ({why}); free some space or choose another folder."
        ) from error


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half; make its folder.

    The content goes to a file of another name in the same folder first, which then takes the
    place of the old one in one step. Two programs that write the same file do not mix: the later
    one wins. A link stays, and what it leads to is written; so do the rights of an older file.

    Raises:
        OSError: it cannot be written, or is a pipe, a device or a folder; an older file is as it was,
            and nothing is left behind.
    """
    path = Path(path)
    if not path.name or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    place = Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, partial)
        os.replace(partial, place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
