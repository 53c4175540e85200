"""Files that are there whole or not at all, however a program ends."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half; make its folder.

    The content goes to a file of another name in the same folder first, which then takes the
    place of the old one in one step. Two programs that write the same file do not mix: the later
    one wins.

    Raises:
        OSError: it cannot be written; an older file is as it was, and nothing is left behind.
    """
    path = Path(path)
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write ``content`` as readable JSON, as :func:`write_whole` writes.

    Raises:
        OSError: it cannot be written.
        TypeError: the content has no form in JSON; nothing is written then.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return write_whole(path, text.encode())
