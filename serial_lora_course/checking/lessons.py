"""The table of lessons: what each is for, and what it takes.

Titles, what is built, and what one can do afterwards are written in ``assets/lessons.yaml``; minutes
and memory are counted and measured by ``python -m tools.notebooks build``, and kept in ``assets/lessons_measured.json``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from IPython.display import Markdown, display

from serial_lora.errors import SerialLoRAError

if TYPE_CHECKING:
    from nbformat import NotebookNode

ASSETS = Path(__file__).resolve().parents[1] / "assets"
MEASURED = ASSETS / "lessons_measured.json"


@dataclass(frozen=True)
class Lesson:
    """One lesson.

    Attributes:
        stem: the file name without its ending, such as ``02_parameter_count``.
        title: its heading.
        builds: what one builds in it.
        before: what to have done before.
        can: what one can do afterwards: "after this lesson you can ...".
    """

    stem: str
    title: str
    builds: str
    before: str
    can: list[str]

    @property
    def number(self) -> str:
        """Its two digits."""
        return self.stem[:2]

    @property
    def minutes(self) -> int | str:
        """For reading and exercises; a question mark for a lesson that was never built."""
        return read_measured().get(self.number, {}).get("minutes", "?")

    @property
    def seconds(self) -> int | str:
        """To run all its cells on two cores, in tens, rounded up; a question mark if never measured."""
        measured = read_measured().get(self.number, {})
        return 10 * math.ceil(measured["seconds"] / 10) if "seconds" in measured else "?"


LESSONS = [Lesson(**e) for e in yaml.safe_load((ASSETS / "lessons.yaml").read_text("utf-8"))]


def find_lesson(number: str) -> Lesson:
    """Return the lesson with this number; ``"2"`` and ``"02"`` are the same lesson."""
    for lesson in LESSONS:
        if lesson.number == number.zfill(2):
            return lesson
    known = ", ".join(lesson.number for lesson in LESSONS)
    raise SerialLoRAError(f"There is no lesson {number!r}; the lessons are {known}.")


HEADING = re.compile(r"^# (\d\d) · ", re.MULTILINE)


def lesson_of(notebook: NotebookNode) -> Lesson | None:
    """The lesson that a notebook's heading names, whatever its file is called."""
    found = HEADING.search("\n".join(cell.source for cell in notebook.cells))
    return next((lesson for lesson in LESSONS if found and lesson.number == found[1]), None)


def read_measured(path: Path = MEASURED) -> dict[str, dict]:
    """What is known of lessons, by number: ``minutes`` (reading and exercises), and what a run took.

    A run's are ``seconds``, ``peak_mb`` (10^6 bytes, of the kernel), ``cores``, ``torch``.
    """
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def lesson_card(number: str) -> None:
    """Show what comes before a lesson, its minutes, which run its text describes, and what it is good for."""
    lesson = find_lesson(number)
    before = (
        f"*Before this lesson: {lesson.before}. It takes about {lesson.minutes} minutes, computed from its "
        f"words and exercises; all its cells together run in about {lesson.seconds} seconds on two cores, without "
        "a GPU. The text describes the saved run: change a cell, and your numbers will differ.*"
    )
    after = "\n".join(["After this lesson you can", "", *(f"- {each}" for each in lesson.can)])
    display(Markdown(f"{before}\n\n{after}"))
