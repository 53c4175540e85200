"""Lessons as nbgrader knows them: a course folder, the cells in it, and how a submission is run.

nbgrader keeps the grades and writes feedback. Its first step on a submission is :class:`WithChecks` here,
the one that runs it :class:`Confined`: on a server as in ``serial-lora grade``.
"""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from traitlets import Bool, Integer
from traitlets.config import Config

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.exercises import CHECK_CALL, read_exercises
from serial_lora_course.checking.running import right_sentence
from serial_lora_course.checking.solved import SOLVED
from serial_lora_course.grading import sandbox
from serial_lora_course.grading.text import one_line

try:
    from nbgrader.converters import Autograde, GenerateAssignment
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import NbGraderPreprocessor
except ModuleNotFoundError as error:
    raise SerialLoRAError(
        'Grading needs nbgrader: `pip install ".[class]"` in the course\'s checkout, with Python '
        "3.11 or newer."
    ) from error

IMPORT = "from serial_lora_course.checking import check"


class WithChecks(NbGraderPreprocessor):
    """nbgrader's first step: a submission gets the lesson's check cells, wherever it was handed out."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """The notebook as `as_submission` makes it; a lesson from ``notebooks/`` has no such cells."""
        return as_submission(nb, read_solved(resources["nbgrader"]["notebook"])), resources


class Confined(NbGraderPreprocessor):
    """nbgrader's step that runs a submission, in the sandbox; what fails to pass its check fails."""

    seconds = Integer(sandbox.Limits.cell_seconds, help="that one cell may take").tag(config=True)
    unconfined = Bool(False, help="without bubblewrap; " + sandbox.ON_ITS_OWN).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Give every code cell its outputs, and an error to each check cell that did not pass."""
        shown = sandbox.run(nb, sandbox.Limits(self.seconds, 5 * self.seconds), self.unconfined)
        for index, cell in enumerate(nb.cells):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = shown.outputs.get(index, []), None
                if cell.metadata.get("nbgrader", {}).get("grade"):
                    number = CHECK_CALL.search(cell.source)[1]
                    cell.outputs = judged(cell.outputs, shown.ended, number)
        return nb, resources


def judged(outputs: list[NotebookNode], ended: str, number: str) -> list[NotebookNode]:
    """A check cell's outputs, of which nbgrader takes errors alone for a failure.

    Full points need the check's own sentence, as the solved lesson has it: a cell that shows nothing
    did not pass, and another sentence wants a teacher's eyes.
    """
    errors = [output for output in outputs if output.output_type == "error"]
    texts = [output for output in outputs if output.output_type == "stream"]
    said = "".join(output.text for output in texts)
    if not errors and " is right. Verified: " not in said:
        errors = [new_output("error", ename="NotReached", evalue=ended, traceback=[ended])]
    elif not errors and (own := right_sentence(number)) not in said:
        told = f"the check says {one_line(said)!r}, and of the solved lesson {own!r}"
        errors = [new_output("error", ename="LookAtThis", evalue=told, traceback=[told])]
    for output in texts:
        output.name = "stdout"  # a warning is no failure either
    return [*errors, *texts]


def read_solved(lesson: str) -> NotebookNode:
    """The solved lesson of a name such as ``02_parameter_count``, from its source; nothing was run.

    Raises:
        SerialLoRAError: there is none.
    """
    for folder in SOLVED:
        if (path := folder / f"{lesson}.py").is_file():
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
        place = max(_last_definition(cells, name) for name in exercise.names)
        checks.setdefault(place, []).append(ours[check_id(exercise.number)])
    submission.cells = checks.get(-1, [])
    for place, cell in enumerate(cells):
        cell.metadata.pop("nbgrader", None)
        submission.cells += [cell, *checks.get(place, [])]
    return submission


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


def _last_definition(cells: list[NotebookNode], name: str) -> int:
    meaning = re.compile(rf"^(?:(?:def|class)\s+{name}\b|{name}\s*[:=](?!=))", re.MULTILINE)
    found = [i for i, c in enumerate(cells) if c.cell_type == "code" and meaning.search(c.source)]
    return found[-1] if found else -1


def configure(config: Config) -> Config:
    """Settings of nbgrader for this course; a course folder's nbgrader_config.py calls it."""
    theirs = "ClearOutput", "DeduplicateIds", "OverwriteKernelspec", "OverwriteCells"
    config.Autograde.sanitize_preprocessors = steps(WithChecks, *theirs, "CheckCellMetadata")
    theirs = "SaveAutoGrades", "AssignLatePenalties", "CheckCellMetadata"
    config.Autograde.autograde_preprocessors = steps(Confined, *theirs)
    stub = 'raise NotImplementedError("Exercise still to do: your code goes here")'
    config.ClearSolutions.code_stub = {"python": stub}
    config.HTMLExporter.sanitize_html = True  # a learner's text cells run nothing in a browser
    return config


def steps(own: type, *theirs: str) -> list[str]:
    """Names of a step of ours and of nbgrader's after it."""
    return [f"{own.__module__}.{own.__name__}", *(f"nbgrader.preprocessors.{n}" for n in theirs)]


CONFIGURATION = f"""\
from {__name__} import configure

c = configure(get_config())  # c.Confined.seconds: for one cell; c.Confined.unconfined
c.CourseDirectory.course_id = "serial-lora"
"""


def make_course(folder: Path, lessons: Mapping[str, NotebookNode]) -> None:
    """Write a course folder: source/ (solved), release/ (for learners), gradebook, configuration.

    Args:
        folder: made where it is missing; a configuration that is there already stays.
        lessons: solved lessons, by the names that they shall have.
    """
    for name, solved in lessons.items():
        path = folder / "source" / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(as_source(solved), path)
    if not (folder / "nbgrader_config.py").exists():
        (folder / "nbgrader_config.py").write_text(CONFIGURATION, encoding="utf-8")
    for name in lessons:
        _run(GenerateAssignment, folder, name, "*", Config())


def autograde(folder: Path, lesson: str, student: str, settings: dict) -> None:
    """Grade what is in ``submitted/``, again where it was graded before.

    Args:
        settings: of :class:`Confined`.

    Raises:
        SerialLoRAError: nbgrader could not.
    """
    try:
        _run(Autograde, folder, lesson, student, Config(Confined=settings))
    except NbGraderException as error:
        raise SerialLoRAError("nbgrader cannot grade this notebook.") from error


def _run(step: type, folder: Path, lesson: str, student: str, config: Config) -> None:
    beside = os.path.dirname(sys.executable)  # where alembic lies, which nbgrader calls by its name
    if beside not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    place = CourseDirectory(root=str(folder), assignment_id=lesson, student_id=student)
    step(coursedir=place, config=configure(config), force=True).start()
