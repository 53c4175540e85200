"""Plans for teaching the course in 90 minutes, half a day or two days, with minutes that add up.

What a plan holds is decided here: which lessons, how long somebody talks before and after, and how
important an exercise must be to be done in class. How long it takes is not: a lesson's running
time was measured, and its exercises' minutes stand on their cards. What is left of the time is
for questions, and :func:`write_plan` refuses a plan that leaves too little.

``python -m tools.plans --write INSTRUCTORS.md`` puts all plans between their marker
lines; ``--check`` says whether they are still there as they should be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora_course.checks.exercises import Exercise, read_exercises
from serial_lora_course.checks.lessons import (
    LESSONS,
    Lesson,
    put_between,
    read_measured,
    renew,
    say_minutes,
    whole_minutes,
)
from tools.notebooks import find_root, read_source

LEAST_FOR_QUESTIONS = 0.05  # of a session


@dataclass(frozen=True)
class Step:
    """A lesson in class, or a pause.

    Attributes:
        lesson: its number; empty for a pause.
        talk: minutes in which the instructor tells and shows, before and after; or the pause's.
        least: exercises of at least this importance (dots of five) are done in class.
    """

    lesson: str
    talk: int
    least: int = 4


PAUSE = Step("", 15)


@dataclass(frozen=True)
class Session:
    """Some steps in a row, in a given number of minutes."""

    title: str
    minutes: int
    steps: tuple[Step, ...]


PLANS: dict[str, tuple[Session, ...]] = {
    "90 minutes": (
        Session("In one go", 90, (Step("00", 10, 5), Step("02", 10, 5), Step("03", 10, 5))),
    ),
    "half a day": (
        Session(
            "One half-day",
            210,
            (Step("00", 10, 5), Step("02", 10), PAUSE, Step("03", 15), Step("04", 15)),
        ),
    ),
    "two days": (
        Session(
            "First day, morning",
            180,
            (Step("00", 15, 3), Step("01", 20, 4), PAUSE, Step("02", 15), Step("03", 10, 5)),
        ),
        Session(
            "First day, afternoon",
            180,
            (Step("04", 20, 3), PAUSE, Step("06", 20)),
        ),
        Session("Second day, morning", 180, (Step("07", 20), PAUSE, Step("05", 15))),
        Session(
            "Second day, afternoon", 195, (Step("08", 15), PAUSE, Step("09", 15), Step("10", 15))
        ),
    ),
}


# ---------------------------------------------------------------------------------------------
# Minutes


@dataclass(frozen=True)
class Facts:
    """What is known of a lesson: what the builder measured, and its exercises."""

    lesson: Lesson
    measured: dict | None
    exercises: tuple[Exercise, ...]

    @property
    def runs(self) -> int:
        """The minutes to allow for running it; 1 for a lesson not measured yet."""
        return whole_minutes(self.measured) if self.measured else 1

    def in_class(self, least: int) -> list[Exercise]:
        """The exercises of at least this importance."""
        return [exercise for exercise in self.exercises if exercise.importance >= least]


def lesson_facts(root: Path) -> dict[str, Facts]:
    """The facts of every lesson in the table, by its number."""
    measured = read_measured()
    found = {}
    for lesson in LESSONS:
        exercises = read_exercises(read_source(root / "solutions" / f"{lesson.stem}.py"))
        found[lesson.number] = Facts(lesson, measured.get(lesson.number), tuple(exercises))
    return found


def minutes_of(step: Step, facts: dict[str, Facts]) -> int:
    """How long a step takes: talk, the lesson's run, and its exercises in class."""
    if not step.lesson:
        return step.talk
    lesson = facts[step.lesson]
    return step.talk + lesson.runs + _sum(lesson.in_class(step.least))


def for_questions(session: Session, facts: dict[str, Facts]) -> int:
    """The minutes of a session that no step takes."""
    return session.minutes - sum(minutes_of(step, facts) for step in session.steps)


def _sum(exercises: Iterable[Exercise]) -> int:
    return sum(exercise.minutes for exercise in exercises)


# ---------------------------------------------------------------------------------------------
# Pages


def write_plan(sessions: Iterable[Session], facts: dict[str, Facts]) -> str:
    """One plan as Markdown tables.

    Raises:
        SerialLoRAError: a session's steps leave too little time for questions.
    """
    parts = []
    for session in sessions:
        left = for_questions(session, facts)
        if left < LEAST_FOR_QUESTIONS * session.minutes:
            raise SerialLoRAError(
                f"{session.title}: {session.minutes - left} of {session.minutes} minutes are "
                "taken, which leaves too little for questions; do fewer exercises in class."
            )
        rows = [
            f"**{session.title}, {session.minutes} minutes**",
            "",
            "| From | To | | Told and shown | Runs | Exercises in class |",
            "|---:|---:|---|---:|---:|---|",
        ]
        clock = 0
        for step in session.steps:
            until = clock + minutes_of(step, facts)
            rows.append(f"| {clock} | {until} | {_row(step, facts)} |")
            clock = until
        rows.append(f"| {clock} | {session.minutes} | Questions, and what took longer | | | |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _row(step: Step, facts: dict[str, Facts]) -> str:
    if not step.lesson:
        return "Pause | | |"
    here = facts[step.lesson]
    chosen = here.in_class(step.least)
    numbers = ", ".join(exercise.number for exercise in chosen)
    title = f"{here.lesson.number} {here.lesson.title}"
    return f"{title} | {step.talk} | {here.runs} | {numbers}: {_sum(chosen)}"


def lessons_table(facts: dict[str, Facts]) -> str:
    """Each lesson's running time, and the minutes of its exercises by their cards."""
    rows = [
        "| Lesson | Runs in | Exercises | Minutes of all | of importance 4 and 5 |",
        "|---|---|---:|---:|---:|",
    ]
    for number, here in facts.items():
        title = f"{number} {here.lesson.title}"
        rows.append(
            f"| {title} | {say_minutes(here.measured)} | {len(here.exercises)} "
            f"| {_sum(here.exercises)} | {_sum(here.in_class(4))} |"
        )
    return "\n".join(rows)


def with_plans(text: str, root: Path) -> str:
    """Return the page with every plan, and the table of minutes, between its marker lines.

    Raises:
        SerialLoRAError: marker lines are missing, or a plan does not fit its time.
    """
    facts = lesson_facts(root)
    parts = {f"plan: {name}": write_plan(sessions, facts) for name, sessions in PLANS.items()}
    for name, part in {**parts, "minutes": lessons_table(facts)}.items():
        text = put_between(text, f"<!-- {name}: begin -->", f"<!-- {name}: end -->", part)
    return text


def main(arguments: list[str] | None = None) -> int:
    """Write the plans into a page or check it; 1 when it is stale, 2 when it cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m tools.plans")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="PAGE", help="update the plans in this page")
    what.add_argument("--check", type=Path, metavar="PAGE", help="exit with 1 if they are stale")
    options = parser.parse_args(arguments)
    page = options.write or options.check
    return renew(page, lambda text: with_plans(text, find_root()), bool(options.write), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
