"""Lessons as files: from one source to a solved notebook and to the learner's notebook.

::

    solutions/02_parameter_count.py      the source, written by hand (Jupytext percent format)
    solutions/02_parameter_count.ipynb   that source executed at tiny scale, outputs kept
    notebooks/02_parameter_count.ipynb   derived: solutions become stubs, outputs go

    python -m tools.notebooks build          all lessons
    python -m tools.notebooks build 02 03    these two
    python -m tools.notebooks --check        exit 1 when a file has drifted

Lessons run with the network blocked, ``SERIAL_LORA_STATIC=1`` (widgets draw their static picture)
and ``HF_HUB_OFFLINE=1``, in the folder of their notebook. Time and peak memory are measured and
kept for the lesson table (see :mod:`serial_lora_course.checks.lessons`, where titles and goals live).

How a lesson is written
-----------------------

*The file.* ``# %%`` starts a code cell, ``# %% [markdown]`` a text cell, ``# %% tags=["setup"]``
a code cell with tags. The first cell is text: ``# 02 · Title`` (the title in ``lessons.py``), then
``**What you will be able to do**`` and a list. The second is the set-up cell, tagged ``setup`` and
equal, word for word, to ``SETUP_CELL`` in ``setup_cell.py``; JupyterLab shows it folded. Then an
import cell that ends in ``lesson_card("02")``, which shows prerequisites, measured minutes, memory
and GPU.

*The rhythm.* A text cell says one idea and what to expect; a code cell of 5 to 20 lines with shape
comments such as ``# (B, N, d)``; a text cell that starts with ``**What this shows.**``. Numbers in
text are computed: print them, or ``display(Markdown(f"..."))``. Figures are shown with
``serial_lora_course.figures.base.display_figure``, which keeps their description; a figure without one fails a
test, as do warnings in the output, a path of this machine, and a code cell above 34 lines.

*An exercise* is three cells. Text::

    ### Exercise 2.1 · Count one pair

    | Difficulty | Importance | Minutes |
    |---|---|---|
    | ●○○○○ | ●●●●○ | 5 |

    What to write and what the check will look at.

Code, tagged ``exercise``: one typed function (or class) with a docstring that gives shapes, its
solution between two marker lines *inside* the body, and its check in the same cell::

    def pair_count(width: int, rank: int) -> int:
        \"\"\"The number of entries of A (rank, width) and B (width, rank) together.\"\"\"
        # BEGIN SOLUTION
        return 2 * width * rank
        # END SOLUTION


    check("2.1", pair_count)

In the learner's notebook the marker lines and what they enclose become one
``raise NotImplementedError(...)``; nothing else may change. Later cells never use a learner's
function: they use the package's. Text after it, with two levels of hints and the link::

    <details><summary>Hint 1: ...</summary>

    ...
    </details>

    <details><summary>Hint 2: ...</summary>

    ...
    </details>

    Solution: [the solved lesson](../solutions/02_parameter_count.ipynb)

*Other tags.* ``nbval-check-output`` marks a proof cell: its output is kept in both notebooks and
compared at every test run, so print integers or booleans there, nothing that depends on the
machine or on a learner's function. ``solution-only`` drops a cell from the learner's notebook.

*The end.* ``## Quiz`` with three questions, each with ``<details><summary>Answer</summary>``;
``## Key points``; ``## Where the paper says it``.

*Checks* live in ``serial_lora_course/checks/lesson_02.py``; see :mod:`serial_lora_course.checks.checking`.
Each is tested against at least three named wrong answers in ``tests/course``. No function or class
is defined in two lessons. ``tests/course/test_lesson_structure.py`` holds lessons to this form.
"""

from __future__ import annotations

import argparse
import ast
import copy
import datetime
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path

import jupytext
import nbformat

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks.lessons import MEASURED, card_text, list_text, read_measured
from serial_lora_course.offline import offline_environment
from tools.setup_cell import SETUP_CELL

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
PROOF, EXERCISE, SETUP, SOLUTION_ONLY = (
    "nbval-check-output",
    "exercise",
    "setup",
    "solution-only",
)
CELL_TIMEOUT_SECONDS = 170
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_CHECK_CALL = re.compile(r'^check\("(\d+\.\d+)"', re.MULTILINE)
_CARD_CALL = re.compile(r'^lesson_(?:card\("(\d\d)"\)|list\(\))\Z', re.MULTILINE)
_STUB_LINE = re.compile(r'\s+raise NotImplementedError\("Exercise \d+\.\d+: .*"\)')
_PEAK_MEMORY = """
import sys as _sys
try:
    import resource as _resource
    _peak = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss
    print(_peak // (1 if _sys.platform == "linux" else 1024))
except ImportError:
    print(0)
"""


