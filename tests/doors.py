"""Commands as people run them: through the door of the command line, and without root's rights."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from serial_lora_course.door import enter


class Ran(NamedTuple):
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
