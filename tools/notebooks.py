"""Lessons as files: from one source to a solved notebook and to the learner's notebook.

::

    solutions/02_parameter_count.py      the source, written by hand (Jupytext percent format)
    solutions/02_parameter_count.ipynb   that source executed at tiny scale, outputs kept
    notebooks/02_parameter_count.ipynb   derived: solutions become stubs, outputs go

    python -m tools.notebooks build          all lessons
    python -m tools.notebooks build 02 03    these two
    python -m tools.notebooks --check        exit 1 when a file has drifted
    python -m tools.notebooks join           write build/lessons/, both notebooks of a lesson in one
    python -m tools.notebooks avx2           run them as on a processor that has nothing newer than
                                             AVX2, and keep the seconds for the table

CONTRIBUTING.md says how a lesson is written. Lessons run offline (see `serial_lora_course.offline`)
in the folder of their notebook; time and peak memory are kept for the table of lessons.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from benchmarks.measure import AVX2
from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks.lessons import MEASURED, card_text, list_text, read_measured
from serial_lora_course.door import enter
from serial_lora_course.files import write_json
from serial_lora_course.offline import offline_environment
from tools import ROOT
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
    write,
)

JOINED = "build/lessons"
CELL_TIMEOUT_SECONDS = 400
TINY = {"SERIAL_LORA_SCALE": "tiny", "SERIAL_LORA_LENGTH": "class"}
CARD_CALL = re.compile(r'^lesson_(?:card\("(\d\d)"\)|list\(\))\Z', re.MULTILINE)
PEAK = "from serial_lora_course.peak_memory import peak_bytes; print(peak_bytes())"


def join(root: Path) -> None:
    """Write one notebook a lesson that runs what both its notebooks run, in half the time.

    They differ in exercises and in cells that only the solved one has; what an exercise
    defines, other cells ask for with `yours`, which has the package's version too. So each exercise stands here as it is solved, and, before the next cell that
    both have, as a learner finds it.
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
            cells.append(cell)
            if EXERCISE in tags(cell):
                stub = make_stub(cell.source)
                open_exercises.append(nbformat.v4.new_code_cell(stub, id=f"{cell.id}-open"))
        joined.cells = cells + open_exercises
        (folder / f"{source.stem}.ipynb").write_text(write(joined), encoding="utf-8")