# ---------------------------------------------------------------------------------------------
# Reading a source


def find_root(start: Path | None = None) -> Path:
    """The folder with ``solutions/`` and ``pyproject.toml``: here, above, or the package's."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "solutions").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise SerialLoRAError("No checkout of the course is here: run this inside the repository.")


def find_sources(root: Path, numbers: Iterable[str] = ()) -> list[Path]:
    """The lesson sources in order, or only those with the given numbers."""
    sources = sorted((root / "solutions").glob("[0-9][0-9]_*.py"))
    wanted = [f"{number}".zfill(2) for number in numbers]
    missing = [number for number in wanted if not any(s.name[:2] == number for s in sources)]
    if missing:
        known = ", ".join(source.name[:2] for source in sources)
        raise SerialLoRAError(f"No lesson {', '.join(missing)} in solutions/; there are {known}.")
    return [source for source in sources if not wanted or source.name[:2] in wanted]


def read_source(path: Path) -> nbformat.NotebookNode:
    """Read a percent-format source as a notebook without outputs, with stable cell ids."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    result = nbformat.v4.new_notebook(metadata=copy.deepcopy(METADATA))
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else _new_markdown_cell
        tags = list(cell.metadata.get("tags", []))
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        seen[digest] = seen.get(digest, 0) + 1  # equal cells still need different ids
        result.cells.append(
            make(
                cell.source,
                id=f"{digest}-{seen[digest]}",
                metadata=_metadata(tags),
            )
        )
    _validate(path.stem, result)
    return result


def _metadata(tags: list[str]) -> dict:
    """A cell's metadata: its tags, and for the set-up cell that JupyterLab folds it away."""
    hidden = {"jupyter": {"source_hidden": True}, "cellView": "form"} if SETUP in tags else {}
    return {**hidden, "tags": tags} if tags else {}


def _new_markdown_cell(source: str, **fields) -> nbformat.NotebookNode:
    return nbformat.v4.new_markdown_cell(source, **fields)


def _validate(stem: str, notebook: nbformat.NotebookNode) -> None:
    """Refuse a source that could not be derived faithfully, and say which cell is to blame."""
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not code_cells or SETUP not in _tags(code_cells[0]) or code_cells[0].source != SETUP_CELL:
        raise SerialLoRAError(
            f'{stem}: the first code cell must be tagged "setup" and equal SETUP_CELL in '
            "tools/setup_cell.py."
        )
    for cell in code_cells:
        first_line = cell.source.splitlines()[0] if cell.source else ""
        marked = BEGIN in cell.source or END in cell.source
        if marked and EXERCISE not in _tags(cell):
            raise SerialLoRAError(f'{stem}: the cell "{first_line}" needs the tag "exercise".')
        if EXERCISE in _tags(cell):
            try:
                make_stub(cell.source)
            except SerialLoRAError as error:
                raise SerialLoRAError(f'{stem}: in the cell "{first_line}": {error}') from None


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


# ---------------------------------------------------------------------------------------------
# From the solution to the stub


def make_stub(source: str) -> str:
    """Replace each marked region of an exercise cell by one line that raises.

    Raises:
        SerialLoRAError: no markers, unbalanced markers, a region outside a function body, no
            ``check("N.M", ...)`` in the cell, or a stub that Python cannot parse.
    """
    called = _CHECK_CALL.search(source)
    if called is None:
        raise SerialLoRAError('an exercise has its check("N.M", ...) in the same cell.')
    stub, inside, regions = [], False, 0
    for line in source.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip() == BEGIN:
            if inside or not indent:
                raise SerialLoRAError(f"{BEGIN} belongs inside a function body, and not twice.")
            inside, regions = True, regions + 1
            message = f"Exercise {called[1]}: your code goes here"
            stub.append(f'{indent}raise NotImplementedError("{message}")')
        elif line.strip() == END:
            if not inside:
                raise SerialLoRAError(f"{END} without {BEGIN}.")
            inside = False
        elif not inside:
            stub.append(line)
    if inside or not regions:
        raise SerialLoRAError(f"every exercise needs {BEGIN} and {END} around its solution.")
    text = "\n".join(stub)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise SerialLoRAError(f"the stub is not valid Python: {error}.") from None
    return text


