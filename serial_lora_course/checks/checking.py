"""How an exercise is checked: a registry of checks, and the words a learner reads.

A check is a function that takes the learner's object, compares it with an independent
implementation, and returns one sentence that says what was verified. It is registered under
the number of its exercise and lives in ``serial_lora_course/checks/lesson_NN.py``::

    @exercise("2.1")
    def pair_count(attempt):
        for width, rank in ((8, 2), (30, 7)):
            got = call(attempt, width, rank)
            require_equal(
                f"the parameters of one pair at width {width} and rank {rank}",
                got,
                expected=sum(p.numel() for p in a_module_built_another_way.parameters()),
                suspects={"only A is counted: B has as many entries": rank * width},
            )
        return "the count of one pair equals numel() at two widths and ranks"

``suspects`` maps a likely cause to the value that this mistake would give on the same input, so
that a learner who makes a known mistake reads its name and not only that two numbers differ.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch

from serial_lora.errors import SerialLoRAError

Check = Callable[..., str]

_REGISTRY: dict[str, Check] = {}

UNKNOWN_CAUSE = "none of the usual slips; print both on a tiny input and compare shapes first"
UNKNOWN_NUMBER = "none of the usual slips; work the case above out on paper, step by step"


class CheckFailed(AssertionError):
    """An exercise that is not right yet: what was compared, expected, got, and the likely cause."""

    def __init__(self, what: str, expected: Any, got: Any, cause: str = UNKNOWN_CAUSE):
        self.what = what
        self.expected = describe(expected)
        self.got = describe(got)
        self.cause = cause
        self.number: str | None = None
        super().__init__(what, expected, got, cause)

    def __str__(self) -> str:
        exercise_name = f"Exercise {self.number}" if self.number else "This exercise"
        return (
            f"{exercise_name} is not right yet.\n"
            f"  compared:     {self.what}\n"
            f"  expected:     {self.expected}\n"
            f"  got:          {self.got}\n"
            f"  likely cause: {self.cause}"
        )

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message alone, since the traceback is ours and not the learner's.

        When the learner's own code raised, its traceback is the useful one and is shown first.
        """
        if self.__cause__ is None:
            return str(self).splitlines()
        import traceback

        frames = traceback.extract_tb(self.__cause__.__traceback__)
        learners = [frame for frame in frames if frame.filename != __file__]
        places = [f"line {frame.lineno} of {frame.name}:  {frame.line}" for frame in learners[-2:]]
        return [*places, *str(self).splitlines()]


def exercise(number: str) -> Callable[[Check], Check]:
    """Register the decorated function as the check of exercise ``number``, such as ``"2.3"``."""

    def register(function: Check) -> Check:
        if number in _REGISTRY and _REGISTRY[number].__module__ != function.__module__:
            raise SerialLoRAError(f"Exercise {number} has two checks: keep one of them.")
        _REGISTRY[number] = function
        return function

    return register


def find_check(number: str) -> Check:
    """Return the check of one exercise; an unknown number names the ones that exist."""
    lesson = number.partition(".")[0]
    if lesson.isdigit():
        module = f"serial_lora_course.checks.lesson_{int(lesson):02d}"
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
    if number not in _REGISTRY:
        known = sorted(key for key in _REGISTRY if key.partition(".")[0] == lesson)
        names = ", ".join(known) or "no checks"
        raise SerialLoRAError(f"There is no exercise {number!r}: lesson {lesson} has {names}.")
    return _REGISTRY[number]


def check(number: str, *attempt: Any) -> None:
    """Check the learner's ``attempt`` at one exercise and print how it stands.

    Right: what was verified. Still raising ``NotImplementedError``: a friendly line, and the
    notebook runs on with the package's own version. Wrong: ``CheckFailed``.

    Args:
        number: the number printed on the exercise's card, such as ``"2.3"``.
        attempt: the learner's function or class (two, where the exercise asks for two).

    Raises:
        CheckFailed: the attempt is wrong; the message gives expected, got and the likely cause.
        SerialLoRAError: no such exercise.
    """
    verified = run_check(number, *attempt)
    if verified is None:
        print(
            f"Exercise {number} is waiting for you. The notebook runs on without it: "
            "the cells below use the package's own version."
        )
    else:
        print(f"Exercise {number} is right. Verified: {verified}.")


def run_check(number: str, *attempt: Any) -> str | None:
    """Check an attempt without printing: what was verified, or None when it is still open.

    Raises:
        CheckFailed, SerialLoRAError: as :func:`check`.
    """
    function = find_check(number)
    try:
        with torch.random.fork_rng(devices=[]):  # a check leaves the lesson's random numbers alone
            torch.manual_seed(0)
            return function(*attempt)
    except NotImplementedError:
        return None
    except CheckFailed as failure:
        failure.number = number
        raise


def call(
    attempt: Callable, *arguments: Any, what: str = "", cause: str = "", **keywords: Any
) -> Any:
    """Call the learner's code; an error in it becomes a ``CheckFailed`` that keeps its traceback.

    ``NotImplementedError`` passes through, as it means that the exercise is still open.
    ``cause`` replaces the guessed likely cause.
    """
    try:
        return attempt(*arguments, **keywords)
    except (NotImplementedError, CheckFailed):
        raise
    except Exception as error:
        shapes = ", ".join(describe(argument) for argument in arguments)
        raise CheckFailed(
            what or f"a call with {shapes or 'no arguments'}",
            "a result",
            f"{type(error).__name__}: {error}",
            cause or _guess_cause(error),
        ) from error


