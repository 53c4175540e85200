"""Putting a learner's answer to the check of its exercise, and using it from then on.

``check`` says of an answer that it is right, wrong (and why) or open; ``yours`` gives it to the cells
that follow where it is right, and what the package has for it otherwise.
"""

from __future__ import annotations

import copy
import importlib
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import torch
from IPython.core.getipython import get_ipython

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks.cases import run_cases
from serial_lora_course.checks.failing import CheckFailed

_REGISTRY: dict[str, Callable[..., str]] = {}
_RIGHT: dict[str, Any] = {}
"""The learner's answers that passed, by the number of their exercise."""
STRICT = ("SERIAL_LORA_STRICT", "NBGRADER_EXECUTION", "PYTEST_VERSION")


def exercise(number: str, verified: str = "") -> Callable[[Callable], Callable]:
    """Register the decorated function as the check of an exercise, such as ``"2.3"``.

    With ``verified``, the sentence for a right answer, the function gives the cases of a table.
    Without, it takes the learner's objects and returns that sentence.
    """

    def register(function: Callable) -> Callable:
        _REGISTRY[number] = partial(run_cases, function, verified) if verified else function
        return function

    return register


def find_check(number: str) -> Callable[..., str]:
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
    notebook runs on with the package's own version. Wrong: expected, got and the likely cause, in
    red, and the notebook runs on too, unless one of the variables ``STRICT`` is set. Under nbgrader,
    which takes errors alone for a failure, an open exercise is one.

    Args:
        number: the number printed on the exercise's card, such as ``"2.3"``.
        attempt: the learner's function or class (two, where the exercise asks for two).

    Raises:
        CheckFailed: the attempt is wrong, in a test, under nbgrader or outside a notebook.
        NotImplementedError: the exercise is still open, under nbgrader.
        SerialLoRAError: no such exercise.
    """
    _RIGHT.pop(number, None)
    try:
        verified = run_check(number, *attempt)
    except CheckFailed as failure:
        if get_ipython() is None or any(os.environ.get(name) for name in STRICT):
            raise
        print("\x1b[31m" + "\n".join(failure._render_traceback_()) + "\x1b[0m")
        return
    if verified is None and os.environ.get("NBGRADER_EXECUTION"):
        raise NotImplementedError(f"Exercise {number} is still open.")
    if verified is None:
        print(
            f"Exercise {number} is waiting for you. The notebook runs on without it: "
            "the cells below use the package's own version."
        )
    else:
        _RIGHT[number] = attempt[0]
        print(f"Exercise {number} is right. Verified: {verified}.")


def run_check(number: str, *attempt: Any) -> str | None:
    """Check an attempt without printing: what was verified, or None when it is still open.

    Raises:
        CheckFailed: the attempt is wrong.
        SerialLoRAError: no such exercise.
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


def yours(number: str, otherwise: Any) -> Any:
    """The learner's answer to an exercise where it is right, the package's otherwise; prints which.

    An answer of another lesson is read from the learner's notebook of that lesson, the newest first,
    where it lies beside the one that runs.

    Args:
        number: of an exercise that asks for one function or class, such as ``"3.1"``.
        otherwise: what the package has for it, with the same signature.
    """
    if number not in _RIGHT:
        lesson = f"{int(number.partition('.')[0]):02d}_*.ipynb"
        for path in sorted(Path().glob(lesson), key=os.path.getmtime, reverse=True):
            if (answer := _answer_in(path, number)) is not None:
                _RIGHT[number] = answer
                break
    chosen = _RIGHT.get(number, otherwise)
    if chosen is otherwise:
        print(f"Used here: the package's own version, as exercise {number} is not solved yet.")
    else:
        print(f"Used here: your {chosen.__name__} of exercise {number}.")
    return chosen


def _answer_in(notebook: Path, number: str) -> Any:
    """The answer to an exercise in a notebook, where it passes its check; else None."""
    found: list[Any] = []
    names = {"check": lambda _, answer: found.append(answer), "torch": torch, "nn": torch.nn}
    names |= {"F": torch.nn.functional, "Tensor": torch.Tensor, "math": math, "copy": copy}
    names["__name__"] = notebook.stem
    try:
        cells = nbformat.read(notebook, as_version=4).cells
        code = next(c.source for c in cells if f'check("{number}", ' in c.source)
        exec(compile(code, notebook.name, "exec"), names)  # the learner's own, as the kernel ran it
        return found[0] if run_check(number, found[0]) is not None else None
    except Exception:  # whatever an unfinished answer does, the lesson goes on with the package's
        return None
