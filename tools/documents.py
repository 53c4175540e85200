"""The generated parts of README.md and INSTRUCTORS.md.

::

    python -m tools.documents            write them
    python -m tools.documents --check    exit 1 when one is stale, and say which

A generated part stands between two lines, ``<!-- name: begin -->`` and ``<!-- name: end -->``. What
a plan of INSTRUCTORS.md holds is decided here: which lessons, how long somebody talks before and
after, and how important an exercise must be to be done in class. How long that takes is not: a
lesson's running time was measured, and its exercises' minutes stand on their cards.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import report as benchmarks
from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.checks.exercises import Exercise, read_exercises
from serial_lora_course.checks.lessons import (
    LESSONS,
    Lesson,
    read_measured,
    say_machine,
    say_memory,
    say_minutes,
    whole_minutes,
)
from serial_lora_course.door import enter
from tools import ROOT
from tools.sources import read_source, words_to_read

LEAST_FOR_QUESTIONS = 0.05  # of a session
CLASS = 24  # learners, for whom a machine is sized


@dataclass(frozen=True)
class Step:
    """A lesson in class, or a pause.

    Attributes:
        lesson: its number; empty for a pause.
        talk: minutes in which the instructor tells and shows, before and after; or the pause's.
        least: exercises of at least this importance (dots of five) are done in class.
        card: minutes kept free for its runs on a GPU; 0 where it runs at tiny scale, as measured.
    """

    lesson: str
    talk: int
    least: int = 4
    card: int = 0


@dataclass(frozen=True)
class Session:
    """Some steps in a row, in a given number of minutes."""

    title: str
    minutes: int
    steps: tuple[Step, ...]


PAUSE = Step("", 15)
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
    "a day with a GPU": (
        Session(
            "Morning, at tiny scale",
            180,
            (Step("00", 10, 5), Step("02", 10), PAUSE, Step("03", 15, 5), Step("04", 15, 5)),
        ),
        Session(
            "Afternoon, at the paper's scale",
            210,
            (Step("06", 15, 5, card=45), PAUSE, Step("07", 15, 5, card=45)),
        ),
    ),
    "two days": (
        Session(
            "First day, morning",
            180,
            (Step("00", 15, 3), Step("01", 20, 4), PAUSE, Step("02", 15), Step("03", 10, 5)),
        ),
        Session("First day, afternoon", 180, (Step("04", 20, 3), PAUSE, Step("06", 20))),
        Session(
            "Second day, morning", 180, (Step("07", 20), PAUSE, Step("05", 15), Step("10", 10, 5))
        ),
        Session(
            "Second day, afternoon",
            210,
            (Step("08", 15), PAUSE, Step("09", 15), Step("11", 10, 5), Step("12", 15)),
        ),
    ),
}


WORDS_A_MINUTE = 200  # of technical prose, read once


@dataclass(frozen=True)
class Facts:
    """What is known of a lesson: what the builder measured, its exercises, its words to read."""

    lesson: Lesson
    measured: dict | None
    exercises: tuple[Exercise, ...]
    words: int

    @property
    def title(self) -> str:
        """Number and title."""
        return f"{self.lesson.number} {self.lesson.title}"

    @property
    def runs(self) -> int:
        """The minutes to allow for running it; 1 for a lesson not measured yet."""
        return whole_minutes(self.measured) if self.measured else 1

    @property
    def reading(self) -> int:
        """The minutes to read the text once."""
        return round(self.words / WORDS_A_MINUTE)

    @property
    def minutes(self) -> int:
        """The minutes of all of it, done alone: reading, running, and every exercise by its card."""
        return self.reading + self.runs + sum_minutes(self.exercises)

    def in_class(self, least: int) -> list[Exercise]:
        """The exercises of at least this importance."""
        return [exercise for exercise in self.exercises if exercise.importance >= least]


def lesson_facts(root: Path) -> dict[str, Facts]:
    """The facts of every lesson, by its number."""
    measured = read_measured()
    found = {}
    for lesson in LESSONS:
        source = read_source(root / "solutions" / f"{lesson.stem}.py")
        exercises, words = tuple(read_exercises(source)), words_to_read(source)
        found[lesson.number] = Facts(lesson, measured.get(lesson.number), exercises, words)
    return found


def sum_minutes(exercises: Iterable[Exercise]) -> int:
    """The minutes on these exercises' cards."""
    return sum(exercise.minutes for exercise in exercises)


