"""The door for nbgrader, which keeps the grades and writes feedback: a course folder, and two steps.

::

    python -m serial_lora_course.grading.nbgrader FOLDER [NN ...]

    FOLDER/source/02_parameter_count/    solved, with nbgrader's cells: the teacher's
    FOLDER/nbgrader_config.py            submissions run in bubblewrap; yours from then on

In that folder, ``nbgrader generate_assignment 02_parameter_count`` makes what learners get. Run again after an
update of the course; grades stay. nbgrader's first step on a submission is :class:`WithChecks`, the one that
runs it :class:`Confined`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from traitlets import Bool, Integer
from traitlets.config import Config

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checking.lessons import LESSONS, find_lesson
from serial_lora_course.door import enter
from serial_lora_course.grading import cells, report, sandbox

try:
    from nbgrader.preprocessors import NbGraderPreprocessor
except ModuleNotFoundError as error:
    raise SerialLoRAError(
        'This needs nbgrader: `pip install -e ".[class]"` in the course\'s folder.'
    ) from error

CONFIGURATION = """\
from serial_lora_course.grading.nbgrader import configure

c = configure(get_config())  # c.Confined.seconds: for one cell; c.Confined.unconfined
c.CourseDirectory.course_id = "serial-lora"
"""


class WithChecks(NbGraderPreprocessor):
    """nbgrader's first step: a submission gets the lesson's check cells, wherever it is from.

    Of several notebooks of the lesson it takes the newest with an answer.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """The notebook as `as_submission` makes it; a lesson from ``notebooks/`` has no such cells."""
        lesson = resources["nbgrader"]["notebook"]
        best = report.newest_of(Path(resources["metadata"]["path"]), lesson)
        nb = report.read(best)[0] if best else nb
        return cells.as_submission(nb, cells.read_solved(lesson)), resources


class Confined(NbGraderPreprocessor):
    """nbgrader's step that runs a submission, in the sandbox; what fails to pass its check fails."""

    seconds = Integer(sandbox.Limits.cell_seconds, help="that one cell may take").tag(config=True)
    unconfined = Bool(False, help="without bubblewrap; " + sandbox.ON_ITS_OWN).tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Give every code cell its outputs, and an error to each check cell that did not pass."""
        cells.run(nb, sandbox.Limits(self.seconds, 5 * self.seconds), self.unconfined)
        return nb, resources


def name_by_heading(assignment: str, notebooks: list[str], **_: object) -> None:
    """What nbgrader calls before a submission: it looks for a lesson by its file's name alone.

    A duplicate, ``02_parameter_count-Copy1.ipynb``, is copied to that name where nothing else has
    it. Notebooks that cannot be read are named, each with its reason.
    """
    folder = Path(notebooks[0]).parent
    wanted = folder / f"{assignment}.ipynb"
    for path in map(Path, notebooks):
        try:
            report.read(path)
        except SerialLoRAError as error:
            print(f"{path}: {error}", file=sys.stderr)
    if not wanted.exists() and (best := report.newest_of(folder, assignment)):
        shutil.copy2(best, wanted)
    notebooks[:] = [str(wanted)] if wanted.exists() else notebooks


def configure(config: Config) -> Config:
    """Settings of nbgrader for this course; a course folder's nbgrader_config.py calls it."""
    theirs = "ClearOutput", "DeduplicateIds", "OverwriteKernelspec", "OverwriteCells"
    config.Autograde.pre_convert_hook = name_by_heading
    config.Autograde.sanitize_preprocessors = steps(WithChecks, *theirs, "CheckCellMetadata")
    theirs = "SaveAutoGrades", "AssignLatePenalties", "CheckCellMetadata"
    config.Autograde.autograde_preprocessors = steps(Confined, *theirs)
    stub = 'raise NotImplementedError("Exercise still to do: your code goes here")'
    config.ClearSolutions.code_stub = {"python": stub}
    config.HTMLExporter.sanitize_html = True  # a learner's text cells run nothing in a browser
    return config


def steps(own: type, *theirs: str) -> list[str]:
    """Names of a step of ours and of nbgrader's after it."""
    ours = f"serial_lora_course.grading.nbgrader.{own.__name__}"
    return [ours, *(f"nbgrader.preprocessors.{name}" for name in theirs)]


def make_course(folder: Path, numbers: Iterable[str] = ()) -> list[str]:
    """Write a course folder: source/, solved and with nbgrader's cells, and a configuration.

    Args:
        folder: made where it is missing; a configuration that is there already stays.
        numbers: of lessons, such as "02"; all if none.

    Returns:
        The names of the lessons.

    Raises:
        SerialLoRAError: there is no lesson of such a number.
    """
    chosen = [find_lesson(number) for number in numbers] or LESSONS
    for lesson in chosen:
        path = folder / "source" / lesson.stem / f"{lesson.stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(cells.as_source(cells.read_solved(lesson.stem)), path)
    if not (folder / "nbgrader_config.py").exists():
        (folder / "nbgrader_config.py").write_text(CONFIGURATION, encoding="utf-8")
    return [lesson.stem for lesson in chosen]


def main(words: list[str]) -> None:
    """Make a class's folder."""
    if not words or words[0].startswith("-"):
        raise SerialLoRAError("name the class's folder, and lessons if not all: ~/class 02 03.")
    stems = make_course(Path(words[0]), words[1:])
    print(f"{words[0]}/source has {len(stems)} lessons; next: nbgrader, in that folder.")


if __name__ == "__main__":
    enter("nbgrader", main)