def require_equal(
    what: str,
    got: Any,
    expected: Any,
    suspects: Mapping[str, Any] | None = None,
    otherwise: str = UNKNOWN_NUMBER,
) -> None:
    """Require ``got == expected``; ``suspects`` maps each likely cause to its wrong value."""
    require_returned(what, got, expected)
    if type(got) is torch.Tensor and got.numel() == 1:
        got = got.item()
    if got != expected:
        matching = [cause for cause, value in (suspects or {}).items() if got == value]
        raise CheckFailed(what, expected, got, matching[0] if matching else otherwise)


def require_close(
    what: str,
    got: Any,
    expected: torch.Tensor,
    suspects: Mapping[str, torch.Tensor] | None = None,
    otherwise: str = UNKNOWN_CAUSE,
    tolerance: float = 1e-5,
) -> None:
    """Require a tensor of the expected shape whose entries differ by at most ``tolerance``.

    The tolerance is relative to the largest entry of ``expected`` (or to 1 when that is smaller).
    """
    require_returned(what, got, expected)
    if not isinstance(got, torch.Tensor):
        raise CheckFailed(what, expected, got, f"a tensor is wanted, not a {type(got).__name__}")
    if not _close(got, expected, tolerance):
        matching = [
            cause for cause, value in (suspects or {}).items() if _close(got, value, tolerance)
        ]
        if matching:
            cause = matching[0]
        elif got.shape != expected.shape:
            cause = otherwise if otherwise != UNKNOWN_CAUSE else "the shapes differ: follow them"
        else:
            cause = otherwise
        raise CheckFailed(what, *_show_difference(got, expected), cause)


def require(condition: bool, what: str, expected: Any, got: Any, cause: str) -> None:
    """Require anything else, with all four parts of the message given."""
    if not condition:
        raise CheckFailed(what, expected, got, cause)


def require_returned(what: str, got: Any, expected: Any) -> None:
    """Require that the learner's function returned anything, where something is expected."""
    if got is None and expected is not None:
        raise CheckFailed(
            what, expected, None, "the function returns nothing: is `return` missing?"
        )


def describe(value: Any) -> str:
    """One short line for any value: a small tensor's numbers, a large tensor's shape."""
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__} module"
    if isinstance(value, torch.Tensor):
        shape = "x".join(str(size) for size in value.shape) or "scalar"
        if value.numel() <= 4:
            return f"tensor {shape}: {[round(number, 5) for number in value.flatten().tolist()]}"
        return f"tensor {shape}"
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        value = {key: _Inside(item) for key, item in value.items()}
    elif type(value) in (list, tuple):
        value = type(value)(map(_Inside, value))
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


class _Inside:
    """A value in a list or a dictionary: in short there too, and a text in quotation marks."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value) if isinstance(self.value, str) else describe(self.value)


def _close(got: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    if got.shape != expected.shape:
        return False
    if not expected.numel():
        return True
    size = max(1.0, float(expected.detach().abs().max()))
    difference = (got.detach().double() - expected.detach().double()).abs().max()
    return bool(difference <= tolerance * size)


def _show_difference(got: torch.Tensor, expected: torch.Tensor) -> tuple[str, str]:
    """Expected and got as text: shapes when they differ, else the entry that is furthest off."""
    if got.shape != expected.shape:
        return describe(expected), describe(got)
    flat_got, flat_expected = got.detach().flatten(), expected.detach().flatten()
    worst = int((flat_got.double() - flat_expected.double()).abs().nan_to_num(torch.inf).argmax())
    place = f"entry {worst} of {describe(expected)}" if expected.numel() > 4 else "worst entry"
    return (
        f"{float(flat_expected[worst]):.6g} ({place})",
        f"{float(flat_got[worst]):.6g}",
    )


def _guess_cause(error: Exception) -> str:
    message = str(error)
    if "shapes cannot be multiplied" in message or "size mismatch" in message:
        return "two matrices do not fit: write the shape of each as a comment, then transpose one"
    if "must match the size of tensor" in message:
        return "two tensors of different shapes meet: write the shape of each as a comment"
    if "leaf Variable" in message:
        return "a parameter is changed in place while gradients are on: do it in torch.no_grad()"
    if "before Module.__init__() call" in message:
        return "super().__init__() has to run first: nn.Module registers parameters only after it"
    if isinstance(error, TypeError) and "__init__() missing" in message:
        return "an object is made without all that it needs: the message names what is missing"
    if isinstance(error, TypeError) and "argument" in message:
        return "the signature changed: keep the arguments that the stub has"
    if "Boolean value of Tensor" in message or "bitwise_and" in message:
        return (
            "tensors of True and False are joined with &, each comparison in its own brackets, "
            "not with and, nor as a < b < c"
        )
    if isinstance(error, (NameError, UnboundLocalError)):
        return "a name is used before it has a value: run the cells above, check the spelling"
    return "the error comes from your code: the line is shown above"