def minutes_of(step: Step, facts: dict[str, Facts]) -> int:
    """How long a step takes: talk, the lesson's run, and its exercises in class."""
    if not step.lesson:
        return step.talk
    lesson = facts[step.lesson]
    return step.talk + (step.card or lesson.runs) + sum_minutes(lesson.in_class(step.least))


def lesson_table(facts: dict[str, Facts]) -> str:
    """For README.md: every lesson with links to its notebook and to the solved one.

    There is a column for processors with AVX2 alone where a lesson was measured so.
    """
    machine = say_machine(next(iter(facts.values())).measured)
    avx2 = any("avx2_seconds" in (here.measured or {}) for here in facts.values())
    rows = [["Lesson", "What you can do afterwards", "Takes", f"Runs in ({machine})"]]
    rows[0] += ["with AVX2 alone, simulated"] * avx2 + ["Memory", "Solved"]
    rows.append(["---", "---", "---:", *["---"] * (len(rows[0]) - 3)])
    for here in facts.values():
        stem, measured = here.lesson.stem, here.measured
        row = [f"[{here.title}](notebooks/{stem}.ipynb)", here.lesson.goal, f"{here.minutes} min"]
        row += [say_minutes(measured)] + [say_minutes(measured, "avx2_seconds")] * avx2
        rows.append([*row, say_memory(measured), f"[solved](solutions/{stem}.ipynb)"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def minutes_table(facts: dict[str, Facts]) -> str:
    """For INSTRUCTORS.md: what a lesson takes alone, and the minutes of its exercises."""
    lines = [
        "| Lesson | Runs, minutes | Reading | Exercises | their minutes | of importance 4 and 5 | Together |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for here in facts.values():
        lines.append(
            f"| {here.title} | {here.runs} | {here.reading} | {len(here.exercises)} "
            f"| {sum_minutes(here.exercises)} | {sum_minutes(here.in_class(4))} | {here.minutes} |"
        )
    return "\n".join(lines)


def plan_table(sessions: Iterable[Session], facts: dict[str, Facts]) -> str:
    """For INSTRUCTORS.md: a plan, from minute to minute of each session.

    Raises:
        SerialLoRAError: the steps of a session leave too little time for questions.
    """
    lines = ["| From | To | | Told | Runs | Exercises in class |", "|---:|---:|---|---:|---:|---|"]
    for session in sessions:
        lines += [f"| | | **{session.title}, {session.minutes} minutes** | | | |"]
        lines += session_rows(session, facts)
    return "\n".join(lines)


def session_rows(session: Session, facts: dict[str, Facts]) -> list[str]:
    """A row for each step of a session, and one for questions."""
    rows, clock = [], 0
    for step in session.steps:
        until = clock + minutes_of(step, facts)
        if step.lesson:
            here = facts[step.lesson]
            chosen = here.in_class(step.least)
            numbers = ", ".join(exercise.number for exercise in chosen)
            runs = step.card or here.runs
            row = f"{here.title.partition(':')[0]} | {step.talk} | {runs} | {numbers}: {sum_minutes(chosen)}"
        else:
            row = "Pause | | |"
        rows.append(f"| {clock} | {until} | {row} |")
        clock = until
    if session.minutes - clock < LEAST_FOR_QUESTIONS * session.minutes:
        raise SerialLoRAError(
            f"{session.title}: {clock} of {session.minutes} minutes are taken, which leaves too "
            "little for questions; do fewer exercises in class."
        )
    return [*rows, f"| {clock} | {session.minutes} | Questions | | | |"]


def learners_table(facts: dict[str, Facts], results: dict) -> str:
    """For INSTRUCTORS.md: learners who train at once on one machine, from `benchmarks`.

    Args:
        results: as `python -m benchmarks` stores them.
    """
    if not (rows := results.get("learners")):
        return "Not measured yet: `python -m benchmarks --only learners`."
    machine = results["machine"]
    alone = rows[0]["seconds"] / rows[0]["learners"]
    lines = [
        f"| Everybody trains CLIP at four shots ({machine['processor']}, {machine['cores']} cores, "
        f"{machine['date']}) | Seconds | against alone | Learners a core | Memory, GB |",
        "|---|---:|---:|---:|---:|",
        f"| one learner alone | {alone:.0f} | 1.0 | | {rows[0]['peak_bytes'] / 1e9:.1f} |",
    ]
    for row in rows[1:]:
        lines.append(
            f"| {row['learners']} {row['title']} | {row['seconds']:.0f} "
            f"| {row['seconds'] / alone:.1f} | {row['learners'] / machine['cores']:.1f} "
            f"| {row['peak_bytes'] / 1e9:.1f} |"
        )
    a_core = rows[1]["learners"] / machine["cores"]
    most = max(here.measured["peak_mb"] for here in facts.values() if here.measured) / 1000
    return "\n".join(lines) + (
        f"\n\nNo lesson takes more than {most:.1f} GB. A class of {CLASS} that shares cores as these "
        f"did needs {math.ceil(CLASS / a_core)} of them and {math.ceil(CLASS * most)} GB, besides what "
        "system and JupyterLab take."
    )


def put_between(text: str, name: str, part: str) -> str:
    """Return a page with ``part`` in the place of what stands between the two lines of ``name``.

    Raises:
        SerialLoRAError: one of the lines is missing.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SerialLoRAError(f"The page needs the two lines {begin} and {end}.")
    return f"{head}{begin}\n{part}\n{end}{tail}"


def documents(root: Path) -> dict[Path, str]:
    """Every page with a generated part, and the text that it should have.

    Raises:
        SerialLoRAError: marker lines are missing, or a plan does not fit its time.
    """
    facts = lesson_facts(root)
    plans = {f"plan: {name}": plan_table(sessions, facts) for name, sessions in PLANS.items()}
    parts = {
        root / "README.md": {"lessons": lesson_table(facts)},
        root / "INSTRUCTORS.md": {
            "learners": learners_table(facts, benchmarks.load() or {}),
            "minutes": minutes_table(facts),
            **plans,
        },
    }
    pages = {}
    for path, sections in parts.items():
        pages[path] = path.read_text(encoding="utf-8")
        for name, part in sections.items():
            pages[path] = put_between(pages[path], name, part)
    return pages


def main(arguments: list[str] | None = None) -> int:
    """Write the pages or compare them; 1 when one is stale.

    Raises:
        SerialLoRAError: one cannot be made.
    """
    return rewrite("tools.documents", __doc__, lambda: documents(ROOT), arguments)


def rewrite(
    tool: str, about: str, pages: Callable[[], dict[Path, str]], arguments: list[str] | None
) -> int:
    """The command line of a tool that writes pages, or with ``--check`` says which are stale.

    Args:
        about: whose first line says what the tool is for.
        pages: gives the text that each page should have.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {tool}", description=about.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 on a stale page")
    check, stale = parser.parse_args(arguments).check, False
    for path, text in pages().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if check:
            print(f"{path.name} is stale: run `python -m {tool}`.", file=sys.stderr)
        else:
            write_whole(path, text.encode())
    return int(stale and check)


if __name__ == "__main__":
    enter("tools.documents", main)
