"""What the study found, as `python -m study pack` wrote it; and how an interval follows from sets and seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.measures.differences import paired
from serial_lora_course.measures.intervals import CONFIDENCE, Interval, verdict

FOUND = Path(__file__).resolve().parents[2] / "assets" / "study" / "found.json"
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
    "step time",
)
"""Of a lab's arms (methods at a size).

``arm`` is the name in plan and records, ``title`` what people read. ``above LoRA`` is the difference from the
lab's reference arm, LoRA at rank 16 (SD3: 12), on the seeds that both ran; the step time is the reference
arm's times so many. Gains and differences are in the lab's unit, with half of their 95% intervals over sets.
"""


@dataclass(frozen=True)
class Answer:
    """What was found of one question in one lab.

    Attributes:
        unit: of the intervals, in words.
        like, these: intervals for sets like these, and for these sets.
        groups: as ``like``, with sets that show the same things counted as one.
        p: of ``like``, after Holm's correction over all questions of all labs.
    """

    lab: str
    asks: str
    unit: str
    like: Interval
    these: Interval
    groups: Interval
    p: float

    @property
    def verdict(self) -> str:
        """Of sets like these, with Holm's correction."""
        return verdict(self.like) if self.p < 1 - CONFIDENCE else "open"


@dataclass(frozen=True)
class Found:
    """The study, by lab.

    Attributes:
        runs: how many there were.
        units: of a gain, in words.
        arms: a row an arm, with `COLUMNS`.
        answers: every question of every lab.
    """

    runs: Mapping[str, int]
    units: Mapping[str, str]
    arms: Mapping[str, pd.DataFrame]
    answers: Sequence[Answer]

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Found:
        """From what the file holds."""
        numbers = dict.fromkeys(COLUMNS[3:], float)
        arms = {lab: pd.DataFrame(rows, columns=COLUMNS) for lab, rows in kept["arms"].items()}
        intervals = ("like", "these", "groups")
        answers = [
            Answer(**row | {name: Interval(**row[name]) for name in intervals})
            for row in kept["answers"]
        ]
        arms = {lab: table.astype(numbers) for lab, table in arms.items()}
        return cls(kept["runs"], kept["units"], arms, answers)

    @property
    def comparable(self) -> dict[str, pd.DataFrame]:
        """The arms that had the same amount of data."""
        return {lab: arms[~arms["arm"].str.contains("-of-")] for lab, arms in self.arms.items()}


def load_found() -> Found:
    """What travels with the course."""
    return Found.of(json.loads(FOUND.read_text("utf-8")))


def questions_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """A row a question and lab: both intervals, the number of sets, Holm's p, and the verdict."""
    return pd.DataFrame(
        {
            "Lab": answer.lab.upper(),
            "Question": answer.asks,
            "For sets like these": f"{answer.like} {answer.unit}",
            "For these sets": str(answer.these),
            "Sets": answer.like.count,
            "p, Holm": "< 0.001" if answer.p < 0.001 else f"{answer.p:.3f}",
            "Verdict": answer.verdict,
        }
        for answer in answers
    )


def verdicts_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """How many questions of each lab got which verdict."""
    table = pd.DataFrame([(answer.lab.upper(), answer.verdict) for answer in answers])
    return pd.crosstab(table[0], table[1]).rename_axis(index="Lab", columns=None)


def groups_frame(answers: Sequence[Answer]) -> pd.DataFrame:
    """The questions with a verdict, with each set by itself and with sets that show the same counted as one."""
    return pd.DataFrame(
        {
            "Lab": answer.lab.upper(),
            "Question": answer.asks,
            "sets": f"{answer.like} ({answer.like.count})",
            "groups of sets": f"{answer.groups} ({answer.groups.count})",
        }
        for answer in answers
        if answer.verdict != "open"
    )


# --------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Spread:
    """What makes differences between two methods vary.

    Attributes:
        between: standard deviation of the sets' own means, for endless seeds.
        within: that of one run's difference about its set's.
    """

    between: float
    within: float

    def half_width(self, sets: int, seeds: int) -> float:
        """Of the 95% interval that a study with so many can expect."""
        variance = self.between**2 + self.within**2 / seeds
        return Interval(0.0, math.sqrt(variance / sets), sets - 1, sets).half_width


def earlier_spread(lab: str, measure: str) -> Spread:
    """Of Serial LoRA minus LoRA with the most data, in hundredths, in the course's records."""
    runs = frame(shipped_records(lab))
    most = runs[runs["amount"] == runs["amount"].max()]
    difference = 100 * paired(most, "serial_lora", "lora", measure)
    table = difference.groupby(["dataset", "seed"]).mean().unstack("seed")
    within = table.var(axis=1).mean()
    between = max(0.0, table.mean(axis=1).var() - within / table.shape[1])
    return Spread(math.sqrt(between), math.sqrt(within))


def plan_frame(spread: Spread, sets: Sequence[int], seeds: Sequence[int]) -> pd.DataFrame:
    """The half-width that a study is planned with: sets (rows), seeds (columns)."""
    return pd.DataFrame(
        {f"seeds: {few}": {many: spread.half_width(many, few) for many in sets} for few in seeds}
    ).rename_axis("sets")


def false_positives(
    records: Sequence[Mapping[str, Sequence[float]]],
    interval: Callable[[Mapping[str, Sequence[float]]], tuple[float, float]],
) -> float:
    """In which share of made-up records an interval (mean, half-width) leaves 0 outside."""
    return float(np.mean([abs(mean) > half for mean, half in map(interval, records)]))
