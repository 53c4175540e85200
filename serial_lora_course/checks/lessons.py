"""The table of lessons: what each is for, how long it runs, how much memory it takes.

Titles and goals are written here and nowhere else; minutes and memory are measured when
``python -m tools.notebooks build`` executes a lesson, and kept in
``serial_lora_course/assets/lessons_measured.json``.

``python -m serial_lora_course.checks.lessons --write README.md`` puts the table between the two marker
lines ``<!-- lessons: begin -->`` and ``<!-- lessons: end -->``; ``--check`` says whether it is
still there as it should be.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole

MEASURED = Path(__file__).resolve().parents[1] / "assets" / "lessons_measured.json"
BEGIN, END = "<!-- lessons: begin -->", "<!-- lessons: end -->"


@dataclass(frozen=True)
class Lesson:
    """One lesson: its two-digit number, file topic, title, goal, and what to have done before."""

    number: str
    topic: str
    title: str
    goal: str
    prerequisites: str
    gpu: str

    @property
    def stem(self) -> str:
        """The file name without its ending, such as ``02_parameter_count``."""
        return f"{self.number}_{self.topic}"


LESSONS = (
    Lesson(
        "00",
        "start_here",
        "Start here",
        "Check your machine, meet the pictures, and learn how exercises work",
        "Python and PyTorch: you have written a training loop once",
        "not needed",
    ),
    Lesson(
        "01",
        "low_rank_maths",
        "Low-rank maths",
        "Read a change by its singular values, and say what Serial LoRA can and cannot express",
        "Lesson 00",
        "not needed",
    ),
    Lesson(
        "02",
        "parameter_count",
        "The parameter count, proved",
        "Prove that Serial LoRA trains a quarter of LoRA's parameters, and know when it does not",
        "Lesson 00",
        "not needed",
    ),
    Lesson(
        "03",
        "build_serial_lora",
        "Build Serial LoRA",
        "Write the adapter, place it in an attention block, and prove that it does what it should",
        "Lesson 02",
        "not needed",
    ),
    Lesson(
        "04",
        "clip_few_shot",
        "CLIP with a few shots",
        "Adapt CLIP to a few pictures a class, and compare Serial LoRA with LoRA honestly",
        "Lesson 03",
        "faster at paper scale; not needed at tiny scale",
    ),
    Lesson(
        "05",
        "lora_plus",
        "LoRA+: a learning rate for each matrix",
        "Give A and B their own learning rates, and find out where that helps and where it hurts",
        "Lesson 04",
        "not needed",
    ),
    Lesson(
        "06",
        "sam_segmentation",
        "SAM: few-shot segmentation, measured by Dice",
        "Adapt SAM to new drawings, look at every mask, and read a Dice for what it says",
        "Lessons 03 and 04",
        "faster at paper scale; not needed at tiny scale",
    ),
    Lesson(
        "07",
        "sd3_style",
        "Stable Diffusion 3: tuning a style",
        "Tune a style with rectified flow, and read FID, KID and CLIP-Score for what they say",
        "Lessons 03 and 04",
        "needed at paper scale; not needed at tiny scale",
    ),
    Lesson(
        "08",
        "singular_values",
        "Inside an adapter: singular values",
        "See what an adapter learned: spectra, effective rank, and angles between subspaces",
        "Lessons 01 and 04",
        "not needed",
    ),
    Lesson(
        "09",
        "rank_and_claims",
        "Rank, budget and the paper's claims",
        "Choose a rank, compare at equal budget, and check a paper claim by claim",
        "Lessons 02 and 04 to 08",
        "not needed",
    ),
    Lesson(
        "10",
        "your_own",
        "Your own model and pictures",
        "Take your own pictures and model from a folder to an adapter file to a merged model",
        "Lessons 03 and 04",
        "faster for large models; not needed here",
    ),
)


def find_lesson(number: str) -> Lesson:
    """Return the lesson with this number; ``"2"`` and ``"02"`` are the same lesson."""
    for lesson in LESSONS:
        if lesson.number == f"{number}".zfill(2):
            return lesson
    known = ", ".join(lesson.number for lesson in LESSONS)
    raise SerialLoRAError(f"There is no lesson {number!r}; the lessons are {known}.")


def read_measured(path: Path = MEASURED) -> dict[str, dict]:
    """What the builder measured, by lesson number: seconds, peak_mb, cores, date, torch."""
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def whole_minutes(measured: dict) -> int:
    """The minutes that a lesson runs, rounded up to what a reader should plan for."""
    return math.ceil(measured["seconds"] / 60)


def say_minutes(measured: dict | None) -> str:
    """Those minutes in words, or that nobody has measured them yet."""
    if not measured:
        return "not measured yet"
    minutes = whole_minutes(measured)
    return "less than 1 minute" if minutes <= 1 else f"about {minutes} minutes"


def say_memory(measured: dict | None) -> str:
    """Peak memory of the lesson's kernel, rounded up to the next tenth of a GB."""
    if not measured:
        return "not measured yet"
    return f"{-(-measured['peak_mb'] // 100) / 10:.1f} GB"


