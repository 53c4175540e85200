"""Learners' notebooks through nbgrader, on a server and by ``serial-lora grade``."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from traitlets.config.loader import PyFileConfigLoader

from serial_lora_course.checking.exercises import read_exercises
from serial_lora_course.checking.lessons import lesson_of
from serial_lora_course.checking.running import EXERCISES, find_check
from serial_lora_course.grading import cells, report
from tests.grading.test_sandbox import WHY_NOT
from tools import ROOT, sources

OPENLY = ["--unconfined"] if WHY_NOT else []
LESSON = "01_low_rank_maths"
SOLVED = nbformat.read(ROOT / "solutions" / f"{LESSON}.ipynb", as_version=4)
ANSWERS = {
    re.search(r'^check\("(.*?)"', cell.source, re.MULTILINE)[1]: cell.source
    for cell in SOLVED.cells
    if "exercise" in cell.metadata.get("tags", [])
}
COUNT = len(read_exercises(SOLVED))  # five, four of them answered below
OPENING = (
    "from collections.abc import Callable\nimport torch\nfrom torch import Tensor, nn\n"
    "from serial_lora_course.checking import check"
)


def with_body(number: str, body: str) -> str:
    """The learner's cell of one exercise with these lines for its body."""
    begin, _, rest = ANSWERS[number].partition(sources.BEGIN)
    return begin + body.replace("\n", "\n    ") + rest.partition(sources.END)[2]


def write(path: Path, *cells: str) -> Path:
    heading = new_markdown_cell("# 01 · Low-rank maths")
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[heading, *map(new_code_cell, cells)]), path)
    return path


# ------------------------------------------------------------------- serial-lora grade


