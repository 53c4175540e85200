"""What the study found, as `python -m study pack` wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

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

RIVALS = {
    "LoRA": [("lora-16", "serial_lora-16"), ("lora-12", "serial_lora-12")],
    "LoRA at a quarter": [("lora-4", "serial_lora-16"), ("lora-3", "serial_lora-12")],
    "before feed-forward": [("serial_ffn-12", "serial_lora-12")],
    "norms and biases": [("ln_bias-1", "serial_lora-16")],
    "through Q": [("serial_random-12", "serial_lora-12")],
    "before both": [("repadapter_two-42", "serial_lora-16")],
}
"""A rival, and Serial LoRA at the size that the study has it at: the first pair that a lab ran."""


@dataclass(frozen=True)
class Answer:
    """What was found of one question in one lab, in a unit that is given in words.

    Attributes:
        like, these, groups: intervals for sets like these; for these sets; as ``like``, with sets
            that show the same things counted as one.
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
    """The study, by lab: how many runs, a gain's unit in words, a row an arm with `COLUMNS`; all answers.

    Attributes:
        described: (lab, one arm, another) -> their difference for sets like these, without a test.
        rates: of a lab, a row a rate and a column an arm: what it reached on the validation pictures, times 100.
        sets: of a lab, a row a set and a column an arm of some that lesson 09 compares: what it reached there, times 100.
    """

    runs: Mapping[str, int]
    units: Mapping[str, str]
    arms: Mapping[str, pd.DataFrame]
    answers: Sequence[Answer]
    described: Mapping[tuple[str, str, str], Interval]
    rates: Mapping[str, pd.DataFrame]
    sets: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Found:
        """From what the file holds."""
        numbers, intervals = dict.fromkeys(COLUMNS[3:], float), ("like", "these", "groups")
        arms = {
            lab: pd.DataFrame(rows, columns=COLUMNS).astype(numbers)
            for lab, rows in kept["arms"].items()
        }
        answers = [
            Answer(**row | {name: Interval(**row[name]) for name in intervals})
            for row in kept["answers"]
        ]
        described = {
            (row["lab"], row["one"], row["other"]): Interval(**row["like"])
            for row in kept["described"]
        }
        rates = {
            lab: pd.DataFrame(tried).rename(index=float).sort_index()
            for lab, tried in kept["rates"].items()
        }
        sets = {lab: pd.DataFrame(reached) for lab, reached in kept["sets"].items()}
        return cls(kept["runs"], kept["units"], arms, answers, described, rates, sets)

    def whole(self, lab: str) -> pd.DataFrame:
        """The planned arms that had all the data, and adapters in every block; not the two that came later."""
        arms = self.arms[lab]
        return arms[~arms["arm"].str.contains("-of-|blocks|even-")].reset_index(drop=True)

    def above(self, lab: str, rival: str) -> tuple[float, float] | None:
        """How far a rival is above Serial LoRA of its size, and half of the interval, if a lab has both."""
        for one, other in RIVALS[rival]:
            if like := self.described.get((lab, one, other)):
                return like.mean, like.half_width
        return None


def verdicts(table: pd.DataFrame) -> Styler:
    """A table of verdicts, in colour where one is clear. No interval is corrected for how many there are."""
    inks = {"falls": "#a63f00", "holds": "#00704f"}
    look = table.style.set_caption("No interval is corrected for how many there are.").map(
        lambda text: f"color: {inks[text[:5]]}; font-weight: bold" if text[:5] in inks else ""
    )
    return look.set_properties(**{"white-space": "nowrap", "text-align": "left"})


def load_found() -> Found:
    """What travels with the course."""
    return Found.of(json.loads(FOUND.read_text("utf-8")))
