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
        "A frozen CLIP that a small add-on steers",
        "Python and PyTorch: you have written a training loop once",
    ),
    Lesson(
        "01",
        "low_rank_maths",
        "l01_maths",
        "Low-rank maths",
        "LoRA itself, and what one shared pair can and cannot express",
        "Lesson 00",
    ),
    Lesson(
        "02",
        "parameter_count",
        "l02_count",
        "The count, proved",
        "LoRA's four to one, counted on real models",
        "Lesson 00",
    ),
    Lesson(
        "03",
        "build_serial_lora",
        "l03_build",
        "Build Serial LoRA",
        "The adapter, its place, its merge, and `inject` itself",
        "Lesson 00",
    ),
    Lesson(
        "04",
        "clip_few_shot",
        "l04_clip",
        "CLIP with a few shots",
        "A classifier from CLIP, and the training loop that adapts it",
        "Lessons 01 and 03",
    ),
    Lesson(
        "05",
        "sam_segmentation",
        "l05_sam",
        "SAM: masks of a new kind of picture",
        "SAM's preprocessing, Dice, and the training loop, step by step",
        "Lesson 04",
    ),
    Lesson(
        "06",
        "sd3_style",
        "l06_sd3",
        "Stable Diffusion 3: a new style",
        "Flow, training step, sampler and FID, written by you",
        "Lesson 04",
    ),
    Lesson(
        "07",
        "lora_plus",
        "l07_lora_plus",
        "LoRA+: whose rate is it?",
        "An optimizer with one rate for A and one for B, and a fair test of it",
        "Lesson 04",
    ),
    Lesson(
        "08",
        "how_sure",
        "l08_how_sure",
        "How sure are you?",
        "An interval, a margin, and a rule that chooses a rank",
        "Lesson 04",
    ),
    Lesson(
        "09",
        "paper_on_trial",
        "l09_trial",
        "The paper on trial",
        "RepAdapter from your own pair, and a verdict on each claim",
        "Lessons 03 and 08",
    ),
    Lesson(
        "10",
        "inside_an_adapter",
        "l10_inside",
        "Inside an adapter",
        "Spectrum, effective rank, and angles beside a second seed",
        "Lessons 01 and 04",
    ),
    Lesson(
        "11",
        "many_adapters",
        "l11_many",
        "Many adapters on one base",
        "Sums and chains of adapters, and a batch in which each sample has its own",
        "Lesson 04",
    ),
    Lesson(
        "12",
        "your_own",
        "l12_your_own",
        "Your own model and pictures",
        "A split that does not leak, a linear probe, an adapter, a merge that is proved",
        "Lesson 04",
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
    """Show what a lesson asks for, the lessons before it, its minutes, and which run its text describes."""
    lesson = find_lesson(number)
    minutes = read_measured().get(lesson.number, {}).get("minutes", "?")
    card = (
        f"*Before this lesson: {lesson.prerequisites}. It takes about {minutes} minutes. The text "
        "describes the saved run: change a cell, and your numbers will differ.*"
    )
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
