"""Commands as people run them: through the door of the command line, and without root's rights."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from serial_lora_course.door import enter

NOBODY = 65534


@dataclass
class Ran:
    """How a command ended, what it printed, and what it complained of."""

    exit_code: int
    out: str
    err: str

    @property
    def output(self) -> str:
        return self.out + self.err


def through_the_door(command: Callable, *words: object) -> Ran:
    """Run a command in this process as its ``__main__`` does."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        enter("test", command, [str(word) for word in words])
    return Ran(ended.value.code or 0, *(each.buffer.getvalue().decode() for each in (out, err)))


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Root may read and write everything; for the length of the block, this process is not root.

    Args:
        folder: with all above it, stays open to everybody.
    """
    if os.geteuid():
        yield
        return
    for place in (folder, *folder.parents):
        place.chmod(place.stat().st_mode | 0o055)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
