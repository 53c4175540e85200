"""What ``serial-lora grade`` prints and saves."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.checks.lessons import find_lesson
from serial_lora_course.grading.grade import (
    NOT_FOUND,
    NOT_REACHED,
    Graded,
    Submission,
    grade,
    read_submission,
)
from serial_lora_course.grading.judging import OPEN, PASSED, WRONG

COLUMNS = ("notebook", "lesson", "exercise", "title", "result", "why", "seen", "protection")
COLOURS = {PASSED: "green", WRONG: "red", OPEN: "yellow", NOT_FOUND: "magenta", NOT_REACHED: "red"}


def run(paths: Sequence[Path], timeout: int, jobs: int, out: Path) -> int:
    """Grade, print and save; 0 when every notebook ran, 2 when one could not be read as a lesson.

    Notebooks that cannot be graded get a sentence each, and the others are graded all the same.

    Raises:
        SerialLoRAError: the results could not be saved, or a kernel did not start.
    """
    _require_place(out)
    console = Console()
    submissions, refused = [], []
    for path in paths:
        try:
            submissions.append(read_submission(path))
        except SerialLoRAError as error:
            refused.append(str(error))
    for sentence in refused:
        print(f"serial-lora: {sentence}", file=sys.stderr)
    if not submissions:
        return 2
    graded = grade(submissions, timeout, jobs, lambda done: console.print(_line(done)))
    save(graded, out)
    protection = next(one.protection for one in graded if one.protection)
    console.print(f"Kept from writing elsewhere by {protection}.", highlight=False)
    for table in tables(graded):
        console.print(table)
    for line in remarks(graded):
        console.print(line, soft_wrap=True)
    console.print(f"Saved: {out}", highlight=False)
    return 2 if refused else 0


def _require_place(out: Path) -> None:
    if out.is_dir():
        raise SerialLoRAError(f"{out} is a folder: give --out the name of a file.")
    folder = out.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SerialLoRAError(f"{out} cannot be written: choose another file with --out.")


def _line(graded: Graded) -> Text:
    name, total = str(graded.submission.path), len(graded.verdicts)
    return Text(f"{name}: {graded.passed} of {total} passed, {graded.seconds:.0f} s")


def by_lesson(graded: Sequence[Graded]) -> dict[str, list[Graded]]:
    """The results of each lesson, lessons in order."""
    numbers = sorted({one.submission.lesson.number for one in graded})
    return {n: [one for one in graded if one.submission.lesson.number == n] for n in numbers}


def tables(graded: Sequence[Graded]) -> list[Table]:
    """A table for each lesson: a row for each notebook, a column for each exercise."""
    found = []
    for number, rows in by_lesson(graded).items():
        table = Table(title=f"{number} · {find_lesson(number).title}")
        table.add_column("notebook", overflow="fold")
        for exercise in rows[0].submission.exercises:
            table.add_column(exercise.number)
        table.add_column("passed", justify="right")
        for one in rows:
            results = [Text(v.result, style=COLOURS[v.result]) for v in one.verdicts]
            table.add_row(Text(str(one.submission.path)), *results, f"{one.passed}")
        if len(rows) > 1:
            table.add_section()
            passed = [sum(v.result == PASSED for v in column) for column in _columns(rows)]
            table.add_row(f"passed, of {len(rows)}", *map(str, passed), "")
        found.append(table)
    return found


def _columns(rows: list[Graded]) -> list[tuple]:
    return list(zip(*(one.verdicts for one in rows), strict=True))


def remarks(graded: Sequence[Graded]) -> list[Text]:
    """A line for each exercise that is neither right nor open, and for the first other error."""
    lines = []
    for one in graded:
        lines += [
            f"{one.submission.path}, {v.exercise.number} {v.result}: {v.why}"
            for v in one.verdicts
            if v.result not in (PASSED, OPEN)
        ]
        lines += [f"{one.submission.path}: {trouble}" for trouble in one.troubles[:1]]
    return [Text(line) for line in lines]


def save(graded: Sequence[Graded], out: Path) -> None:
    """Write one line for each notebook and exercise; the file is there whole or not at all.

    Raises:
        SerialLoRAError: it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in graded:
        submission: Submission = one.submission
        for verdict in one.verdicts:
            row = (
                str(submission.path),
                submission.lesson.number,
                verdict.exercise.number,
                verdict.exercise.title,
                verdict.result,
                verdict.why,
                verdict.seen,
                one.protection,
            )
            writer.writerow(map(_no_formula, row))
    try:
        write_whole(out, text.getvalue().encode())
    except OSError as error:
        raise SerialLoRAError(f"{out} cannot be written ({error.strerror}).") from error


def _no_formula(text: str) -> str:
    """A learner's text that a spreadsheet would take for a formula is marked as text."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
