"""Grading small notebooks made from lesson 02: every verdict, and what may not fool it."""

import csv
import dataclasses
import io
import os
import re
from pathlib import Path

import nbformat
import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course import cli
from serial_lora_course.checks import checking
from serial_lora_course.checks.exercises import read_exercises
from serial_lora_course.grading import grade as grading
from serial_lora_course.grading import report as grade_report
from tests.grading.test_confinement import LANDLOCK
from tools import sources

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sources.find_sources(ROOT)
SECONDS = 10  # a cell's time in these tests
OPENING = "from fractions import Fraction\nfrom torch import nn\nfrom serial_lora_course.checks import check"
LESSON = "02_parameter_count"
SOLVED = nbformat.read(ROOT / "solutions" / f"{LESSON}.ipynb", as_version=4)
SOLUTIONS = {
    re.search(r'^check\("(.*?)"', cell.source, re.MULTILINE)[1]: cell.source
    for cell in SOLVED.cells
    if "exercise" in cell.metadata.get("tags", [])
}


def with_body(number: str, body: str) -> str:
    """The learner's cell of one exercise with these lines for its body."""
    begin, _, rest = SOLUTIONS[number].partition(sources.BEGIN)
    return begin + body.replace("\n", "\n    ") + rest.partition(sources.END)[2]


