"""Every lesson keeps the form that learners rely on; see tools/notebooks.py."""

import json
import re

import nbformat
import pytest

from serial_lora_course.checking import lessons
from tools import ROOT, notebooks, sources

SOURCES = sources.find_sources(ROOT)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(root|home|tmp|work|Users|usr/lib)/")

each_lesson = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def test_every_lesson_is_in_the_table_and_has_a_source():
    assert [source.stem for source in SOURCES] == [lesson.stem for lesson in lessons.LESSONS]


def test_notebooks_agree_with_their_sources():
    assert notebooks.find_drift(ROOT) == []


@each_lesson
def test_a_lesson_fits_into_an_evening(source):
    notebook = sources.read_source(source)
    cells = notebook.cells
    assert len(cells) <= 75
    assert sources.words_to_read(notebook) <= 3000
    assert notebooks.minutes_alone(notebook) <= 85
    first = next(i for i, cell in enumerate(cells) if re.search(r"(?m)^## ", cell.source))
    opening = "\n".join(cell.source for cell in cells[:first] if cell.cell_type == "code")
    assert len([line for line in opening.splitlines() if line.strip()]) <= 25


@each_lesson
def test_files_are_small_and_clean(source):
    for folder in ("solutions", "notebooks"):
        path = ROOT / folder / f"{source.stem}.ipynb"
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) < 1_000_000
        assert "jupyter.widget" not in text
        assert not MACHINE_PATHS.search(text), MACHINE_PATHS.search(text)
        notebook = json.loads(text)
        assert notebook["metadata"] == notebooks.METADATA
        assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@each_lesson
def test_a_proof_cell_prints_the_same_before_and_after_the_exercises(source):
    """`yours` says a line more where an exercise is open."""
    for cell in sources.read_source(source).cells:
        assert sources.PROOF not in sources.tags(cell) or "yours(" not in cell.source


@each_lesson
def test_solved_lessons_ran_quietly(source):
    solved, student = (
        nbformat.read(ROOT / folder / f"{source.stem}.ipynb", as_version=4)
        for folder in ("solutions", "notebooks")
    )
    for cell in [cell for cell in solved.cells if cell.cell_type == "code"]:
        for output in cell.outputs:
            assert output.output_type != "error"
            if output.output_type == "stream":  # built where all is well, the package installed
                assert "[FAIL]" not in output.text and "only imported" not in output.text
            if output.output_type == "stream" and output.name == "stderr":
                assert "Warning" not in output.text and "Error" not in output.text, output.text
    kept = [cell for cell in student.cells if cell.get("outputs")]
    assert all("nbval-check-output" in sources.tags(cell) for cell in kept)
