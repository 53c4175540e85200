"""The pages with generated parts, and what they and their neighbours name: commands, exercises."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from serial_lora.errors import SerialLoRAError
from serial_lora_course import cli
from serial_lora_course.checks import lessons
from tests.doors import through_the_door
from tools import documents, sources

ROOT = Path(__file__).resolve().parents[2]
SESSIONS = [session for sessions in documents.PLANS.values() for session in sessions]


@pytest.fixture(scope="module")
def facts():
    return documents.lesson_facts(ROOT)


def test_pages_are_what_lessons_and_records_give():
    assert documents.main(["--check"]) == 0, "run `python -m tools.documents`"


def test_a_stale_page_is_found_and_mended(tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- lessons: begin -->\nyesterday\n<!-- lessons: end -->\nafter\n")

    def pages(root):
        text = page.read_text(encoding="utf-8")
        return {page: documents.put_between(text, "lessons", "today")}

    monkeypatch.setattr(documents, "documents", pages)
    assert documents.main(["--check"]) == 1 and "README.md" in capsys.readouterr().err
    assert documents.main([]) == documents.main(["--check"]) == 0
    assert page.read_text().splitlines() == [
        "before",
        "<!-- lessons: begin -->",
        "today",
        "<!-- lessons: end -->",
        "after",
    ]
    page.write_text("nothing here")
    ran = through_the_door(documents.main)
    assert ran.exit_code == 2 and "two lines" in ran.output and page.read_text() == "nothing here"


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.title)
def test_minutes_add_up(session, facts):
    """Counted from the table itself, apart from the code that wrote it."""
    table = documents.session_rows(session, facts)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len(rows) == len(session.steps) + 1
    clock = 0
    for start, end, what, *minutes in rows[:-1]:
        assert int(start) == clock
        if what != "Pause":
            talk, runs, exercises = minutes
            clock += int(talk) + int(runs) + int(exercises.partition(": ")[2])
        else:
            clock += documents.PAUSE.talk
        assert int(end) == clock
    assert rows[-1][:2] == [str(clock), str(session.minutes)]


def test_no_lesson_takes_more_than_seventy_five_minutes_alone(facts):
    assert {here.title: here.minutes for here in facts.values() if here.minutes > 75} == {}


def test_a_plan_that_leaves_no_time_is_refused(facts):
    steps = (documents.Step("00", 30, 1), documents.Step("03", 30, 1))
    with pytest.raises(SerialLoRAError, match="questions"):
        documents.plan_table([documents.Session("Tight", 70, steps)], facts)


def test_plans_are_as_long_as_their_names_and_have_pauses():
    lengths = {name: sum(s.minutes for s in plan) for name, plan in documents.PLANS.items()}
    assert lengths["90 minutes"] == 90
    assert 180 <= lengths["half a day"] <= 240
    assert 360 <= lengths["a day with a GPU"] <= 420
    assert 600 <= lengths["two days"] <= 840
    for session in SESSIONS:
        assert session.minutes <= 240
        assert session.minutes <= 120 or documents.PAUSE in session.steps


@pytest.mark.parametrize("name", documents.PLANS)
def test_prerequisites_come_first(name):
    steps = [step for session in documents.PLANS[name] for step in session.steps if step.lesson]
    done: list[str] = []
    for step in steps:
        needed = re.findall(r"\b\d\d\b", lessons.find_lesson(step.lesson).prerequisites)
        assert set(needed) <= set(done), f"{step.lesson} needs {needed}"
        done.append(step.lesson)
    if name == "two days":
        assert sorted(done) == [each.number for each in lessons.LESSONS]


def parse(line: str) -> None:
    """Parse a command line of serial-lora as the program does, and run nothing."""
    command, arguments = get_command(cli.app), shlex.split(line)
    while hasattr(command, "commands"):  # a group: its first argument names the command
        _, command, arguments = command.resolve_command(typer.Context(command), arguments)
    command.make_context(line, arguments)


@pytest.mark.parametrize("page", ["README.md", "INSTRUCTORS.md"])
def test_commands_on_the_pages_are_understood(page):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ *(?:flock \S+ )?serial-lora (.+?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(lines) >= 3
    for line in lines:
        parse(line)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert f"\n{target}: " in makefile, target


def test_the_courses_own_commands_are_understood():
    for command in cli.course_commands("nature", "lines", "night"):
        parse(shlex.join(command))
    assert len(sources.find_sources(ROOT)) == len(lessons.LESSONS)