def execute(
    notebook: NotebookNode,
    folder: Path,
    settings: Mapping[str, str] = {},
    timeout: int = CELL_TIMEOUT_SECONDS,
) -> tuple[NotebookNode, dict]:
    """Run a notebook offline in a fresh kernel; return it with outputs, and what was measured.

    Args:
        notebook: the notebook without outputs; it is not changed.
        folder: the working directory of the run.
        settings: environment variables of the kernel besides; the scale is tiny if they do not say.
        timeout: seconds for a cell.

    Raises:
        SerialLoRAError: a cell failed or took too long; the message shows the end of the traceback.
    """
    run = copy.deepcopy(notebook)
    run.cells.append(nbformat.v4.new_code_cell(PEAK))
    client = NotebookClient(
        run,
        timeout=timeout,
        kernel_name=METADATA["kernelspec"]["name"],
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # the kernel's own remarks help nobody here
    )
    started = time.perf_counter()
    try:
        client.execute(env=offline_environment() | {"SERIAL_LORA_STRICT": "1", **TINY, **settings})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        raise SerialLoRAError("\n".join(text.splitlines()[-25:])) from None
    seconds = time.perf_counter() - started
    peak = int(run.cells.pop().outputs[0]["text"])
    for cell in run.cells:
        tidy(cell)
    run.metadata = nbformat.from_dict(METADATA)
    return run, {"seconds": round(seconds, 1), "peak_mb": peak // 2**20}


def build(root: Path, numbers: Iterable[str] = ()) -> None:
    """Execute the given lessons (all when none is given) and write both notebooks of each."""
    facts = {"cores": os.cpu_count(), "instructions": torch.backends.cpu.get_cpu_capability()}
    facts |= {"device": "cpu", "torch": torch.__version__}
    facts["date"] = datetime.date.today().isoformat()
    for source in find_sources(root, numbers):
        solved, measured = _run(source, root)
        (root / "notebooks").mkdir(exist_ok=True)
        for folder, notebook in (("solutions", solved), ("notebooks", derive(solved))):
            (root / folder / f"{source.stem}.ipynb").write_text(write(notebook), encoding="utf-8")
        _keep(source, measured | facts)
    show_measured(root)


def measure_avx2(root: Path, numbers: Iterable[str] = ()) -> None:
    """Run the given lessons (all when none is given) with AVX2 alone, and keep their seconds."""
    for source in find_sources(root, numbers):
        _, measured = _run(source, root, AVX2)
        _keep(source, {"avx2_seconds": measured["seconds"]})
    show_measured(root)


def _run(
    source: Path, root: Path, settings: Mapping[str, str] = {}
) -> tuple[NotebookNode, dict[str, float]]:
    print(f"{source.stem}: running ...", flush=True)
    try:
        solved, measured = execute(read_source(source), root / "solutions", settings)
    except SerialLoRAError as error:
        raise SerialLoRAError(f"{source.stem} did not run:\n{error}") from None
    print(f"{source.stem}: {measured['seconds']} s, {measured['peak_mb']} MB", flush=True)
    return solved, measured


def _keep(source: Path, measured: dict) -> None:
    """Add what was measured to what is known of a lesson."""
    known, number = read_measured(), source.name[:2]
    known[number] = known.get(number, {}) | measured
    write_json(MEASURED, dict(sorted(known.items())))


def show_measured(root: Path) -> None:
    """Put what is known by now into the cards, which were shown while their lesson still ran."""
    for path in sorted((root / "solutions").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell, text in measured_outputs(notebook):
            cell.outputs[-1].data["text/markdown"] = text
        path.write_text(write(notebook), encoding="utf-8")


def measured_outputs(notebook: NotebookNode) -> list[tuple[NotebookNode, str]]:
    """The cells of a solved notebook that show what was measured, each with what it should show."""
    found = []
    for cell in notebook.cells:
        if card := CARD_CALL.search(cell.source) if cell.cell_type == "code" else None:
            found.append((cell, list_text() if card[1] is None else card_text(card[1])))
    return found


def find_drift(root: Path) -> list[str]:
    """Every way in which the notebooks are not what their sources say; empty when all is well."""
    sources = find_sources(root)
    stems = {source.stem for source in sources}
    problems = [
        f"{folder}/{path.name} has no source solutions/{path.stem}.py"
        for folder in ("solutions", "notebooks")
        for path in sorted((root / folder).glob("*.ipynb"))
        if path.stem not in stems
    ]
    for source in sources:
        try:
            problem = drift_of(source, root / "notebooks" / f"{source.stem}.ipynb")
        except SerialLoRAError as error:
            problem = str(error)
        if problem:
            problems.append(f"{problem}: run `make notebooks` (or `... build {source.name[:2]}`)")
    return problems


def drift_of(source: Path, student_path: Path) -> str:
    """What is wrong with the two notebooks of one source; empty when nothing is."""
    solved_path = source.with_suffix(".ipynb")
    for path in (solved_path, student_path):
        if not path.is_file():
            return f"{path.parent.name}/{path.name} is missing"
    wanted, solved = read_source(source), nbformat.read(solved_path, as_version=4)
    if place := first_difference(wanted, solved):
        return f"solutions/{solved_path.name} differs from its source {place}"
    code_cells = [cell for cell in solved.cells if cell.cell_type == "code"]
    if any(cell.execution_count is None for cell in code_cells):
        return f"solutions/{solved_path.name} has cells that were not run"
    if any(output.output_type == "error" for cell in code_cells for output in cell.outputs):
        return f"solutions/{solved_path.name} holds an error"
    if student_path.read_text(encoding="utf-8") != write(derive(solved)):
        place = first_difference(derive(solved), nbformat.read(student_path, as_version=4))
        return (
            f"notebooks/{student_path.name} is not what its source gives {place or '(outputs)'}; "
            "if these are your own answers, keep a copy, since building overwrites them"
        )
    return ""


def first_difference(wanted: NotebookNode, got: NotebookNode) -> str:
    """Where two notebooks first differ in kind, tags, id or source; empty when they do not."""
    if len(wanted.cells) != len(got.cells):
        return f"in the number of cells ({len(wanted.cells)}, not {len(got.cells)})"
    for index, (want, have) in enumerate(zip(wanted.cells, got.cells, strict=True)):
        if any(want[key] != have[key] for key in ("cell_type", "metadata", "id", "source")):
            return f'in cell {index} ("{want.source.partition(chr(10))[0][:60]}")'
    return ""


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when all is well, 1 for drift.

    Raises:
        SerialLoRAError: a lesson fails.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "action", nargs="?", choices=("build", "join", "avx2"), help="what to write"
    )
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; all if none")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on drift")
    options = parser.parse_args(arguments)
    if bool(options.action) == options.check:
        parser.error("say `build`, `join`, `avx2` or `--check`.")
    if options.check:
        problems = find_drift(ROOT)
        print("\n".join(problems) or "Sources and notebooks agree.", flush=True)
        return 1 if problems else 0
    if options.action == "join":
        join(ROOT)
    else:
        (build if options.action == "build" else measure_avx2)(ROOT, options.lessons)
    return 0


if __name__ == "__main__":
    enter("tools.notebooks", main, one_line=False)