def lesson_card(number: str) -> None:
    """Show a lesson's prerequisites, running time and memory as measured; for its first cells."""
    from IPython.display import Markdown, display

    display(Markdown(card_text(number)))


def card_text(number: str) -> str:
    """The card of a lesson in Markdown."""
    lesson = find_lesson(number)
    measured = read_measured().get(lesson.number)
    cores = measured["cores"] if measured else 2
    rows = [
        ("Before this lesson", lesson.prerequisites),
        (f"Time to run, {cores} CPU cores", say_minutes(measured)),
        ("Memory", say_memory(measured)),
        ("GPU", lesson.gpu),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| Lesson {lesson.number} | {lesson.title} |\n|---|---|\n{table}"


def lesson_list() -> None:
    """Show all lessons with links that work from inside a notebook; for lesson 00."""
    from IPython.display import Markdown, display

    display(Markdown(list_text()))


def list_text() -> str:
    """That list in Markdown."""
    measured = read_measured()
    rows = [
        f"| [{lesson.number} {lesson.title}]({lesson.stem}.ipynb) | {lesson.goal} "
        f"| {say_minutes(measured.get(lesson.number))} |"
        for lesson in LESSONS
    ]
    head = ["| Lesson | What you can do afterwards | Runs in (2 CPU cores) |", "|---|---|---|"]
    return "\n".join([*head, *rows])


def lesson_table() -> str:
    """The table of lessons in Markdown, with links to the notebook and to the solved one."""
    measured = read_measured()
    lines = [
        "| Lesson | What you can do afterwards | Runs in (2 CPU cores) | Memory | Solved |",
        "|---|---|---|---|---|",
    ]
    for lesson in LESSONS:
        numbers = measured.get(lesson.number)
        lines.append(
            f"| [{lesson.number} {lesson.title}](notebooks/{lesson.stem}.ipynb) | {lesson.goal} "
            f"| {say_minutes(numbers)} | {say_memory(numbers)} "
            f"| [solved](solutions/{lesson.stem}.ipynb) |"
        )
    return "\n".join(lines)


def with_table(text: str) -> str:
    """Return ``text`` with the present table between its two marker lines."""
    return put_between(text, BEGIN, END, lesson_table())


def put_between(text: str, begin: str, end: str, part: str) -> str:
    """Return a page with ``part`` in the place of what stands between two marker lines.

    Raises:
        SerialLoRAError: a marker line is missing.
    """
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SerialLoRAError(f"The page needs the two lines {begin} and {end}.")
    return f"{head}{begin}\n{part}\n{end}{tail}"


def renew(page: Path, renewed: Callable[[str], str], write: bool, command: str) -> int:
    """Write a page anew, or say that it is stale: what ``--write`` and ``--check`` do.

    Args:
        page: the page.
        renewed: gives the text that the page should have, from the text that it has.
        write: write it; otherwise only compare.
        command: what mends a stale page, without the page.

    Returns:
        The exit code: 0, 1 for a stale page, 2 for one that cannot be read, made or written.
    """
    try:
        text = page.read_text(encoding="utf-8")
        wanted = renewed(text)
        if write:
            write_whole(page, wanted.encode())
    except (OSError, SerialLoRAError) as error:
        print(error, file=sys.stderr)
        return 2
    if not write and text != wanted:
        print(f"{page} is stale: run `{command} --write {page}`.", file=sys.stderr)
        return 1
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Print the table, write it into a page, or check the page; 1 when the page is stale."""
    parser = argparse.ArgumentParser(prog="python -m serial_lora_course.checks.lessons")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="update the table in this page")
    parser.add_argument("--check", type=Path, metavar="PAGE", help="exit with 1 if it is stale")
    options = parser.parse_args(arguments)
    page = options.write or options.check
    if page is None:
        print(lesson_table())
        return 0
    return renew(page, with_table, bool(options.write), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
