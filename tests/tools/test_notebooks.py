"""The notebook builder on small lessons of its own: derivation, execution, the search for drift."""

import shutil
from pathlib import Path

import nbformat
import pytest

from tests.doors import through_the_door
from tools import notebooks

BOTH = ("solutions/90_small.ipynb", "notebooks/90_small.ipynb")
SOLVED_CELL = '''\
def double(number: int) -> int:
    """Twice the number."""
    # BEGIN SOLUTION
    total = number + number
    return total
    # END SOLUTION


check("8.1", double)'''
STUB_CELL = '''\
def double(number: int) -> int:
    """Twice the number."""
    raise NotImplementedError("Exercise 8.1: your code goes here")


check("8.1", double)'''


def write_lesson(root: Path, extra: str = "") -> None:
    """A lesson with an exercise, a proof cell and a solution-only cell."""
    (root / "solutions").mkdir()
    (root / "solutions" / "90_small.py").write_text(
        "# %% [markdown]\n# # 90 · Small\n\n"
        "# %%\nimport os\n\ndef check(number, attempt):\n"
        "    try:\n        print(attempt(2))\n    except NotImplementedError:\n"
        "        print('open')\n\n"
        f'# %% tags=["exercise"]\n{SOLVED_CELL}\n\n'
        '# %% tags=["nbval-check-output"]\nprint(2 + 2)\n\n'
        "# %%\nshare = 0.3  # your guess: of the memory\nprint(share)\n\n"
        '# %% tags=["solution-only"]\nprint("only the solved lesson has this")\n\n'
        '# %%\nprint(os.environ["SERIAL_LORA_STATIC"], os.environ["HF_HUB_OFFLINE"])\n' + extra,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A course of one lesson, built twice; what it measured goes to a temporary folder too."""
    root = tmp_path_factory.mktemp("course")
    write_lesson(root)
    texts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebooks, "MEASURED", root / "measured.json")
        patch.setattr(notebooks, "PUBLIC", "")  # wherever the project lies
        for _ in range(2):
            notebooks.build(root)
            texts.append([(root / path).read_bytes() for path in BOTH])
    assert texts[0] == texts[1], "the same source gives the same notebooks"
    return root


@pytest.fixture(autouse=True)
def measured_elsewhere_and_not_public(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "MEASURED", tmp_path / "measured.json")
    monkeypatch.setattr(notebooks, "PUBLIC", "")


@pytest.fixture
def small_course(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "course"))


def run_main(root: Path, *arguments: str, monkeypatch) -> tuple[int, str]:
    monkeypatch.setattr(notebooks, "ROOT", root)
    monkeypatch.setattr(notebooks, "stale_pages", lambda root: [])
    ran = through_the_door(notebooks.main, *arguments)
    return ran.exit_code, ran.output


def test_build_writes_both_notebooks(built):
    solved, student = (nbformat.read(built / path, as_version=4) for path in BOTH)
    texts = ["".join(output.text for output in cell.get("outputs", [])) for cell in solved.cells]
    assert texts[2:7] == ["4\n", "4\n", "0.3\n", "only the solved lesson has this\n", "1 1\n"]
    assert [cell.source for cell in student.cells][2] == STUB_CELL
    assert student.cells[4].source == "share = None  # your guess: of the memory\nprint(share)"
    assert len(student.cells) == len(solved.cells) - 1
    kept = [cell for cell in student.cells if cell.get("outputs")]
    assert [cell.outputs[0].text for cell in kept] == ["4\n"]
    assert [cell.execution_count for cell in kept] == [3]
    assert all(cell.get("execution_count") is None for cell in student.cells if cell not in kept)
    assert (built / "measured.json").is_file()


def test_joined_lessons_run_each_exercise_solved_and_then_open(small_course):
    notebooks.join(small_course)
    joined = nbformat.read(small_course / notebooks.JOINED / "90_small.ipynb", as_version=4)
    solved = nbformat.read(small_course / BOTH[0], as_version=4)
    sources = [cell.source for cell in joined.cells]
    place = sources.index(STUB_CELL)
    assert sources[place - 1] == SOLVED_CELL
    expected = [cell.source.replace("0.3", "None") for cell in solved.cells]
    assert sources[:place] + sources[place + 1 :] == expected
    outputs = [cell.outputs[0].text for cell in joined.cells if "nbval" in str(cell.metadata)]
    assert outputs == ["4\n"]


def test_a_lessons_minutes_stay_when_the_course_lies_in_public(monkeypatch):
    lines = nbformat.v4.new_code_cell("x = 1\n" * 100)  # five minutes, to the second
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(), lines])
    assert notebooks.minutes_alone(lesson) == 5
    monkeypatch.setattr(notebooks, "PUBLIC", "https://github.com/ada/course")
    assert notebooks.minutes_alone(lesson) == 5


def _edit(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: _edit(r / "solutions/90_small.py", "Twice", "2 x"), "differs from its source"),
        (lambda r: _edit(r / BOTH[1], "Twice", "2 x"), "differs from its source"),
        (lambda r: _edit(r / BOTH[1], '"4\\n"', '"5\\n"'), "outputs of its own"),
        (lambda r: (r / BOTH[1]).unlink(), "is missing"),
    ],
)
def test_drift_is_found_and_named(small_course, monkeypatch, change, message):
    kept = run_main(small_course, "check", monkeypatch=monkeypatch)
    assert kept == (0, "Sources and notebooks agree.\n")
    change(small_course)
    code, said = run_main(small_course, "check", monkeypatch=monkeypatch)
    assert code == 1 and message in said


def test_a_lesson_that_fails_or_asks_a_network_writes_nothing(tmp_path, monkeypatch):
    asks = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=1)"
    write_lesson(tmp_path, f"\n# %%\n{asks}\n")
    code, said = run_main(tmp_path, "build", monkeypatch=monkeypatch)
    assert code == 2 and "90_small did not run" in said
    assert "The network is blocked here, and something asked for 192.0.2.1" in said
    assert not list(tmp_path.rglob("*.ipynb"))