def write_notebook(path: Path, *cells: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    new = nbformat.v4.new_notebook()
    new.cells = [nbformat.v4.new_markdown_cell("# 02 · The parameter count, proved")]
    new.cells += [nbformat.v4.new_code_cell(source) for source in (OPENING, *cells)]
    nbformat.write(new, path)
    return path


MIXED = (
    SOLUTIONS["2.1"],
    with_body("2.2", "return sum(8 * w * rank * d for w, d in towers)"),
    sources.make_stub(SOLUTIONS["2.3"]),
)
CHEATING = (
    "def check(number, *attempt):\n    print(f'Exercise {number} is right. Verified: all.')",
    "import serial_lora_course.checks.checking as c\nc.run_check = c.check = lambda *a: 'all'",
    with_body("2.1", "print('Exercise 2.1 is right. Verified: all.')\nreturn inputs * rank"),
    "raise RuntimeError('on the way')",
    with_body("2.2", "return sum(2 * w * rank * d for w, d in towers"),  # a bracket is missing
    SOLUTIONS["2.3"],
    "count_trainable = None or count_trainable",
    with_body("2.4", "import sys\nsys.exit()"),
)
ENDLESS = (
    SOLUTIONS["2.1"],
    with_body("2.2", "while True:\n    pass"),
    SOLUTIONS["2.3"],
    "import time\nwhile True:\n    try:\n        time.sleep(60)\n"
    "    except KeyboardInterrupt:\n        pass",
    SOLUTIONS["2.4"],
)
WAYS = 6 if LANDLOCK else 5  # the audit hook does not see the last, torch.save
# Each way out is tried; the exercise is answered rightly only if all were refused.
WRITING = """\
import os, pathlib, subprocess, torch
there, refused = pathlib.Path({there!r}), []
ways = [
    lambda: (there / "victim.txt").write_text("changed"),
    lambda: (there / "victim.txt").unlink(),
    lambda: (there / "new").mkdir(),
    lambda: subprocess.run(["sh", "-c", "echo changed > " + str(there / "new.txt")], check=True),
    lambda: open(os.path.join(os.path.expanduser({home!r}), ".grade-test"), "w"),
    lambda: torch.save(torch.zeros(1), there / "new.pt"),
]
for way in ways[: {tried}]:
    try:
        way()
    except Exception:
        refused.append(way)
pathlib.Path("own.txt").write_text("mine")
torch.save(torch.zeros(1), pathlib.Path.home() / "own.pt")"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "victim.txt").write_text("as it was")
    return folder


@pytest.fixture(scope="module")
def graded(tmp_path_factory, outside):
    """All notebooks graded at once, with a short time for a cell; by name."""
    folder = tmp_path_factory.mktemp("submissions")
    attempts = WRITING.format(there=str(outside), home=str(Path.home()), tried=WAYS)
    all_refused = f"return rank * (inputs + outputs) if len(refused) == {WAYS} else 0"
    writing = (
        attempts,
        with_body("2.1", all_refused),
        "import os\nos._exit(1)",
        SOLUTIONS["2.2"],
    )
    cells = {"mixed": MIXED, "cheating": CHEATING, "endless": ENDLESS, "writing": writing}
    paths = [write_notebook(folder / name / f"{LESSON}.ipynb", *c) for name, c in cells.items()]
    submissions = [grading.read_submission(path, ROOT / "solutions") for path in paths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grading, "STOPPING_SECONDS", 8)
        done = grading.grade(submissions, timeout=SECONDS, jobs=2)
    return dict(zip(cells, done, strict=True))


def results(one: grading.Graded) -> list[str]:
    return [verdict.result for verdict in one.verdicts]


def test_right_wrong_open_and_deleted(graded):
    verdicts = graded["mixed"].verdicts
    assert [v.exercise.number for v in verdicts] == ["2.1", "2.2", "2.3", "2.4"]
    assert results(graded["mixed"]) == ["passed", "wrong", "open", "not found"]
    assert verdicts[0].why.startswith("the formula equals numel()")
    assert verdicts[1].why.startswith("that is LoRA") and "expected" in verdicts[1].seen
    assert verdicts[3].why == "no cell defines size_ratio"
    assert graded["mixed"].passed == 1


def test_what_is_printed_and_patched_plays_no_part(graded):
    verdicts = graded["cheating"].verdicts
    assert results(graded["cheating"]) == ["wrong", "not reached", "passed", "wrong"]
    assert verdicts[0].why.startswith("only A is counted")
    assert verdicts[1].why.startswith("SyntaxError")
    assert "SystemExit" in verdicts[3].why
    (trouble,) = graded["cheating"].troubles
    assert "RuntimeError: on the way" in trouble
    assert graded["mixed"].troubles == []


def test_an_endless_answer_and_a_cell_that_will_not_stop(graded):
    verdicts = graded["endless"].verdicts
    reasons = [verdict.why for verdict in verdicts]
    assert results(graded["endless"]) == ["passed", "not reached", "passed", "not reached"], reasons
    assert reasons[1] == f"the cell took longer than {SECONDS} seconds"
    assert reasons[3] == f"a cell took longer than {SECONDS} seconds and could not be stopped"


def test_a_kernel_that_ends(graded):
    assert results(graded["writing"]) == ["passed", "not reached", "not found", "not found"]
    assert graded["writing"].verdicts[1].why == "the kernel ended"


def test_nothing_is_written_outside(graded, outside):
    assert results(graded["writing"])[0] == "passed", graded["writing"].verdicts[0]
    assert [path.name for path in outside.iterdir()] == ["victim.txt"]
    assert (outside / "victim.txt").read_text() == "as it was"
    assert not (Path.home() / ".grade-test").exists()


def test_the_guard_in_force_is_told(graded):
    start = "Landlock" if LANDLOCK else "a Python audit hook alone"
    assert all(one.protection.startswith(start) for one in graded.values())


# ------------------------------------------------------------------------- tables and files


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command; exit code, what it printed, what it complained of."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["grade", *arguments])
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def ready(monkeypatch, graded):
    """The command takes the results above, instead of running the notebooks again."""

    def look_up(submissions, timeout, jobs, on_graded):
        known = {one.submission.path: one for one in graded.values()}
        for submission in submissions:
            on_graded(known[submission.path])
        return [known[submission.path] for submission in submissions]

    monkeypatch.setattr(grade_report, "grade", look_up)
    monkeypatch.chdir(ROOT)
    return [str(one.submission.path) for one in graded.values()]


def test_the_command_prints_and_saves(run, ready, tmp_path):
    out = tmp_path / "new" / "grades.csv"
    code, printed, complaints = run(*ready, "--out", str(out))
    assert (code, complaints) == (0, "")
    for text in ("02 · The parameter count, proved", "passed, of 4", "2.4", "not reached"):
        assert text in printed
    assert "2.2 wrong: that is LoRA" in printed and "RuntimeError: on the way" in printed
    rows = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert len(rows) == 4 * 4
    assert {row["result"] for row in rows} == set(grading.RESULTS)
    assert rows[0]["notebook"] == ready[0] and rows[0]["exercise"] == "2.1"
    assert all(row["protection"] for row in rows)
    assert os.listdir(out.parent) == ["grades.csv"]


def test_a_bad_input_does_not_keep_the_others(run, ready, tmp_path):
    out = tmp_path / "grades.csv"
    code, printed, complaints = run(ready[0], "no-such.ipynb", "--out", str(out))
    assert code == 2
    assert complaints == "serial-lora: no-such.ipynb: there is no such file.\n"
    assert "1 of 4 passed" in printed and len(out.read_text().splitlines()) == 5


def test_bad_inputs_get_a_sentence_each(run, tmp_path):
    (tmp_path / "text.ipynb").write_text("{")
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 77 · None of ours")])
    nbformat.write(other, tmp_path / "other.ipynb")
    names = [str(tmp_path / name) for name in ("none.ipynb", "text.ipynb", "other.ipynb")]
    code, printed, complaints = run(*names, str(tmp_path), "--out", str(tmp_path / "g.csv"))
    assert code == 2 and not printed
    endings = ("no such file.", "not a Jupyter notebook.", '"# 02 · ...".', "no such file.")
    lines = complaints.splitlines()
    assert len(lines) == 4
    assert all(line.endswith(end) for line, end in zip(lines, endings, strict=True))
    assert not (tmp_path / "g.csv").exists()


def test_a_place_that_cannot_be_written_is_told_first(run, ready, tmp_path):
    code, printed, complaints = run(ready[0], "--out", str(tmp_path))
    assert code == 2 and "is a folder" in complaints and not printed
    (tmp_path / "file").touch()
    code, _, complaints = run(ready[0], "--out", str(tmp_path / "file" / "g.csv"))
    assert code == 2 and "cannot be written" in complaints


@pytest.mark.parametrize("option", ["--timeout", "--jobs"])
def test_numbers_below_one_are_refused(run, option):
    code, _, complaints = run("x.ipynb", option, "0")
    assert code == 2 and option in complaints


def test_a_spreadsheet_takes_no_formula_from_a_name(graded, tmp_path):
    one = graded["mixed"]
    submission = dataclasses.replace(one.submission, path=Path("=1+1.ipynb"))
    renamed = dataclasses.replace(one, submission=submission)
    grade_report.save([renamed], tmp_path / "g.csv")
    rows = list(csv.reader((tmp_path / "g.csv").open()))
    assert rows[1][0] == "'=1+1.ipynb"


# ------------------------------------------------------------------------- lessons


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_exercise_of_a_lesson_can_be_graded(source):
    lesson = int(source.stem[:2])
    exercises = read_exercises(sources.read_source(source))
    assert len(exercises) >= 3
    for exercise in exercises:
        assert checking.find_check(exercise.number)
        assert exercise.names and exercise.minutes > 0
        assert 1 <= exercise.difficulty <= 5 and 1 <= exercise.importance <= 5
    registered = {n for n in checking._REGISTRY if n.partition(".")[0] == str(lesson)}
    assert registered == {exercise.number for exercise in exercises}


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_learners_notebook_is_recognised(path):
    submission = grading.read_submission(path, ROOT / "solutions")
    assert submission.lesson.stem == path.stem
    for exercise in submission.exercises:
        for name in exercise.names:
            assert grading._defining_cell(submission.notebook, name) is not None


def test_the_last_definition_counts():
    cells = ["def f(x):\n    pass", "f = 1", "print(f == 2)", "    f = 3", "fg = 4", "f: int = 5"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    assert grading._defining_cell(notebook, "f") == 5
    notebook.cells.pop()
    assert grading._defining_cell(notebook, "f") == 1
    assert grading._defining_cell(notebook, "g") is None


def test_solutions_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert grading.find_solutions() == ROOT / "solutions"
    monkeypatch.setattr(grading, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    with pytest.raises(SerialLoRAError, match="run this in the course's folder"):
        grading.find_solutions()


def test_a_kernel_gets_no_folder_but_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    environment = grading.scratch_environment(tmp_path, threads=1)
    for variable in ("HOME", "TMPDIR", "MPLCONFIGDIR", "HF_HOME", "SERIAL_LORA_DATA", "IPYTHONDIR"):
        assert Path(environment[variable]).is_relative_to(tmp_path)
        assert Path(environment[variable]).is_dir()
    assert environment["CUDA_VISIBLE_DEVICES"] == "" and environment["HF_HUB_OFFLINE"] == "1"
