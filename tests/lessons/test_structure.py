"""Every lesson keeps the form that learners rely on; see tools/notebooks.py."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import nbformat
import pytest

from serial_lora_course.checking import lessons
from tools import notebooks, sources

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sources.find_sources(ROOT)
CARD = re.compile(
    r"^### Exercise (\d+\.\d+) · .+\n\n"
    r"\| Difficulty \| Importance \| Minutes \|\n\|---\|---\|---\|\n"
    r"\| ●{1,5}○{0,4} \| ●{1,5}○{0,4} \| \d+ \|\n\n\S",
    re.MULTILINE,
)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(root|home|tmp|work|Users|usr/lib)/")

each_lesson = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


@cache
def code_and_text(source: Path):
    cells = sources.read_source(source).cells
    return cells, [cell.source for cell in cells if cell.cell_type == "markdown"]


@cache
def solved_and_student(source: Path):
    return [
        nbformat.read(ROOT / folder / f"{source.stem}.ipynb", as_version=4)
        for folder in ("solutions", "notebooks")
    ]


def test_every_lesson_is_in_the_table_and_has_a_source():
    assert [source.stem for source in SOURCES] == [lesson.stem for lesson in lessons.LESSONS]


def test_notebooks_agree_with_their_sources():
    assert notebooks.find_drift(ROOT) == []


def test_a_thing_is_built_by_hand_once():
    """The lesson that needs it again imports it from the package."""
    owners: dict[str, list[str]] = {}
    for source in SOURCES:
        for node in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                owners.setdefault(node.name, []).append(source.stem)
    assert {name: lessons for name, lessons in owners.items() if len(lessons) > 1} == {}


@each_lesson
def test_exercises(source):
    cells, _ = code_and_text(source)
    places = [index for index, cell in enumerate(cells) if "exercise" in sources.tags(cell)]
    assert len(places) >= 3
    numbers = []
    for place in places:
        card, code, hints = (cells[place + step].source for step in (-1, 0, 1))
        found = CARD.search(card)
        assert found, f"no card above: {code[:60]}"
        number = found[1]
        numbers.append(number)
        assert f'check("{number}"' in code
        assert len(re.findall(r"<details><summary>Hint \d: \S.*</summary>\n\n", hints)) >= 2
        assert hints.count("<details>") == hints.count("</details>")
        assert f"](../solutions/{source.stem}.ipynb)" in hints
        for node in ast.parse(code).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                assert ast.get_docstring(node), f"{node.name} has no docstring"
            for function in [n for n in ast.walk(node) if isinstance(n, ast.FunctionDef)]:
                named = [a for a in function.args.args if a.arg != "self"]
                assert all(a.annotation for a in named), f"{function.name}: type every argument"
    lesson = int(source.stem[:2])
    assert numbers == [f"{lesson}.{index + 1}" for index in range(len(numbers))]


@each_lesson
def test_stub_is_only_a_raise(source):
    _, student = solved_and_student(source)
    for cell in student.cells:
        if "exercise" in sources.tags(cell):
            assert "raise NotImplementedError(" in cell.source
            assert sources.BEGIN not in cell.source and sources.END not in cell.source


@each_lesson
def test_links_lead_somewhere(source):
    _, texts = code_and_text(source)
    known = {f"{lesson.stem}.ipynb" for lesson in lessons.LESSONS}
    for target in re.findall(r"\]\(([^)#]+)\)", "\n".join(texts)):
        if not target.startswith("http"):
            assert Path(target).name in known or (ROOT / "notebooks" / target).exists(), target


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
def test_solved_lessons_ran_quietly(source):
    solved, student = solved_and_student(source)
    for cell in [cell for cell in solved.cells if cell.cell_type == "code"]:
        for output in cell.outputs:
            assert output.output_type != "error"
            if output.output_type == "stream":  # built where all is well, the package installed
                assert "[FAIL]" not in output.text and "only imported" not in output.text
            if output.output_type == "stream" and output.name == "stderr":
                assert "Warning" not in output.text and "Error" not in output.text, output.text
    kept = [cell for cell in student.cells if cell.get("outputs")]
    assert all("nbval-check-output" in sources.tags(cell) for cell in kept)


@each_lesson
def test_pictures_have_a_description(source):
    solved, _ = solved_and_student(source)
    for cell in solved.cells:
        words = re.findall(r"!\[(.*?)\]\(", cell.source) if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for image in re.findall(r"<img[^>]*>", data.get("text/html", "")):
                words += re.findall(r"alt=[\"'](.*?)[\"']", image) or [""]
            if kinds := [kind for kind in data if kind.startswith("image/")]:
                words.append(output.metadata.get(kinds[0], {}).get("alt", ""))
        for text in words:
            assert len(text) > 20, f"show it with display_figure: {cell.source[:60]}"


@each_lesson
def test_lesson_is_measured_and_short(source):
    measured = lessons.read_measured()[source.stem[:2]]
    assert measured["seconds"] <= 180
    assert measured["peak_mb"] > 0
