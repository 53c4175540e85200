"""What the study found so far, as `python -m serial_lora_course.study pack` wrote it: no run is read.

Whoever tells of the study (ledger, lesson, documents) reads this file; how it is computed from records and
outcomes stands in `serial_lora_course.study.tables`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from serial_lora_course.study.statistics import CONFIDENCE, Interval, verdict

PACKED = Path(str(files("serial_lora_course"))) / "assets" / "study"
FOUND, STEPS, REPEATED = "found.json", "steps.json", "repeated.json"
FRONT, INTERVALS = "front.png", "answers.png"
STEP_TIME = "step time"
COLUMNS = (
    "arm",
    "title",
    "method",
    "parameters",
    "rate",
    "gain",
    "half-width",
    "above LoRA",
    "above LoRA, half-width",
    "change of what it knew",
    "activations, MB",
    STEP_TIME,
)
"""Of a lab's finished arms; `serial_lora_course.study.tables.arms_table` makes them.

``arm`` is the name in plan and records, ``title`` what people read, ``method`` the name in the labs' table.
``above LoRA`` is the difference from the plan's reference arm, on the seeds that both ran; bars of
differences are many times shorter than those of gains, since sets differ more than methods do. The
step time is the reference arm's times so many, as :func:`read_steps` has it; nan where it was not measured.
"""


def read_steps(file: Path | None = None) -> dict[str, Any]:
    """Lab -> its step times, as `python -m serial_lora_course.study steps` stored them; maybe none."""
    file = file or PACKED / STEPS
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def read_repeated() -> dict[str, Any]:
    """How far runs came out from the same runs done again, as `... study repeat` stored it."""
    return json.loads((PACKED / REPEATED).read_text("utf-8"))


def with_step_times(lab: str, arms: pd.DataFrame) -> pd.DataFrame:
    """A lab's arms, with what is stored of their step times."""
    ratios = read_steps().get(lab, {}).get("ratios", {})
    return arms.assign(**{STEP_TIME: arms["arm"].map(ratios).astype(float)})[[*COLUMNS]]


@dataclass(frozen=True)
class Answer:
    """What is known by now of one question in one lab.

    Attributes:
        unit: of the interval, in words.
        done, needed: runs of its two arms, where no rate has to be looked for further out.
        like, these: intervals for sets like these, and for these; None while runs are missing.
        p: Holm's, over all questions of all labs; one that is not answered yet counts as 1.
        groups: as ``like``, with groups of sets as the sample (`serial_lora_course.study.sets.group_of`).
    """

    lab: str
    asks: str
    unit: str
    done: int
    needed: int
    like: Interval | None = None
    these: Interval | None = None
    p: float = 1.0
    groups: Interval | None = None

    @property
    def verdict(self) -> str:
        """Of sets like these, with Holm's correction; empty while runs are missing."""
        if self.like is None:
            return ""
        return verdict(self.like) if self.p < 1 - CONFIDENCE else "open"

    def __str__(self) -> str:
        if self.like is None:
            return f"not decided yet: {self.done} of {self.needed} runs"
        return (
            f"{self.like} {self.unit} (95% interval for sets like these, of which there "
            f"are {self.like.count}; for these sets {self.these})"
        )


@dataclass(frozen=True)
class Found:
    """The study by now.

    Attributes:
        runs: lab -> runs that are there, and runs of the plan where no rates are widened.
        arms: lab -> a row for each finished arm, with `COLUMNS`.
        answers: every question of every lab.
    """

    runs: Mapping[str, tuple[int, int]]
    arms: Mapping[str, pd.DataFrame]
    answers: Sequence[Answer]

    @property
    def comparable(self) -> dict[str, pd.DataFrame]:
        """The finished arms that had the same amount of data, of labs that have some."""
        same = {lab: arms[~arms["arm"].str.contains("-of-")] for lab, arms in self.arms.items()}
        return {lab: arms for lab, arms in same.items() if len(arms)}

    @property
    def intervals(self) -> pd.DataFrame:
        """A row for each question and lab, for `serial_lora_course.figures.study.plot_answers`."""
        missing = (math.nan, math.nan)
        rows = [
            (a.lab, a.asks, a.unit, *((a.like.mean, a.like.half_width) if a.like else missing))
            for a in self.answers
        ]
        table = pd.DataFrame(rows, columns=["lab", "asks", "unit", "mean", "half-width"])
        return table.assign(verdict=[answer.verdict for answer in self.answers])

    def as_json(self) -> dict[str, Any]:
        """For :func:`read_found`."""
        arms = {
            lab: [_without_nan(row) for row in table.drop(columns=STEP_TIME).to_dict("records")]
            for lab, table in self.arms.items()
        }
        answers = [asdict(answer) for answer in self.answers]
        return {"runs": self.runs, "arms": arms, "answers": answers}


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    lost = {name for name, value in row.items() if isinstance(value, float) and math.isnan(value)}
    return {name: None if name in lost else value for name, value in row.items()}


def read_found(file: Path | None = None) -> Found:
    """What travels with the course."""
    kept = json.loads((file or PACKED / FOUND).read_text("utf-8"))
    numbers = dict.fromkeys(COLUMNS[3:], float)
    arms = {lab: pd.DataFrame(rows, columns=COLUMNS) for lab, rows in kept["arms"].items()}
    intervals = ("like", "these", "groups")
    answers = [
        Answer(**row | {name: row[name] and Interval(**row[name]) for name in intervals})
        for row in kept["answers"]
    ]
    runs = {lab: (done, needed) for lab, (done, needed) in kept["runs"].items()}
    arms = {lab: with_step_times(lab, table).astype(numbers) for lab, table in arms.items()}
    return Found(runs, arms, answers)
