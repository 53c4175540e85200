"""Lessons as files: from one source to a solved notebook and to the learner's notebook.

::

    solutions/02_parameter_count.py      the source, written by hand (Jupytext percent format)
    solutions/02_parameter_count.ipynb   that source executed at tiny scale, outputs kept
    notebooks/02_parameter_count.ipynb   derived: solutions become stubs, outputs go

    python -m tools.notebooks build          all lessons
    python -m tools.notebooks build 02 03    these two
    python -m tools.notebooks build 02 --text       its text alone changed: seconds, and nothing runs
    python -m tools.notebooks build 02 --measure    keep its seconds and memory (of Linux) too
    python -m tools.notebooks join           write build/lessons/, both notebooks of a lesson in one
    python -m tools.notebooks check          exit 1 when a file has drifted

CONTRIBUTING.md says how a lesson is written. Lessons run offline (see `serial_lora_course.offline`)
in the folder of their notebook. A build writes the tables of README.md and INSTRUCTORS.md as well.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.checking.exercises import read_exercises
from serial_lora_course.checking.lessons import MEASURED, read_measured
from serial_lora_course.door import enter
from serial_lora_course.files import write_json
from serial_lora_course.offline import offline_environment
from tools import ROOT
from tools.documents import pages, public_address, stale_pages
from tools.numbers import unshown_numbers
from tools.sources import (
    EXERCISE,
    METADATA,
    SOLUTION_ONLY,
    derive,
    find_sources,
    make_stub,
    read_source,
    tags,
    tidy,
    without_guess,
    words_to_read,
    write,
)

JOINED = "build/lessons"
PUBLIC = public_address(ROOT)
CELL_TIMEOUT_SECONDS = 900
TINY = {"SERIAL_LORA_SCALE": "tiny", "SERIAL_LORA_LENGTH": "class"}
# How a learner takes a lesson: technical prose, lines of code and figures, each read once.
WORDS_A_MINUTE, SECONDS_A_LINE, SECONDS_A_FIGURE = 130, 3, 20
PEAK = """\
from pathlib import Path
status = Path("/proc/self/status")  # Linux; getrusage counts what the parent process had, too
print(status.read_text().split("VmHWM:")[1].split()[0] if status.exists() else 0)"""


def join(root: Path) -> None:
    """Write one notebook a lesson that runs what both its notebooks run, in half the time.

    They differ in exercises and in cells that only the solved one has; what an exercise defines,
    other cells ask for with `yours`. So each exercise stands here as it is solved, and, before the
    next cell that both have, as a learner finds it. Nothing is guessed, as by a learner in a hurry.
    """
    folder = root / JOINED
    folder.mkdir(parents=True, exist_ok=True)
    for source in find_sources(root):
        joined = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
        cells, open_exercises = [], []
        for cell in joined.cells:
            if cell.cell_type == "code" and SOLUTION_ONLY not in tags(cell):
                cells += open_exercises
                open_exercises = []
                cell.source = without_guess(cell.source)
            cells.append(cell)
            if EXERCISE in tags(cell):
                stub = make_stub(cell.source)
                open_exercises.append(nbformat.v4.new_code_cell(stub, id=f"{cell.id}-open"))
        joined.cells = cells + open_exercises
        (folder / f"{source.stem}.ipynb").write_text(write(joined), encoding="utf-8")


def execute(
    notebook: NotebookNode, source: Path, timeout: int = CELL_TIMEOUT_SECONDS
) -> tuple[NotebookNode, dict]:
    """Run a notebook offline in a fresh kernel; return it with outputs, and what was measured.

    Args:
        notebook: the notebook without outputs; it is not changed.
        source: the lesson's; it runs in that folder.
        timeout: seconds for a cell.
    """
    run = copy.deepcopy(notebook)
    run.cells.append(nbformat.v4.new_code_cell(PEAK))
    client = NotebookClient(
        run,
        timeout=timeout,
        kernel_name=METADATA["kernelspec"]["name"],
        resources={"metadata": {"path": str(source.parent)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # the kernel's own remarks help nobody here
    )
    started = time.perf_counter()
    try:
        client.execute(env=offline_environment() | {"SERIAL_LORA_STRICT": "1"} | TINY)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()[-2000:], file=sys.stderr)
        raise SerialLoRAError(
            f"{source.stem} did not run: a cell's traceback stands above."
        ) from None
    measured = {"seconds": round(time.perf_counter() - started, 1)}
    measured["peak_mb"] = math.ceil(int(run.cells.pop().outputs[0]["text"]) * 1024 / 1e6)
    for cell in run.cells:
        tidy(cell)
    run.metadata = nbformat.from_dict(METADATA)
    return run, measured | {"cores": os.cpu_count(), "torch": torch.__version__}


def build(
    root: Path, numbers: Iterable[str] = (), text_only: bool = False, measure: bool = False
) -> None:
    """Write both notebooks of the given lessons (of all when none is given).

    Args:
        root: the checkout.
        numbers: of lessons, such as "02".
        text_only: run nothing, and take the outputs of the last build.
        measure: keep seconds and memory of these runs.
    """
    for source in find_sources(root, numbers):
        wanted = read_source(source)
        facts = {"minutes": minutes_alone(wanted)}
        if text_only:
            solved = with_outputs(wanted, source)
        else:
            print(f"{source.stem}: running ...", flush=True)
            solved, measured = execute(wanted, source)
            print(f"{source.stem}: {measured['seconds']} s, {measured['peak_mb']} MB", flush=True)
            facts |= measured if measure else {}
        known, number = read_measured(MEASURED), source.name[:2]
        known[number] = known.get(number, {}) | facts
        write_json(MEASURED, dict(sorted(known.items())))
        (root / "notebooks").mkdir(exist_ok=True)
        for folder, notebook in (("solutions", solved), ("notebooks", derive(solved, PUBLIC))):
            (root / folder / f"{source.stem}.ipynb").write_text(write(notebook), encoding="utf-8")
        if missing := unshown_numbers(solved):  # only now, so that --text can mend the sentences
            raise SerialLoRAError(f"{source.stem}: no output shows {'; '.join(missing)}.")


def with_outputs(notebook: NotebookNode, source: Path) -> NotebookNode:
    """A lesson with the outputs of its last build; the ids of code cells hang on their source."""
    last = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    ran = {cell.id: cell for cell in last.cells if cell.cell_type == "code"}
    if list(ran) != [cell.id for cell in notebook.cells if cell.cell_type == "code"]:
        raise SerialLoRAError(f"{source.stem}: its code changed too, so leave out --text.")
    notebook.cells = [ran.get(cell.id, cell) for cell in notebook.cells]
    return notebook


def minutes_alone(notebook: NotebookNode) -> int:
    """Minutes to read a lesson once, with its code and figures, and do every exercise by its card; in fives."""
    cells = [cell for cell in derive(notebook).cells if cell.cell_type == "code"]
    lines = [line.strip() for cell in cells for line in cell.source.splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    figures = sum(line.startswith(("display_figure(", "display_drawing(")) for line in code)
    seconds = SECONDS_A_LINE * len(code) + SECONDS_A_FIGURE * figures
    reading = words_to_read(notebook) / WORDS_A_MINUTE + seconds / 60
    exercises = sum(exercise.minutes for exercise in read_exercises(notebook))
    return 5 * math.ceil((reading + exercises) / 5)


def find_drift(root: Path) -> list[str]:
    """Every way in which the notebooks are not what their sources say; empty when all is well."""
    problems = []
    known = {source.stem for source in find_sources(root)}
    for folder in ("solutions", "notebooks"):
        there = {path.stem for path in (root / folder).glob("*.ipynb")}
        problems += [f"{folder}/{stem}.ipynb has no source" for stem in sorted(there - known)]
        problems += [f"{folder}/{stem}.ipynb is missing" for stem in sorted(known - there)]
    for source in () if problems else find_sources(root):
        if problem := drift_of(source, root / "notebooks" / f"{source.stem}.ipynb"):
            again = f"python -m tools.notebooks build {source.name[:2]}"
            problems.append(f"{source.stem}: {problem}: run `{again}`")
    return problems


def drift_of(source: Path, student_path: Path) -> str:
    """What is wrong with the two notebooks of one source; empty when nothing is."""
    try:
        wanted = read_source(source)
    except SerialLoRAError as error:
        return str(error)
    solved = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    student = nbformat.read(student_path, as_version=4)
    for want, have in ((wanted, solved), (derive(wanted, PUBLIC), student)):
        if [_meaning(cell) for cell in want.cells] != [_meaning(cell) for cell in have.cells]:
            return "a notebook differs from its source"
    code_cells = [cell for cell in solved.cells if cell.cell_type == "code"]
    if any(cell.execution_count is None for cell in code_cells):
        return "the solved notebook has cells that were not run"
    if missing := unshown_numbers(solved):
        return "no output shows " + "; ".join(missing)
    if student_path.read_text(encoding="utf-8") != write(derive(solved, PUBLIC)):
        return (
            "the learner's notebook has outputs of its own; if these are your own answers, keep a copy, "
            "since building overwrites them"
        )
    return ""


def _meaning(cell: NotebookNode) -> tuple:
    return cell.cell_type, cell.metadata, cell.id, cell.source


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when all is well, 1 for drift.

    Raises:
        SerialLoRAError: a lesson fails.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("action", choices=("build", "join", "check"))
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; all if none")
    parser.add_argument("--text", action="store_true", help="take the outputs of the last build")
    parser.add_argument("--measure", action="store_true", help="keep seconds and memory too")
    options = parser.parse_args(arguments)
    if options.action == "join":
        join(ROOT)
    elif options.action == "build":
        build(ROOT, options.lessons, options.text, options.measure)
        for path, text in pages(ROOT).items():
            write_whole(path, text.encode())
    problems = find_drift(ROOT) + stale_pages(ROOT) if options.action == "check" else []
    print("\n".join(problems) or "Sources and notebooks agree.", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    enter("tools.notebooks", main)
