"""The answer to an exercise for the cells that build on it: the learner's, or the solved lesson's."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from serial_lora_course.checking.lessons import find_lesson
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import TRIED, find_check, run_check
from serial_lora_course.checking.solved import defined, solved

INSTEAD = "The solved lesson's answer is used instead."


def yours(number: str) -> Any:
    """The learner's answer to an exercise where it is right, else the solved lesson's.

    An answer that no check of this kernel has seen is read from the learner's notebooks of that
    lesson, known by their headings, that lie beside the one that runs: the newest right one. One
    line says where the solved lesson's answer is used.

    Args:
        number: of an exercise, such as ``"3.1"``.

    Raises:
        NoExercise: no such exercise.
    """
    find_check(number)
    troubles = [f"Your answer to exercise {number} did not pass its check."] * (number in TRIED)
    if TRIED.get(number) is not None:
        return TRIED[number]
    for notebook in notebooks_of(number) if number not in TRIED else ():
        answer, trouble = answer_in(notebook, number)
        if answer is not None:
            return answer
        troubles += [trouble] * bool(trouble)
    print(next(iter(troubles), "") or f"Exercise {number} is not solved yet.", INSTEAD)
    return solved(number)


def notebooks_of(number: str) -> list[Path]:
    """The notebooks of an exercise's lesson in this folder, by heading or name, newest first."""
    lesson = find_lesson(number.partition(".")[0])
    heading = re.compile(rf"# {lesson.number} (·|\\u00b7) ".encode())  # as it stands in a file
    found = []
    for path in Path().glob("*.ipynb"):
        with suppress(OSError):  # a folder, or a file that may not be read
            content = path.read_bytes()
            found += [path] * bool(path.stem == lesson.stem or heading.search(content))
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def answer_in(notebook: Path, number: str) -> tuple[Any, str]:
    """The right answer to an exercise in a notebook, or None and what is the matter with it."""
    where = f"Your answer to exercise {number} in {notebook}"
    import nbformat  # takes a second, which a kernel need not wait

    try:
        cells = nbformat.read(notebook, as_version=4).cells
        codes = [cell.source for cell in cells if cell.cell_type == "code"]
        answer = defined(codes, number, notebook.name)
        return (answer, "") if run_check(number, answer) is not None else (None, "")
    except CheckFailed as failure:
        error: BaseException | None = failure.__cause__
        trouble = f"{where} did not pass its check."
    except Exception as other:  # no notebook, no such cell, no Python: the lesson goes on
        error, trouble = other, f"{where} cannot be read ({type(other).__name__})."
    name = error.name if isinstance(error, NameError) else None
    if name and any(re.search(rf"\b{name}\b", code) and number not in code for code in codes):
        trouble = (
            f"{where} uses `{name}` of another cell of that notebook: "
            "define or import it in the exercise's own cell."
        )
    return None, trouble
