"""``serial-lora grade``: learners' notebooks through nbgrader, to a table and a CSV file.

A check's result is *passed*, *wrong* (with the likely cause), *open*, *not found* (nothing defines
what the exercise asks for), *not reached* (the notebook ended before, or took too much), or *look at this*
(the check's sentence is not the one that the solved lesson gives).
"""

from __future__ import annotations

import logging
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.checking.exercises import read_exercises
from serial_lora_course.checking.lessons import LESSONS
from serial_lora_course.files import printable, refusals_told
from serial_lora_course.grading import course, sandbox
from serial_lora_course.grading.text import no_formula, one_line

ERRORS = {
    "NotImplementedError": "open",
    "NameError": "not found",
    "NotReached": "not reached",
    "LookAtThis": "look at this",
}
LESSON = re.compile(r'^(?:lesson_card\(["\'](\d\d)["\']\)|# (\d\d) · )', re.MULTILINE)


def run(paths: Sequence[Path], seconds: int, out: Path, unconfined: bool) -> int:
    """Grade, print and save; 0 when every notebook ran, 2 when one could not be read as a lesson.

    Notebooks that cannot be graded get a sentence each, and the others are graded all the same.

    Raises:
        SerialLoRAError: the results cannot be saved, or there is no sandbox.
    """
    if not unconfined:
        sandbox.require_bubblewrap()
    logging.getLogger("traitlets").setLevel(logging.CRITICAL + 1)  # nbgrader tells every step
    warnings.filterwarnings("ignore", module="nbgrader")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as Ctrl-C: clean up
    settings = {"seconds": seconds, "unconfined": unconfined}
    rows, refused = [], 0
    with tempfile.TemporaryDirectory(prefix="serial-lora-grade-") as folder:
        for student, path in enumerate(paths):
            name = printable(str(path))
            try:
                found = grade(path, Path(folder), f"{student}", settings)
            except SerialLoRAError as error:
                told = str(error) if str(path) in str(error) else f"{path}: {error}"
                print(f"serial-lora: {printable(told)}", file=sys.stderr)
                refused += 1
                continue
            rows += [{"notebook": name, **row} for row in found]
            save(pd.DataFrame(rows), out)  # after each: an interruption loses one at most
            passed = sum(row["result"] == "passed" for row in found)
            print(f"{name}: {passed} of {len(found)} passed", flush=True)
    if rows:
        show(pd.DataFrame(rows))
        print(f"Saved: {printable(str(out))}")
    return 2 if refused else 0


def grade(path: Path, folder: Path, student: str, settings: dict) -> list[dict]:
    """Take one notebook through nbgrader, in a course folder; what it says of each exercise.

    Raises:
        SerialLoRAError: the notebook cannot be read, is no lesson, or nbgrader cannot take it.
    """
    notebook, lesson = read(path)
    solved = course.read_solved(lesson)
    if not (folder / "source" / lesson).exists():
        course.make_course(folder, {lesson: solved})
    submitted, graded = (
        folder / step / student / lesson / f"{lesson}.ipynb" for step in ("submitted", "autograded")
    )
    submitted.parent.mkdir(parents=True)
    nbformat.write(notebook, submitted)
    course.autograde(folder, lesson, student, settings)
    checks = {course.grade_id(cell): cell for cell in nbformat.read(graded, 4).cells}
    rows = []
    for exercise in read_exercises(solved):
        result, why, seen = verdict(checks[course.check_id(exercise.number)])
        row = {"lesson": lesson[:2], "exercise": exercise.number, "title": exercise.title}
        row |= {"result": result, "points": exercise.importance * (result == "passed")}
        rows.append(row | {"of": exercise.importance, "why": one_line(why), "seen": one_line(seen)})
    return rows


def read(path: Path) -> tuple[NotebookNode, str]:
    """A learner's notebook, and the lesson that it says it is.

    Raises:
        SerialLoRAError: no such file, not a notebook, not a lesson of the course.
    """
    with refusals_told():
        if path.exists() and not path.is_file():
            raise SerialLoRAError(
                f"{path} is no file; name a notebook."
            )  # a pipe would be waited for
        try:
            content = path.read_bytes()
        except OSError as error:  # some files of the system are not named in their own errors
            error.filename = error.filename or str(path)
            raise
    try:
        notebook = nbformat.reads(content.decode(), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat has no error of its own for text that is no notebook
        raise SerialLoRAError("this is not a Jupyter notebook.") from error
    found = [LESSON.search(cell.source) for cell in notebook.cells]
    numbers = [match[1] or match[2] for match in found if match]
    for lesson in LESSONS:
        if lesson.number in numbers[:1]:
            return notebook, lesson.stem
    raise SerialLoRAError(
        "this is not a lesson of the course: it has neither a lesson_card() call nor a heading "
        'such as "# 02 · ...".'
    )


def verdict(cell: NotebookNode) -> tuple[str, str, str]:
    """What a check cell that was run says: the result, why, and what the check compared."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors:
        text = "".join(output.text for output in cell.outputs)
        return "passed", text.partition("Verified: ")[2], ""
    name, value = errors[0].ename, errors[0].evalue
    if name == "CheckFailed":
        seen, _, cause = value.partition("likely cause:")
        return "wrong", cause, seen.partition("\n")[2]
    return ERRORS.get(name, "wrong"), value if name in ERRORS else f"{name}: {value}", ""


def save(rows: pd.DataFrame, out: Path) -> None:
    """Write one line for each notebook and exercise; the file is there whole or not at all.

    Raises:
        SerialLoRAError: it cannot be written.
    """
    marked = rows.map(lambda value: no_formula(value) if isinstance(value, str) else value)
    try:
        write_whole(out, marked.to_csv(index=False, lineterminator="\n").encode())
    except (OSError, ValueError) as error:
        raise SerialLoRAError(f"--out {printable(str(out))} cannot be written.") from error


def show(rows: pd.DataFrame) -> None:
    """Print a table for each lesson, a column for each exercise, and why what failed did so."""
    for lesson, of_lesson in rows.groupby("lesson"):
        by_name = {"index": "notebook", "columns": "exercise", "aggfunc": "last"}
        table = of_lesson.pivot_table(values="result", **by_name)
        passed = (table == "passed").sum().astype(str)
        points = of_lesson.groupby("notebook")[["points", "of"]].sum()
        table["points"] = points["points"].astype(str) + " of " + points["of"].astype(str)
        table.loc[f"passed, of {len(table)}"] = passed
        print(f"\n{lesson}\n{table.fillna('').to_string()}\n")
    for row in rows[~rows["result"].isin(("passed", "open"))].to_dict("records"):
        print("{notebook}, {exercise} {result}: {why}".format(**row))
