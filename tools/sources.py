"""A lesson's source as a notebook, and the learner's notebook that is derived from it.

CONTRIBUTING.md says how a source is written.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.exercises import CHECK_CALL

BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"
REGION = re.compile(rf"^( +){BEGIN}$.*?^ +{END}$", re.MULTILINE | re.DOTALL)
PROOF, EXERCISE = "nbval-check-output", "exercise"
SOLUTION_ONLY = "solution-only"
GUESS = re.compile(r"^(\w+) = .*(  # your guess\b.*)$", re.MULTILINE)
FOLDED = r"<details>(?:(?!<details>).)*?</details>"  # hints and answers
COLAB = """\
import sys

if "google.colab" in sys.modules:  # Colab lacks the course: fetch it, and what it needs
    !test -d /content/course || git clone --quiet --depth 1 {address} /content/course
    %pip install --quiet -e "/content/course[lessons]"
    %env SERIAL_LORA_STATIC=1
    %cd -q /content/course/notebooks
    sys.path.insert(0, "/content/course")"""
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def find_sources(root: Path, numbers: Iterable[str] = ()) -> list[Path]:
    """The lesson sources in order, or only those with the given numbers."""
    sources = sorted((root / "solutions").glob("[0-9][0-9]_*.py"))
    wanted = {number.zfill(2) for number in numbers}
    known = {source.name[:2] for source in sources}
    if missing := ", ".join(sorted(wanted - known)):
        there = ", ".join(sorted(known))
        raise SerialLoRAError(f"No lesson {missing} in solutions/; there are {there}.")
    return [source for source in sources if not wanted or source.name[:2] in wanted]


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def read_source(path: Path) -> NotebookNode:
    """Read a percent-format source as a notebook without outputs, with stable cell ids."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5  # cells have ids
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:10]
        seen[digest] += 1  # equal cells still need different ids
        cell.id = f"{digest}-{seen[digest]}"
        tidy(cell)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code_cells:
        first_line = cell.source.partition("\n")[0]
        if EXERCISE in tags(cell):
            try:
                make_stub(cell.source)
            except SerialLoRAError as error:
                raise SerialLoRAError(f'{path.stem}: in "{first_line}": {error}') from None
        elif BEGIN in cell.source or END in cell.source:
            raise SerialLoRAError(f'{path.stem}: the cell "{first_line}" needs the tag "exercise".')
    return notebook


def tidy(cell: NotebookNode) -> None:
    """Drop what differs from run to run: timing, widget views, how printed text was cut in pieces."""
    kept = tags(cell)
    cell.metadata = nbformat.from_dict({"tags": kept} if kept else {})
    outputs: list[NotebookNode] = []
    for output in cell.get("outputs", []):
        for kind in [kind for kind in output.get("data", {}) if "jupyter.widget" in kind]:
            del output.data[kind]
        last = outputs[-1] if outputs else None
        if last and output.get("name") and last.get("name") == output.name:  # of a stream
            last.text += output.text
        else:
            outputs.append(output)
    if cell.cell_type == "code":
        cell.outputs = outputs


def make_stub(source: str) -> str:
    """Replace each marked region of an exercise cell by one line that raises."""
    called = CHECK_CALL.search(source)
    if called is None:
        raise SerialLoRAError('an exercise has its check("N.M", ...) in the same cell.')
    todo = rf'\1raise NotImplementedError("Exercise {called[1]}: your code goes here")'
    stub, regions = REGION.subn(todo, source)
    if not regions or BEGIN in stub or END in stub:
        raise SerialLoRAError(
            f"{BEGIN} and {END} stand around each solution, in a function's body."
        )
    return stub


def derive(solved: NotebookNode, address: str = "") -> NotebookNode:
    """The learner's notebook: stubs for solutions, no guesses, no outputs except those of proof cells.

    Args:
        solved: the solved lesson.
        address: where the course lies in public; a cell below the title then fetches it on Colab.
    """
    student = copy.deepcopy(solved)
    student.cells = [cell for cell in student.cells if SOLUTION_ONLY not in tags(cell)]
    for cell in student.cells:
        if EXERCISE in tags(cell):
            cell.source = make_stub(cell.source)
        if cell.cell_type == "code":
            cell.source = without_guess(cell.source)
        if cell.cell_type == "code" and PROOF not in tags(cell):
            cell.outputs, cell.execution_count = [], None  # nbval compares what has a count
    if address:
        fetch = nbformat.v4.new_code_cell(COLAB.format(address=address), id="colab")
        student.cells.insert(1, fetch)
    return student


def without_guess(source: str) -> str:
    """A code cell in which the learner has not guessed yet."""
    return GUESS.sub(r"\1 = None\2", source)


def words_to_read(notebook: NotebookNode) -> int:
    """The words of the text cells, but for what is folded away: hints and answers."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return sum(len(re.sub(rf"(?s){FOLDED}", "", text).split()) for text in texts)


def write(notebook: NotebookNode) -> str:
    """A notebook as text; the same notebook always gives the same text."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"
