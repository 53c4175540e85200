"""What a learner reads about an answer that is not right yet: expected, got, the likely cause."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import serial_lora_course as course
from serial_lora.errors import SerialLoRAError

UNKNOWN = "no known mistake gives this result"
RAISED = "your code raised an error: its line is shown above"
NOT_THE_LEARNERS = tuple(str(Path(file).parent) for file in (torch.__file__, course.__file__))

WHOLE = re.compile(
    r"Got:? (Bool|Int|Long)|bool (tensor|input)|not implemented for '(Bool|Int|Long)'"
)
"""What PyTorch says where floating-point numbers are wanted."""


class CheckFailed(AssertionError):
    """An exercise that is not right yet: what was compared, expected, got, and the likely cause.

    ``causes`` are the known mistakes that would give what the learner got; ``advice`` is for when
    there are none, and ``sure`` where no mistake has to be looked for. A ``vague`` advice says what
    to do, and not what is wrong: then ``worked`` has lines of a case that is worked out.
    """

    def __init__(
        self,
        what: str,
        expected: Any,
        got: Any,
        advice: str,
        causes: Sequence[str] = (),
        sure: bool = False,
        vague: bool = False,
    ) -> None:
        self.what, self.sure, self.vague = what, sure, vague
        self.expected = describe(expected)
        self.got = describe(got)
        self.advice, self.causes = advice, list(causes)
        self.worked: list[str] = []
        self.number: str | None = None
        super().__init__(what, expected, got, advice, causes)

    @property
    def cause(self) -> str:
        """The likely cause in words; where there are several, all of them."""
        if self.causes:
            several = f"possibly: {'; or: '.join(self.causes)}"
            return several if len(self.causes) > 1 else self.causes[0]
        return f"{UNKNOWN}; {self.advice}" if self.vague else self.advice

    def __str__(self) -> str:
        exercise_name = f"Exercise {self.number}" if self.number else "This exercise"
        lines = [
            f"{exercise_name} is not right yet.",
            f"  compared:     {self.what}",
            f"  expected:     {self.expected}",
            f"  got:          {self.got}",
            f"  likely cause: {self.cause}",
        ]
        return "\n".join(lines + self.worked)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message alone, since the traceback is ours and not the learner's.

        When the learner's own code raised, the lines of it that led there come first.
        """
        places = lines_of_the_learner(self.__cause__)[-2:] if self.__cause__ else []
        return [*places, *str(self).splitlines()]


class NoExercise(SerialLoRAError):
    """A number that no exercise has: a notebook shows the sentence alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Interrupted(KeyboardInterrupt):
    """A check that the learner stopped: a notebook shows where, in a line, and runs no further."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def lines_of_the_learner(error: BaseException) -> list[str]:
    """The lines of the learner's code that led to an error, the outermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(NOT_THE_LEARNERS)]
    return [f"line {frame.lineno} of {frame.name}:  {frame.line}" for frame in own]


def describe(value: Any) -> str:
    """One short line for any value, however odd it is."""
    try:
        text = _described(value)
    except Exception:  # its repr or its shape raises, or it holds itself
        text = f"a {type(value).__name__} that cannot be shown"
    longest = 300 if isinstance(value, str) else 160
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def text_of(error: BaseException) -> str:
    """The text of an error, which may be of a class of the learner's."""
    try:
        return str(error)
    except Exception:
        return "its text cannot be read"


def _described(value: Any) -> str:
    """A small tensor's numbers, a large tensor's shape, other things as Python shows them."""
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__} module"
    if isinstance(value, Tensor):
        shape = "x".join(str(size) for size in value.shape) or "scalar"
        if value.numel() <= 4:
            return f"tensor {shape}: {[round(number, 5) for number in value.flatten().tolist()]}"
        return f"tensor {shape}"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        value = {key: _Inside(item) for key, item in value.items()}
    elif type(value) in (list, tuple):
        value = type(value)(map(_Inside, value))
    return repr(value)


class _Inside:
    """A value in a list or a dictionary: in short there too, and a text in quotation marks."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value) if isinstance(self.value, str) else describe(self.value)


def likely_error(error: Exception) -> str:
    """The likely cause of an error that the learner's code ended in."""
    message, kind = text_of(error), type(error)
    hints = {
        "the shapes of two matrices do not match: write the shape of each as a comment, then transpose one": (
            "shapes cannot be multiplied" in message or "size mismatch" in message
        ),
        "two tensors have shapes that do not match: write the shape of each as a comment": (
            "must match the size of tensor" in message
        ),
        "two tensors have different types, such as float32 and float64: convert one of them": (
            "same dtype" in message or "expected scalar type" in message
        ),
        "this does not work for integers or for True and False: convert them to floating-point numbers "
        "first, with .float()": bool(WHOLE.search(message)),
        "a tensor that records gradients is changed in place: use the function without _ at its "
        "end, or, to fill a parameter, torch.no_grad()": "leaf Variable" in message,
        "super().__init__() is missing: call it first, as nn.Module registers parameters only after it": (
            "before Module.__init__() call" in message
        ),
        "an object is created without all its arguments: the error names what is missing": (
            kind is TypeError and "__init__() missing" in message
        ),
        "the arguments do not match: keep those that the stub has": (
            kind is TypeError and "argument" in message
        ),
        "and, or and a < b < c do not work on tensors: join comparisons with & or |, each in "
        "its own brackets": ("Boolean value of Tensor" in message or "bitwise_and" in message),
        "a name has no value yet: run the cells above, and check the spelling": (
            isinstance(error, NameError)
        ),
    }
    return likely(hints, RAISED)


def likely(conditions: dict[str, bool], otherwise: str) -> str:
    """The first cause whose condition holds."""
    return next((cause for cause, holds in conditions.items() if holds), otherwise)


def require(condition: bool, what: str, expected: Any, got: Any, cause: str) -> None:
    """Require anything, with all four parts of the message given."""
    if not condition:
        raise CheckFailed(what, expected, got, cause)