ODD_OUTPUTS = (  # messages that no notebook's format knows
    "get_ipython().display_pub.publish(data={'text/plain': [1, 2]})\n"
    "kernel = get_ipython().kernel\n"
    "for kind, content in ('stream', {'text': 'x'}), ('display_data', {'transient': 7}):\n"
    "    kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent())"
)
MIXED = (
    OPENING,
    ODD_OUTPUTS,
    ANSWERS["1.1"],
    sources.make_stub(ANSWERS["1.2"]),
    ANSWERS["1.3"].replace("W_p @ self.lora_B", "self.lora_B"),
    "import builtins\nreal = print\n"
    "builtins.print = lambda *words, **k: real('Exercise 1.4 is right. Verified: trust me.')",
    ANSWERS["1.4"],
)
ALWAYS_EQUAL = """
class Number(int):
    __eq__ = __le__ = __ge__ = lambda self, other: True
    __hash__ = int.__hash__
return Number(7)"""
HARD = (  # to believe
    OPENING,
    "__import__ = lambda *a, **k: 1 / 0\ncheck = print",
    "import serial_lora_course.checking.running as c, serial_lora_cells.checking as d\n"
    "c.run_check = lambda *a: 'all'\nc.check = d.check = lambda *a: print('is right. Verified: all')",
    with_body("1.1", ALWAYS_EQUAL.strip()),
    with_body("1.2", "raise ValueError('\\x1b[31m' + '=x' * 10**6)"),
    with_body("1.3", "print('Exercise 1.3 is right. Verified: all.')\nimport os\nos._exit(1)"),
    ANSWERS["1.4"],
)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """What `serial-lora grade` saves and prints of some notebooks, and leaves when stopped at the last."""
    folder = tmp_path_factory.mktemp("submissions")
    (folder / "tmp").mkdir()
    (folder / "text.ipynb").write_text("{")
    (folder / "empty.ipynb").touch()
    for name, written in {
        "=mixed": MIXED,
        "hard": HARD,
        "slow": ["import time; time.sleep(400)"],
    }.items():
        write(folder / f"{name}.ipynb", *written)
    names = [f"{name}.ipynb" for name in ("=mixed", "text", "empty", "hard", "slow")]
    running = subprocess.Popen(
        [sys.executable, "-m", "serial_lora_course", "grade", *OPENLY, *names],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = ""
    while "hard.ipynb" not in printed:
        line = running.stdout.readline()
        assert line, "it ended too early"
        printed += line
    grader, until = psutil.Process(running.pid), time.monotonic() + 120
    while len(inside := grader.children(recursive=True)) < (2 if WHY_NOT else 4):
        assert time.monotonic() < until  # bubblewrap, its first process, the client, the kernel
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    code = running.wait(timeout=60)
    _, alive = psutil.wait_procs(inside, timeout=20)
    rows = list(csv.DictReader((folder / "grades.csv").open(encoding="utf-8")))
    return rows, printed, (code, alive, os.listdir(folder / "tmp"))


def rows_of(rows: list[dict], name: str, results: list[str]) -> list[dict]:
    """What was said of the first four exercises of a notebook, with these results."""
    found = [row for row in rows if row["notebook"] == f"{name}.ipynb"][:4]
    assert [row["result"] for row in found] == results
    return found


def test_right_wrong_open_and_forged(graded):
    rows, _, _ = graded
    mixed = rows_of(rows, "'=mixed", ["passed", "open", "wrong", "look at this"])
    assert [row["exercise"] for row in mixed] == ["1.1", "1.2", "1.3", "1.4"]
    assert "trust me" in mixed[3]["why"]  # a sentence that is not the check's own
    assert mixed[0]["why"].startswith("the chosen terms of each part are kept")
    assert mixed[2]["why"].startswith("B is returned unchanged")
    assert [row["points"] for row in mixed] == [mixed[0]["of"], "0", "0", "0"]


def test_what_is_no_notebook_has_a_row_and_its_reason(graded):
    rows, printed, _ = graded
    why = {row["notebook"]: row["why"] for row in rows if row["result"] == "refused"}
    assert "not a Jupyter notebook" in why["text.ipynb"] and "empty" in why["empty.ipynb"]
    assert len(why) == 2 and "refused" not in printed  # each was told on the error stream


def test_what_is_patched_printed_and_ends_the_kernel_does_not_pass(graded, capsys):
    rows, _, _ = graded
    hard = rows_of(rows, "hard", ["wrong", "wrong", "not reached", "not reached"])
    assert "class of your notebook" in hard[0]["why"]
    assert hard[2]["why"] == hard[3]["why"] == "the kernel ended"
    report.show(pd.DataFrame(rows).astype({"points": int, "of": int}))
    told = capsys.readouterr().out
    assert len(str(rows)) < 10_000 and len(told) < 10_000 and "\x1b" not in told


def test_an_interruption_keeps_what_was_graded_and_leaves_nothing(graded):
    rows, printed, (code, alive, left) = graded
    assert len(rows) == 2 * COUNT + 2 and f"=mixed.ipynb: 1 of {COUNT} passed\n" in printed
    assert code != 0 and alive == [] and left == []


# ------------------------------------------------------------------- nbgrader's own steps


def test_nbgrader_hands_out_no_answer_and_gives_a_hostile_notebook_its_own_points_alone(tmp_path):
    apps = pytest.importorskip("nbgrader.apps.api", reason="needs the extra [class]")
    from serial_lora_course.grading.nbgrader import make_course

    lesson, book = "03_build_serial_lora", tmp_path / "gradebook.db"
    assert make_course(tmp_path, ["03"]) == [lesson]
    config = PyFileConfigLoader("nbgrader_config.py", str(tmp_path)).load_config()
    config.CourseDirectory.root = str(tmp_path)
    config.Confined.unconfined = bool(WHY_NOT)
    api = apps.NbGraderAPI(config=config)

    def file(step: str, ending: str = "ipynb") -> Path:
        return tmp_path / step / lesson / f"{lesson}.{ending}"

    with pytest.MonkeyPatch.context() as patch:  # nbgrader calls alembic by its name
        beside = os.path.dirname(sys.executable)
        patch.setenv("PATH", os.pathsep.join([beside, os.environ["PATH"]]))
        assert api.generate_assignment(lesson)["success"]
        assert "SOLUTION" not in file("release").read_text("utf-8")
        ours = {cells.grade_id(c): c for c in nbformat.read(file("source"), as_version=4).cells}
        submitted = nbformat.read(file("release"), as_version=4)
        needed = [c for c in submitted.cells if cells.grade_id(c) or "import copy" in c.source]
        submitted.cells = [submitted.cells[0], *needed]  # and the heading
        needed[0].source += "\nprint('\\x1b[31m<script>alert(1)</script>')\n"
        needed[0].source += "" if WHY_NOT else f"open({str(book)!r}, 'r+b').truncate()"
        for cell in needed[1:]:
            if cells.grade_id(cell) == "exercise-3-1":
                cell.source = ours["exercise-3-1"].source
            if cells.grade_id(cell) == "exercise-3-2":
                stub = r"    raise NotImplementedError\(.*"
                cell.source, times = re.subn(stub, "    return block(adapter(x))", cell.source)
                assert times == 1
            if cell.metadata.nbgrader.grade:
                assert not cell.metadata.editable
                cell.source = "print('Exercise 3.3 is right. Verified: all.')"
                cell.metadata.nbgrader.points = 500
        # In JupyterLab's duplicate, as INSTRUCTORS advises, beside what was handed out.
        file("submitted/ada").parent.mkdir(parents=True)
        shutil.copy(file("release"), file("submitted/ada"))
        os.utime(file("submitted/ada"), (1, 1))
        nbformat.write(submitted, file("submitted/ada").with_stem(f"{lesson}-Copy1"))
        for step in (api.autograde, api.generate_feedback):
            done = step(lesson, "ada")
            assert done["success"], done
        with api.gradebook as gradebook:
            (grade,) = gradebook.submission_dicts(lesson)
    points = {name: cell.metadata.nbgrader.points for name, cell in ours.items() if "check" in name}
    assert len(points) > 3 and grade["max_score"] == sum(points.values())
    assert grade["score"] == points["check-3-1"]
    page = file("feedback/ada", "html").read_text("utf-8")
    assert "<script>alert" not in page and "\x1b" not in page
    assert "Exercise 3.3 is still open" in page and "Exercise 3.2 is not right yet" in page


# ------------------------------------------------------------------- every lesson


@pytest.mark.parametrize("path", sources.find_sources(ROOT), ids=lambda path: path.stem)
def test_every_exercise_of_a_lesson_can_be_graded(path):
    solved = sources.read_source(path)
    exercises = read_exercises(solved)
    registered = {e.number for e in exercises if find_check(e.number)}
    assert registered == {n for n in EXERCISES if n.split(".")[0] == str(int(path.name[:2]))}
    for notebook in (solved, sources.derive(solved)):
        prepared = cells.as_submission(notebook, solved)
        assert lesson_of(prepared).stem == path.stem
        names = [cells.grade_id(cell) for cell in prepared.cells]
        assert [name for name in names if name] == [cells.check_id(e.number) for e in exercises]
        for exercise in exercises:
            before = prepared.cells[names.index(cells.check_id(exercise.number)) - 1].source
            assert f'check("{exercise.number}"' in before


def test_a_submission_is_the_newest_notebook_of_the_lesson_with_an_answer(tmp_path):
    pytest.importorskip("nbgrader.apps.api", reason="needs the extra [class]")
    from serial_lora_course.grading.nbgrader import name_by_heading

    wanted, stub = tmp_path / f"{LESSON}.ipynb", sources.make_stub(ANSWERS["1.1"])
    ages = {"older": ANSWERS["1.1"], "copy": ANSWERS["1.3"], "open": stub}
    for age, (name, answer) in enumerate(ages.items()):
        os.utime(write(tmp_path / f"{name}.ipynb", answer), (age, age))
    (tmp_path / "broken.ipynb").write_text("{")
    found = [str(path) for path in tmp_path.iterdir()]
    name_by_heading(LESSON, found)
    assert found == [str(wanted)]
    assert wanted.read_bytes() == (tmp_path / "copy.ipynb").read_bytes()
    os.utime(write(wanted, stub), (9, 9))  # now somebody's own: it stays
    name_by_heading(LESSON, [str(wanted)])
    assert report.newest_of(tmp_path, LESSON).name == "copy.ipynb"
    assert sources.BEGIN not in wanted.read_text("utf-8")
