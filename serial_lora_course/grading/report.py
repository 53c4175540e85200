"""``serial-lora grade``: learners' notebooks to a table and a CSV file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import nbformat
import pandas as pd
from nbformat import NotebookNode

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.checking.exercises import read_exercises
from serial_lora_course.checking.lessons import lesson_of
from serial_lora_course.files import printable, refusals_told
from serial_lora_course.grading import cells, sandbox
from serial_lora_course.grading.text import no_formula, one_line

REFUSED = {"lesson": "", "exercise": "", "result": "refused", "points": 0, "of": 0}


def run(paths: Sequence[Path], seconds: int, out: Path, unconfined: bool) -> int:
    """Grade, print and save; 0 when every notebook ran, 2 when one could not be read as a lesson.

    A notebook that cannot be graded gets a sentence and a row; the others are graded all the same.

    Raises:
        SerialLoRAError: the results cannot be saved, or there is no sandbox.
    """
    if not unconfined:
        sandbox.require_bubblewrap()
    for name in ("SIGTERM", "SIGHUP"):  # as Ctrl-C; Windows has no SIGHUP, nohup ignores it
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    rows, refused = [], 0
    for path in paths:
        name = printable(str(path))
        try:
            found = grade(path, sandbox.Limits(seconds, 5 * seconds), unconfined)
        except SerialLoRAError as error:
            told = str(error) if str(path) in str(error) else f"{path}: {error}"
            print(f"serial-lora: {printable(told)}", file=sys.stderr)
            refused += 1
            found = [REFUSED | {"why": one_line(str(error))}]
        rows += [{"notebook": name, **row} for row in found]
        save(pd.DataFrame(rows), out)  # after each: an interruption loses one at most
        if found[0]["exercise"]:
            passed = sum(row["result"] == "passed" for row in found)
            print(f"{name}: {passed} of {len(found)} passed", flush=True)
    if rows:
        show(pd.DataFrame(rows))
        print(f"Saved: {printable(str(out))}")
    return 2 if refused else 0


def grade(path: Path, limits: sandbox.Limits, unconfined: bool) -> list[dict]:
    """Run one notebook; a row for each exercise of its lesson.

    Raises:
        SerialLoRAError: the notebook cannot be read, or is no lesson.
    """
    notebook, lesson = read(path)
    solved = cells.read_solved(lesson)
    verdicts = cells.run(cells.as_submission(notebook, solved), limits, unconfined)
    rows = []
    for exercise in read_exercises(solved):
        result, why = verdicts[exercise.number]
        row = {"lesson": lesson[:2], "exercise": exercise.number, "result": result}
        row |= {"points": exercise.importance * (result == "passed"), "of": exercise.importance}
        rows.append(row | {"why": one_line(why)})
    return rows


def read(path: Path) -> tuple[NotebookNode, str]:
    """A learner's notebook, and the lesson that it says it is."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise SerialLoRAError(f"{path} is no file; name a notebook.")
    with refusals_told():
        content = path.read_bytes()
    if not content.strip():
        raise SerialLoRAError("this file is empty.")
    try:
        notebook = nbformat.reads(content.decode(), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat has no error of its own for text that is no notebook
        raise SerialLoRAError("this is not a Jupyter notebook.") from error
    if lesson := lesson_of(notebook):
        return notebook, lesson.stem
    raise SerialLoRAError(
        'this is not a lesson of the course: it has no heading such as "# 02 · The count, proved".'
    )


def newest_of(folder: Path, lesson: str) -> Path | None:
    """A learner's notebook of a lesson, by its heading: the newest with an answer, or newest."""
    found, solved = [], cells.read_solved(lesson)
    for path in sorted(folder.glob("*.ipynb")):
        with suppress(SerialLoRAError):
            notebook, own = read(path)
            if own == lesson:
                found.append((cells.is_answered(notebook, solved), path.stat().st_mtime, path))
    return max(found)[-1] if found else None


def save(rows: pd.DataFrame, out: Path) -> None:
    """Write one line for each notebook and exercise; the file is there whole or not at all."""
    marked = rows.map(lambda value: no_formula(value) if isinstance(value, str) else value)
    with refusals_told():
        write_whole(out, marked.to_csv(index=False, lineterminator="\n").encode())


def show(rows: pd.DataFrame) -> None:
    """Print a table for each lesson, a column for each exercise, and why what failed did so."""
    for lesson, of_lesson in rows[rows["exercise"] != ""].groupby("lesson"):
        by_name = {"index": "notebook", "columns": "exercise", "aggfunc": "last"}
        table = of_lesson.pivot_table(values="result", **by_name)
        passed = (table == "passed").sum().astype(str)
        points = of_lesson.groupby("notebook")[["points", "of"]].sum()
        table["points"] = points["points"].astype(str) + " of " + points["of"].astype(str)
        table.loc[f"passed, of {len(table)}"] = passed
        print(f"\n{lesson}\n{table.fillna('').to_string()}\n")
    for row in rows[~rows["result"].isin(("passed", "open", "refused"))].to_dict("records"):
        print("{notebook}, {exercise} {result}: {why}".format(**row))
