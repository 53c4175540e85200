"""Putting a learner's answer to the check of its exercise: it is right, wrong (and why), or open."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from IPython.core.getipython import get_ipython

from serial_lora_course.checking.case import is_open
from serial_lora_course.checking.message import (
    CheckFailed,
    Interrupted,
    NoExercise,
    lines_of_the_learner,
)
from serial_lora_course.checking.mistake import Exercise, Mistakes
from serial_lora_course.checking.stub import stands_beside_stub

FOLDERS = Path(__file__).resolve().parents[1] / "lessons"
EXERCISES: dict[str, Callable[..., str]] = {}
TRIED: dict[str, Any] = {}
"""The answers that this notebook gave to a check: the answer where it is right, else None."""
STRICT = ("SERIAL_LORA_STRICT", "NBGRADER_EXECUTION", "PYTEST_VERSION")


def exercise(
    number: str, verified: str, mistakes: Mistakes | None = None, **options: Callable
) -> Callable[[Callable], Exercise]:
    """Make the decorated generator of cases the check of an exercise, such as ``"2.3"``.

    Its mistakes are those that ``mistakes.yaml`` in the lesson's folder has under that number, and
    ``mistakes`` that are no edits of the solved answer.
    """

    def register(cases: Callable) -> Exercise:
        known = edits_beside(inspect.getfile(cases)).get(number, {}) | (mistakes or {})
        EXERCISES[number] = Exercise(number, verified, cases, known, **options)
        return EXERCISES[number]

    return register


@cache
def edits_beside(checks: str) -> dict[str, Mistakes]:
    """The mistakes of a lesson by exercise, beside its checks; none where there is no file."""
    path = Path(checks).with_name("mistakes.yaml")
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def find_check(number: str) -> Callable[..., str]:
    """Return the check of one exercise.

    Raises:
        NoExercise: no exercise has that number; it names those of the lesson.
    """
    if not isinstance(number, str):
        raise NoExercise(f'Write the number of an exercise as text: "2.1" in place of {number!r}.')
    lesson = number.partition(".")[0]
    for checks in FOLDERS.glob(f"l{lesson.zfill(2)}_*/checks.py"):
        importlib.import_module(f"serial_lora_course.lessons.{checks.parent.name}.checks")
    if number not in EXERCISES:
        known = sorted(key for key in EXERCISES if key.partition(".")[0] == lesson)
        names = ", ".join(known) or "no checks"
        raise NoExercise(f"There is no exercise {number!r}: lesson {lesson} has {names}.")
    return EXERCISES[number]


def check(number: str, attempt: Any) -> None:
    """Check the learner's ``attempt`` at one exercise and print how it stands.

    Right: what was verified. Still the course's own stub: a friendly line, and the notebook runs on
    with the solved lesson's answer. Wrong: expected, got and the likely cause, in red, and the
    notebook runs on too, unless one of the variables ``STRICT`` is set. Under nbgrader, which takes
    errors alone for a failure, an open exercise is one.

    Args:
        number: the number printed on the exercise's card, such as ``"2.3"``.
        attempt: the learner's function or class.

    Raises:
        CheckFailed: the attempt is wrong, in a test, under nbgrader or outside a notebook.
        NotImplementedError: the exercise is still open, under nbgrader.
        NoExercise: no such exercise.
        Interrupted: the learner stopped it.
    """
    find_check(number)
    TRIED[number] = None
    if not torch.is_grad_enabled():
        print("Gradients are turned off in this notebook: torch.set_grad_enabled(True).")
    try:
        verified = run_check(number, attempt)
    except KeyboardInterrupt as stop:
        place = next(reversed(lines_of_the_learner(stop)), "a line of its own")
        told = f"The check of exercise {number} was stopped at {place}  (a loop without an end?)"
        raise Interrupted(told) from None
    except CheckFailed as failure:
        if get_ipython() is None or any(os.environ.get(name) for name in STRICT):
            raise
        print("\x1b[31m" + "\n".join(failure._render_traceback_()) + "\x1b[0m")
        return
    if verified is not None:
        TRIED[number] = attempt
        print(f"{right(number)}{verified}.")
        return
    del TRIED[number]
    if os.environ.get("NBGRADER_EXECUTION"):
        raise NotImplementedError(f"Exercise {number} is still open.")
    print(
        f"Exercise {number} is waiting for you. The notebook runs on without it: "
        "the cells below use the solved lesson's answer."
    )


def right(number: str) -> str:
    """How the sentence about a right answer begins."""
    return f"Exercise {number} is right. Verified: "


def right_sentence(number: str) -> str:
    """That sentence, which is the same of every right answer."""
    return right(number) + find_check(number).verified


def run_check(number: str, attempt: Any) -> str | None:
    """Check an attempt without printing: what was verified, or None when it is still open.

    Raises:
        CheckFailed: the attempt is wrong.
        NoExercise: no such exercise.
    """
    function = find_check(number)
    try:
        # A check leaves the lesson's random numbers alone, and needs gradients.
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            return function(attempt)
    except NotImplementedError as error:
        if not is_open(error):
            raise
        if not stands_beside_stub(attempt):
            return None
        failure = CheckFailed(
            "the stub's line",
            "your code in its place",
            "your code beside it",
            "the line `raise NotImplementedError(...)` is still there, and ends the function: delete it",
        )
        failure.number = number
        raise failure from None
    except CheckFailed as failure:
        failure.number = number
        raise
