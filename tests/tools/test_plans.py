"""INSTRUCTORS.md: plans whose minutes add up, all lessons, commands that exist."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from serial_lora.errors import SerialLoRAError
from serial_lora_course import cli
from serial_lora_course.checks import lessons
from tools import notebooks, plans

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "INSTRUCTORS.md"
TEXT = PAGE.read_text(encoding="utf-8")
SESSIONS = [session for sessions in plans.PLANS.values() for session in sessions]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table of a plan, heads left out."""
    found = re.findall(r"^\| From.*\n\|[-:| ]+\n((?:\|.*\n?)+)", text, re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        for table in found
    ]


def test_the_page_is_what_cards_and_measurements_give():
    assert plans.with_plans(TEXT, ROOT) == TEXT, (
        "run `python -m tools.plans --write INSTRUCTORS.md`"
    )


def test_minutes_add_up():
    """Counted from the page itself, apart from the code that wrote it."""
    found = tables(TEXT)
    assert len(found) == len(SESSIONS)
    for session, rows in zip(SESSIONS, found, strict=True):
        assert rows[0][0] == "0" and rows[-1][1] == str(session.minutes)
        for before, row in zip(rows, rows[1:], strict=False):
            assert before[1] == row[0]
        for start, end, what, talk, runs, exercises in rows[:-1]:
            if what != "Pause":
                minutes = int(talk) + int(runs) + int(re.search(r": (\d+)$", exercises)[1])
                assert int(end) - int(start) == minutes, what
        questions = int(rows[-1][1]) - int(rows[-1][0])
        assert questions >= plans.LEAST_FOR_QUESTIONS * session.minutes


def test_exercise_minutes_are_those_of_the_cards():
    card = re.compile(
        r"^# ### Exercise (\d+\.\d+) .*\n(?:#.*\n){3}# \|.*\| (\d+) \|$", re.MULTILINE
    )
    minutes = {}
    for source in notebooks.find_sources(ROOT):
        minutes |= {n: int(m) for n, m in card.findall(source.read_text(encoding="utf-8"))}
    named = 0
    for row in (row for rows in tables(TEXT) for row in rows):
        numbers, _, total = row[5].partition(": ")
        if total:
            named += 1
            assert sum(minutes[number] for number in numbers.split(", ")) == int(total)
    assert named >= 10


def test_plan_lengths():
    lengths = {name: sum(s.minutes for s in sessions) for name, sessions in plans.PLANS.items()}
    assert lengths["90 minutes"] == 90
    assert 180 <= lengths["half a day"] <= 240
    assert 600 <= lengths["two days"] <= 840
    assert all(session.minutes <= 240 for session in SESSIONS)


@pytest.mark.parametrize("name", plans.PLANS)
def test_prerequisites_come_first(name):
    done: list[str] = []
    for step in (step for session in plans.PLANS[name] for step in session.steps if step.lesson):
        needed = re.findall(r"\b\d\d\b", lessons.find_lesson(step.lesson).prerequisites)
        assert set(needed) <= set(done), f"{step.lesson} needs {needed}"
        done.append(step.lesson)
    if name == "two days":
        assert sorted(done) == [lesson.number for lesson in lessons.LESSONS]


def test_long_sessions_have_a_pause():
    for session in SESSIONS:
        if session.minutes > 120:
            assert plans.PAUSE in session.steps


def test_every_lesson_has_its_paragraph():
    section = TEXT.partition("## What each lesson trips learners on")[2].partition("\n## ")[0]
    numbers = re.findall(r"^\*\*(\d\d) ", section, re.MULTILINE)
    assert numbers == [lesson.number for lesson in lessons.LESSONS]


def test_exercises_named_in_the_text_exist():
    for number in re.findall(r"[Ee]xercise (\d+\.\d+)", TEXT):
        source = notebooks.find_sources(ROOT, [number.partition(".")[0]])[0]
        assert f"### Exercise {number} ·" in source.read_text(encoding="utf-8")


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE)
    assert {"course", "notebooks", "bundle", "bundle-check"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert not re.search(r"(?<![\w.])/(home|root|work)\b|https?://", TEXT)


def parse(line: str) -> None:
    """Parse a command line of serial-lora as the program does, and run nothing."""
    command, arguments = get_command(cli.app), shlex.split(line)
    while hasattr(command, "commands"):  # a group: its first argument names the command
        _, command, arguments = command.resolve_command(typer.Context(command), arguments)
    command.make_context(line, arguments)


@pytest.mark.parametrize("page", ["README.md", "INSTRUCTORS.md"])
def test_command_lines_are_understood(page):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ *(?:flock \S+ )?serial-lora (.+?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        parse(line)


@pytest.mark.parametrize("line", ["lab clip --shot-count 4", "mark x.ipynb", "lab sam --seeds x"])
def test_a_wrong_command_line_would_be_found(line):
    with pytest.raises(Exception, match="No such|valid integer"):
        parse(line)


def test_the_hardest_exercise_is_the_one_that_is_named():
    named = re.search(r"Exercise (\d+\.\d+) is the\s+hardest of the course", TEXT)[1]
    every = [e for facts in plans.lesson_facts(ROOT).values() for e in facts.exercises]
    most = max(exercise.difficulty for exercise in every)
    assert [e.number for e in every if e.difficulty == most] == [named]


def test_a_plan_that_leaves_no_time_is_refused():
    facts = plans.lesson_facts(ROOT)
    tight = plans.Session("Tight", 70, (plans.Step("00", 30, 1), plans.Step("03", 30, 1)))
    with pytest.raises(SerialLoRAError, match="leaves too little for questions"):
        plans.write_plan([tight], facts)


def test_page_without_markers_is_left_alone(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    assert plans.main(["--write", str(page)]) == 2
    assert page.read_text() == "nothing here"
    assert "needs the two lines" in capsys.readouterr().err


def test_stale_page_is_told_and_mended(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(TEXT.replace("| Told and shown |", "| Talk |"))
    assert plans.main(["--check", str(page)]) == 1
    assert "stale" in capsys.readouterr().err
    assert plans.main(["--write", str(page)]) == 0
    assert plans.main(["--check", str(page)]) == 0
    assert page.read_text() == TEXT