def changes_outside_markers(solved: str, stub: str) -> list[str]:
    """Lines in which a stub differs from its solution although they are not marked.

    Written apart from :func:`make_stub`, so that each can find a mistake in the other: lines may
    leave the solution only if they are marked, and only a raising line may come instead.
    """
    solved_lines, stub_lines = solved.splitlines(), stub.splitlines()
    marked, inside = set(), False
    for index, line in enumerate(solved_lines):
        inside = inside or line.strip() == BEGIN
        if inside:
            marked.add(index)
        inside = inside and line.strip() != END
    problems = []
    matcher = SequenceMatcher(a=solved_lines, b=stub_lines, autojunk=False)
    for tag, a_start, a_stop, b_start, b_stop in matcher.get_opcodes():
        if tag == "equal":
            continue
        problems += [solved_lines[i] for i in range(a_start, a_stop) if i not in marked]
        problems += [line for line in stub_lines[b_start:b_stop] if not _STUB_LINE.fullmatch(line)]
    return problems


def derive(solved: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The learner's notebook: stubs for solutions, outputs gone except those of proof cells."""
    student = nbformat.v4.new_notebook(metadata=copy.deepcopy(METADATA))
    for cell in solved.cells:
        if SOLUTION_ONLY in _tags(cell):
            continue
        cell = copy.deepcopy(cell)
        if cell.cell_type == "code":
            if EXERCISE in _tags(cell):
                cell.source = make_stub(cell.source)
            if PROOF not in _tags(cell):  # nbval compares outputs only of cells that were run
                cell.outputs, cell.execution_count = [], None
        student.cells.append(cell)
    return student


# ---------------------------------------------------------------------------------------------
# Executing


def execute(notebook: nbformat.NotebookNode, folder: Path) -> tuple[nbformat.NotebookNode, dict]:
    """Run a notebook offline in a fresh kernel; return it with outputs, and what was measured.

    Args:
        notebook: the notebook without outputs; it is not changed.
        folder: the working directory of the run.

    Raises:
        SerialLoRAError: a cell failed or took too long; the message shows the end of the traceback.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    run = copy.deepcopy(notebook)
    run.cells.append(nbformat.v4.new_code_cell(_PEAK_MEMORY))
    client = NotebookClient(
        run,
        timeout=CELL_TIMEOUT_SECONDS,
        kernel_name=METADATA["kernelspec"]["name"],
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # the kernel's own remarks help nobody here
    )
    before = dict(os.environ)
    os.environ.update(offline_environment())
    started = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        raise SerialLoRAError("\n".join(text.splitlines()[-25:])) from None
    finally:
        os.environ.clear()
        os.environ.update(before)
    seconds = time.perf_counter() - started
    peak = int(run.cells.pop().outputs[0]["text"])
    for cell in run.cells:
        _tidy(cell)
    run.metadata = nbformat.from_dict(copy.deepcopy(METADATA))
    return run, {"seconds": round(seconds, 1), "peak_mb": peak // 1024}


def _tidy(cell: nbformat.NotebookNode) -> None:
    """Drop what differs from run to run or does not belong in a file: widget views, timing."""
    cell.metadata = nbformat.from_dict(_metadata(_tags(cell)))
    if cell.cell_type != "code":
        return
    for output in cell.outputs:
        for kind in [kind for kind in output.get("data", {}) if "jupyter.widget" in kind]:
            del output["data"][kind]
    cell.outputs = _joined_streams(cell.outputs)


def _joined_streams(outputs: list) -> list:
    """Printed text may arrive in several pieces; how many is chance, so they are joined."""
    joined: list = []
    for output in outputs:
        last = joined[-1] if joined else None
        if (
            last is not None
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def write(notebook: nbformat.NotebookNode) -> str:
    """A notebook as text; the same notebook always gives the same text."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def build(root: Path, numbers: Iterable[str] = ()) -> None:
    """Execute the given lessons (all when none is given) and write both notebooks of each."""
    for source in find_sources(root, numbers):
        print(f"{source.stem}: running ...", flush=True)
        try:
            solved, measured = execute(read_source(source), root / "solutions")
        except SerialLoRAError as error:
            raise SerialLoRAError(f"{source.stem} did not run:\n{error}") from None
        (root / "solutions" / f"{source.stem}.ipynb").write_text(write(solved), encoding="utf-8")
        student = root / "notebooks" / f"{source.stem}.ipynb"
        student.parent.mkdir(exist_ok=True)
        student.write_text(write(derive(solved)), encoding="utf-8")
        _record(source.name[:2], measured)
        print(f"{source.stem}: {measured['seconds']} s, {measured['peak_mb']} MB", flush=True)
    for source in find_sources(root):
        _renew_measured(root / "solutions" / f"{source.stem}.ipynb")


def _renew_measured(path: Path) -> None:
    """Let a solved notebook tell what the present runs took: it was shown while it still ran."""
    if not path.is_file():
        return
    notebook = nbformat.read(path, as_version=4)
    for cell, text in measured_outputs(notebook):
        cell.outputs[-1].data["text/markdown"] = text
    path.write_text(write(notebook), encoding="utf-8")


def measured_outputs(notebook: nbformat.NotebookNode) -> list[tuple[nbformat.NotebookNode, str]]:
    """The cells of a solved notebook that show what was measured, each with what it should show."""
    found = []
    for cell in notebook.cells:
        if card := _CARD_CALL.search(cell.source) if cell.cell_type == "code" else None:
            found.append((cell, list_text() if card[1] is None else card_text(card[1])))
    return found


def _record(number: str, measured: dict) -> None:
    import torch

    everything = read_measured()
    everything[number] = {
        **measured,
        "cores": os.cpu_count(),
        "device": "cpu",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
    }
    text = json.dumps(dict(sorted(everything.items())), indent=1)
    MEASURED.write_text(text + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------
# The gate


def find_drift(root: Path) -> list[str]:
    """Every way in which the notebooks are not what their sources say; empty when all is well."""
    problems = []
    sources = find_sources(root)
    stems = {source.stem for source in sources}
    for folder in ("solutions", "notebooks"):
        for path in sorted((root / folder).glob("*.ipynb")):
            if path.stem not in stems:
                problems.append(f"{folder}/{path.name} has no source solutions/{path.stem}.py")
    for source in sources:
        try:
            problems += _drift_of(root, source)
        except SerialLoRAError as error:
            problems.append(str(error))
    return problems + defined_twice(sources)


def _drift_of(root: Path, source: Path) -> list[str]:
    rebuild = f"run `make notebooks` (or `... build {source.name[:2]}`)"
    solved_path = root / "solutions" / f"{source.stem}.ipynb"
    student_path = root / "notebooks" / f"{source.stem}.ipynb"
    missing = [p for p in (solved_path, student_path) if not p.is_file()]
    if missing:
        return [f"{p.parent.name}/{p.name} is missing: {rebuild}" for p in missing]
    wanted = read_source(source)
    solved = nbformat.read(solved_path, as_version=4)
    place = _first_difference(wanted, solved)
    if place:
        return [f"solutions/{solved_path.name} differs from its source {place}: {rebuild}"]
    problems = []
    if any(c.cell_type == "code" and c.execution_count is None for c in solved.cells):
        problems.append(f"solutions/{solved_path.name} has cells that were not run: {rebuild}")
    if any(o.output_type == "error" for c in solved.cells for o in c.get("outputs", [])):
        problems.append(f"solutions/{solved_path.name} holds an error: {rebuild}")
    if student_path.read_text(encoding="utf-8") != write(derive(solved)):
        place = _first_difference(derive(solved), nbformat.read(student_path, as_version=4))
        problems.append(
            f"notebooks/{student_path.name} is not what its source gives {place or '(outputs)'}: "
            f"{rebuild}; if these are your own answers, keep a copy first, it overwrites them"
        )
    for cell in solved.cells:
        if EXERCISE in _tags(cell):
            for line in changes_outside_markers(cell.source, make_stub(cell.source)):
                problems.append(f"{source.name}: the stub changes an unmarked line: {line.strip()}")
    return problems


def _first_difference(wanted: nbformat.NotebookNode, got: nbformat.NotebookNode) -> str:
    """Where two notebooks first differ in kind, tags, id or source; empty when they do not."""
    if len(wanted.cells) != len(got.cells):
        return f"in the number of cells ({len(wanted.cells)}, not {len(got.cells)})"
    for index, (want, have) in enumerate(zip(wanted.cells, got.cells, strict=True)):
        if any(want.get(key) != have.get(key) for key in ("cell_type", "metadata", "id", "source")):
            line = want.source.splitlines()[0] if want.source else ""
            return f'in cell {index} ("{line[:60]}")'
    return ""


def defined_twice(sources: Iterable[Path]) -> list[str]:
    """Functions and classes that two lessons define: a thing is built by hand once."""
    owners: dict[str, str] = {}
    problems = []
    for source in sources:
        tree = ast.parse(source.read_text(encoding="utf-8"))
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue
            owner = owners.setdefault(node.name, source.stem)
            if owner != source.stem:
                problems.append(
                    f"{node.name} is defined in {owner} and in {source.stem}: the later lesson "
                    "imports it from the package instead"
                )
    return problems


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when all is well, 1 for drift or a lesson that fails, 2 for bad use."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.notebooks", description=__doc__.splitlines()[0]
    )
    parser.add_argument("action", nargs="?", choices=("build",), help="execute and write")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="lesson numbers; all if none")
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on drift")
    options = parser.parse_args(arguments)
    if bool(options.action) == options.check:
        parser.error("say either `build` or `--check`.")
    try:
        root = find_root()
        if options.check:
            problems = find_drift(root)
            print("\n".join(problems) or "Sources and notebooks agree.", flush=True)
            return 1 if problems else 0
        build(root, options.lessons)
    except SerialLoRAError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
