"""A lesson's check cells: where they stand in a notebook, and what they say once it was run.

Both doors of grading come here, ``serial-lora grade`` and nbgrader.
"""

from __future__ import annotations

import copy
import re

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.exercises import CHECK_CALL, read_exercises
from serial_lora_course.checking.running import right_sentence
from serial_lora_course.checking.solved import SOLVED
from serial_lora_course.grading import sandbox
from serial_lora_course.grading.text import one_line

IMPORT = "from serial_lora_course.checking import check"
STUB = "raise NotImplementedError("
ERRORS = {"NotImplementedError": "open", "NameError": "not found", "TooLong": "not reached"}


Verdict = tuple[str, str]
"""The result, and why: *passed* (what was verified), *wrong* (the likely cause), *open*, *not found* (nothing
defines what the exercise asks for), *not reached* (the notebook ended before, or took too much), or *look at
this* (the check's sentence is not the one that the solved lesson gives)."""


def read_solved(lesson: str) -> NotebookNode:
    """The solved lesson of a name such as ``02_parameter_count``, from its source; nothing was run."""
    if (path := SOLVED / f"{lesson}.py").is_file():
        return jupytext.read(path, fmt="py:percent")
    raise SerialLoRAError(f"{lesson} is no lesson of the course.")


def as_source(solved: NotebookNode) -> NotebookNode:
    """A solved lesson as nbgrader's source: answers in solution cells, checks in locked cells.

    A check is worth as many points as its exercise has dots of importance.
    """
    points = {exercise.number: exercise.importance for exercise in read_exercises(solved)}
    source = copy.deepcopy(solved)
    source.cells = []
    for cell in copy.deepcopy(solved.cells):
        tags = cell.metadata.get("tags", [])
        if "solution-only" in tags:
            continue
        source.cells.append(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "exercise" in tags:
            call = CHECK_CALL.search(cell.source)
            check = new_code_cell(f"{IMPORT}\n\n{cell.source[call.start() :]}")
            check.id = check_id(call[1])
            cell.source = cell.source[: call.start()].rstrip()
            mark(cell, check.id.replace("check", "exercise"), solution=True)
            mark(check, check.id, grade=True, locked=True, points=points[call[1]])
            source.cells.append(check)
    return source


def as_submission(notebook: NotebookNode, solved: NotebookNode) -> NotebookNode:
    """A learner's notebook with the lesson's check cells, each after the last cell that it judges.

    Where nothing defines what a check asks for, it comes first, and finds nothing.
    """
    submission, checks = copy.deepcopy(notebook), {}
    cells = [cell for cell in submission.cells if not grade_id(cell).startswith("check-")]
    ours = {grade_id(cell): cell for cell in as_source(solved).cells}
    for exercise in read_exercises(solved):
        place = _last_definition(cells, exercise.name)
        checks.setdefault(place, []).append(ours[check_id(exercise.number)])
    submission.cells = checks.get(-1, [])
    for place, cell in enumerate(cells):
        cell.metadata.pop("nbgrader", None)
        submission.cells += [cell, *checks.get(place, [])]
    return submission


def is_answered(notebook: NotebookNode, solved: NotebookNode) -> bool:
    """Whether an exercise's name is defined without the stub's line."""
    places = [_last_definition(notebook.cells, each.name) for each in read_exercises(solved)]
    return any(STUB not in notebook.cells[place].source for place in places if place >= 0)


def _last_definition(cells: list[NotebookNode], name: str) -> int:
    # `name = yours(...)` fetches an answer and is none
    meaning = re.compile(
        rf"^(?:(?:def|class)\s+{name}\b|{name}\s*[:=](?!=|\s*yours\())", re.MULTILINE
    )
    found = [i for i, c in enumerate(cells) if c.cell_type == "code" and meaning.search(c.source)]
    return found[-1] if found else -1


def check_id(number: str) -> str:
    """The name that nbgrader knows the check of an exercise by."""
    return "check-" + number.replace(".", "-")


def grade_id(cell: NotebookNode) -> str:
    """The name that nbgrader knows a cell by; empty for cells that are nothing to it."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def mark(cell: NotebookNode, name: str, **marks: bool | int) -> None:
    """Tell nbgrader what a cell is."""
    kinds = dict.fromkeys(("grade", "solution", "locked", "task"), False)
    cell.metadata.nbgrader = NotebookNode(grade_id=name, schema_version=3, **(kinds | marks))


def run(
    submission: NotebookNode, limits: sandbox.Limits, unconfined: bool = False
) -> dict[str, Verdict]:
    """Run a submission in the sandbox, and give its cells their outputs: what is said of each exercise.

    A check cell that did not pass holds an error, which is what nbgrader takes for a failure.
    """
    outputs, ended = sandbox.run(submission, limits, unconfined)
    verdicts = {}
    for index, cell in enumerate(submission.cells):
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = outputs.get(index, []), None
        if cell.metadata.get("nbgrader", {}).get("grade"):
            number = CHECK_CALL.search(cell.source)[1]
            result, why = verdicts[number] = verdict(cell.outputs, ended, number)
            if result in ("not reached", "look at this"):
                error = new_output("error", ename=result, evalue=why, traceback=[why])
                cell.outputs.insert(0, error)
    return verdicts


def verdict(outputs: list[NotebookNode], ended: str, number: str) -> Verdict:
    """What the outputs of an exercise's check cell say."""
    for error in (output for output in outputs if output.output_type == "error"):
        if error.ename in ERRORS:
            return ERRORS[error.ename], error.evalue
        if error.ename == "CheckFailed":
            return "wrong", error.evalue.partition("likely cause:")[2].partition("\n")[0]
        return "wrong", f"{error.ename}: {error.evalue}"
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    if not said:
        return "not reached", ended
    if (own := right_sentence(number)) not in said:
        told = f"the check says {one_line(said)!r}, and of the solved lesson {own!r}"
        return "look at this", told
    return "passed", own.partition("Verified: ")[2]
