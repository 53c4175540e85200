"""The table of lessons: what each is for, and what it takes.

Titles and what is built are written here and nowhere else; minutes and memory are counted and measured by
``python -m tools.notebooks build``, and kept in ``serial_lora_course/assets/lessons_measured.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from IPython.display import Markdown, display

from serial_lora.errors import SerialLoRAError

MEASURED = Path(__file__).resolve().parents[1] / "assets" / "lessons_measured.json"


@dataclass(frozen=True)
class Lesson:
    """One lesson: its two-digit number, file topic, folder, title, what one builds in it, and what to have done before."""

    number: str
    topic: str
    folder: str
    title: str
    builds: str
    prerequisites: str

    @property
    def stem(self) -> str:
        """The file name without its ending, such as ``02_parameter_count``."""
        return f"{self.number}_{self.topic}"


LESSONS = (
    Lesson(
        "00",
        "start_here",
        "l00_start",
        "Start here",
        "A frozen model that two thin matrices steer",
        "Python and PyTorch: you have written a training loop once",
    ),
    Lesson(
        "01",
        "low_rank_maths",
        "l01_maths",
        "Low-rank maths",
        "The serial pair that comes nearest to a change, and the gradient of B by hand",
        "Lesson 00",
    ),
    Lesson(
        "02",
        "parameter_count",
        "l02_count",
        "The parameter count, proved",
        "A count of what is trained, on real models, and the proof of LoRA's four to one",
        "Lesson 00",
    ),
    Lesson(
        "03",
        "build_serial_lora",
        "l03_build",
        "Build Serial LoRA",
        "The adapter, its place before attention, its merged weight, and probes that test them",
        "Lesson 02",
    ),
    Lesson(
        "04",
        "clip_few_shot",
        "l04_clip",
        "CLIP with a few shots",
        "A classifier from CLIP and a few pictures a class, beside LoRA with as many parameters",
        "Lesson 03",
    ),
    Lesson(
        "05",
        "lora_plus",
        "l07_lora_plus",
        "LoRA+: a learning rate for each matrix",
        "An optimizer with a rate for A and one for B, and a fair test of it",
        "Lesson 04",
    ),
    Lesson(
        "06",
        "sam_segmentation",
        "l05_sam",
        "SAM: few-shot segmentation, measured by Dice",
        "SAM's way in, Dice, the loss, and the adapter inside its windows",
        "Lessons 03 and 04",
    ),
    Lesson(
        "07",
        "sd3_style",
        "l06_sd3",
        "Stable Diffusion 3: tuning a style",
        "The path from picture to noise, guidance, and a score for what is drawn",
        "Lessons 03 and 04",
    ),
    Lesson(
        "08",
        "singular_values",
        "l10_inside",
        "Inside an adapter: singular values",
        "Three ways to look inside an adapter: its spectrum, effective rank, and angles",
        "Lessons 01 and 04",
    ),
    Lesson(
        "09",
        "choosing_a_rank",
        "l08_how_sure",
        "Choosing a rank, with statistics",
        "A rule that chooses a rank, and a verdict that says how sure it is",
        "Lessons 02 and 04",
    ),
    Lesson(
        "10",
        "many_adapters",
        "l11_many",
        "Many adapters on one base",
        "Sums and chains of adapters, and a batch in which each sample has its own",
        "Lessons 03 and 04",
    ),
    Lesson(
        "11",
        "where_it_stands",
        "l09_trial",
        "Where the method stands",
        "RepAdapter from your own pair, an interval over data sets, and the front of methods",
        "Lessons 03 and 09",
    ),
    Lesson(
        "12",
        "your_own",
        "l12_your_own",
        "Your own model and pictures",
        "A split that does not leak, a merge that is proved, an adapter in a model of your own",
        "Lessons 03 and 04",
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
    """What is known of lessons, by number: ``minutes`` (reading and exercises), and what a run took.

    A run's are ``seconds``, ``peak_mb`` (10^6 bytes, of the kernel), ``cores``, ``torch``.
    """
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def lesson_card(number: str) -> None:
    """Show what a lesson asks for: the lessons before it, and its minutes."""
    lesson = find_lesson(number)
    minutes = read_measured().get(lesson.number, {}).get("minutes", "?")
    card = f"*Before this lesson: {lesson.prerequisites}. It takes about {minutes} minutes.*"
    display(Markdown(card))


def lesson_list() -> None:
    """Show all lessons with links that work from inside a notebook; for lesson 00."""
    measured = read_measured()
    rows = [
        f"| [{lesson.number} {lesson.title}]({lesson.stem}.ipynb) | {lesson.builds} "
        f"| {measured.get(lesson.number, {}).get('minutes', '?')} |"
        for lesson in LESSONS
    ]
    head = ["| Lesson | What you build | Minutes |", "|---|---|---:|"]
    display(Markdown("\n".join([*head, *rows])))
