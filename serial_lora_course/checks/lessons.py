"""The table of lessons: what each is for, how long it runs, how much memory it takes.

Titles and goals are written here and nowhere else; minutes and memory are measured when
``python -m tools.notebooks build`` executes a lesson (and its minutes on an older processor when
``... avx2`` does), and kept in ``serial_lora_course/assets/lessons_measured.json``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from IPython.display import Markdown, display

from serial_lora.errors import SerialLoRAError

MEASURED = Path(__file__).resolve().parents[1] / "assets" / "lessons_measured.json"


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
        "choosing_a_rank",
        "Choosing a rank, with statistics",
        "Choose a rank by a rule, compare at equal budget, and say how sure you are",
        "Lessons 02 and 04",
        "not needed",
    ),
    Lesson(
        "10",
        "many_adapters",
        "Many adapters on one base",
        "Switch, add and chain adapters, and give each sample of a batch its own",
        "Lessons 03 and 04",
        "not needed",
    ),
    Lesson(
        "11",
        "where_it_stands",
        "Where the method stands",
        "Plan a study that can answer, correct for many questions, and read a front of methods",
        "Lessons 03 and 09",
        "not needed",
    ),
    Lesson(
        "12",
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
    """What the builder measured, by lesson number.

    ``seconds``, ``avx2_seconds`` (on a processor that has nothing newer than AVX2, simulated),
    ``peak_mb``, ``cores``, ``instructions`` (the newest that torch used), date, torch.
    """
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def whole_minutes(measured: dict, which: str = "seconds") -> int:
    """The minutes that a lesson runs, rounded up to what a reader should plan for."""
    return math.ceil(measured[which] / 60)


def say_minutes(measured: dict | None, which: str = "seconds") -> str:
    """Those minutes in words, or that nobody has measured them yet."""
    if not measured or which not in measured:
        return "not measured yet"
    minutes = whole_minutes(measured, which)
    return "less than 1 minute" if minutes <= 1 else f"about {minutes} minutes"


def say_machine(measured: dict | None) -> str:
    """What a lesson was measured on, as far as that is known."""
    facts = measured or {}
    machine = f"{facts.get('cores', 2)} CPU cores"
    return f"{machine}, {facts['instructions']}" if "instructions" in facts else machine


def say_memory(measured: dict | None) -> str:
    """Peak memory of the lesson's kernel, rounded up to the next tenth of a GB."""
    if not measured:
        return "not measured yet"
    return f"{-(-measured['peak_mb'] // 100) / 10:.1f} GB"


def lesson_card(number: str) -> None:
    """Show a lesson's prerequisites, running time and memory as measured; for its first cells."""
    display(Markdown(card_text(number)))


def card_text(number: str) -> str:
    """The card of a lesson in Markdown."""
    lesson = find_lesson(number)
    measured = read_measured().get(lesson.number)
    rows = [
        ("Before this lesson", lesson.prerequisites),
        (f"Time to run, {say_machine(measured)}", say_minutes(measured)),
        ("The same with AVX2 alone", say_minutes(measured, "avx2_seconds")),
        ("Memory", say_memory(measured)),
        ("GPU", lesson.gpu),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| Lesson {lesson.number} | {lesson.title} |\n|---|---|\n{table}"


def lesson_list() -> None:
    """Show all lessons with links that work from inside a notebook; for lesson 00."""
    display(Markdown(list_text()))


def list_text() -> str:
    """That list in Markdown."""
    measured = read_measured()
    rows = [
        f"| [{lesson.number} {lesson.title}]({lesson.stem}.ipynb) | {lesson.goal} "
        f"| {say_minutes(measured.get(lesson.number))} |"
        for lesson in LESSONS
    ]
    machine = say_machine(next(iter(measured.values()), None))
    head = [f"| Lesson | What you can do afterwards | Runs in ({machine}) |", "|---|---|---|"]
    return "\n".join([*head, *rows])
