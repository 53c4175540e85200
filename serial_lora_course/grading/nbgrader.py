"""The door for nbgrader, which keeps the grades and writes feedback: a course folder, and two steps.

Its first step on a submission is :class:`WithChecks`, the one that runs it :class:`Confined`: on a server as in
``serial-lora grade``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from traitlets import Bool, Integer
from traitlets.config import Config

from serial_lora.errors import SerialLoRAError
from serial_lora_course.grading import cells, sandbox

try:
    from nbgrader.preprocessors import NbGraderPreprocessor
except ModuleNotFoundError as error:
    raise SerialLoRAError(
        'This needs nbgrader: `pip install ".[class]"` in the course\'s checkout, with Python 3.11 or '
        "newer."
    ) from error

CONFIGURATION = f"""\
from {__name__} import configure

c = configure(get_config())  # c.Confined.seconds: for one cell; c.Confined.unconfined
c.CourseDirectory.course_id = "serial-lora"
"""


class WithChecks(NbGraderPreprocessor):
    """nbgrader's first step: a submission gets the lesson's check cells, wherever it was handed out."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """The notebook as `as_submission` makes it; a lesson from ``notebooks/`` has no such cells."""
        solved = cells.read_solved(resources["nbgrader"]["notebook"])
        return cells.as_submission(nb, solved), resources


class Confined(NbGraderPreprocessor):
    """nbgrader's step that runs a submission, in the sandbox; what fails to pass its check fails."""

    seconds = Integer(sandbox.Limits.cell_seconds, help="that one cell may take").tag(config=True)
    unconfined = Bool(False, help="without bubblewrap; " + sandbox.ON_ITS_OWN).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Give every code cell its outputs, and an error to each check cell that did not pass."""
        cells.run(nb, sandbox.Limits(self.seconds), self.unconfined)
        return nb, resources


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


def make_course(folder: Path, lessons: Mapping[str, NotebookNode]) -> None:
    """Write a course folder: source/, solved and with nbgrader's cells, and a configuration.

    Args:
        folder: made where it is missing; a configuration that is there already stays.
        lessons: solved lessons, by the names that they shall have.
    """
    for name, solved in lessons.items():
        path = folder / "source" / name / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(cells.as_source(solved), path)
    if not (folder / "nbgrader_config.py").exists():
        (folder / "nbgrader_config.py").write_text(CONFIGURATION, encoding="utf-8")
