"""What the study found, from its records and outcomes alone: no model is run.

An arm's gain is its measure minus the unadapted model's on the same test pictures, a mean over sets;
what it forgot is the same of the pictures that pretraining knew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from serial_lora_course.lessons.l09_trial.tables import COLUMNS, Answer
from serial_lora_course.measures.intervals import holm, sets_like_these, these_sets
from study.labs import STUDIES
from study.plan import CORNERS, DESCRIBED, LATER, questions_of
from study.results import PACKED, Results
from study.sets import group_of

KEPT_SHARE = 0.9
"""Of LoRA's gain over the unadapted model: what is called keeping it."""
Outcomes = dict[str, np.ndarray]
"""Set -> (seeds, pictures)."""


class Found:
    """What a lab's finished arms came to.

    Attributes:
        runs: name of an arm all of whose runs are there -> the names of those that count, by seed and set.
    """

    def __init__(self, results: Results) -> None:
        self.results, self.plan = results, results.plan
        self.runs: dict[str, list[str]] = {}
        for arm in self.plan.arms:
            if results.rates_tried(arm):
                runs = [run.name for run in results.final_runs(arm)]
                if results.records.keys() >= set(runs):
                    self.runs[arm.name] = runs

    def outcomes(self, arm: str) -> Outcomes:
        """What each test picture came to, in hundredths of the measure."""
        found: dict[str, list[np.ndarray]] = {}
        for name in self.runs[arm]:
            values = self.results.outcomes(name)[self.plan.measure]
            found.setdefault(self.results.records[name].dataset, []).append(values)
        return {name: 100 * np.stack(each).astype(float) for name, each in found.items()}

    def base(self, dataset: str) -> np.ndarray:
        """The same of the unadapted model, (pictures,)."""
        return 100 * self.results.outcomes(f"base_{dataset}")[self.plan.measure].astype(float)

    def gain(self, arm: str) -> Outcomes:
        return {name: each - self.base(name) for name, each in self.outcomes(arm).items()}

    def contrast(self, one: str, other: str, kept: bool = False) -> Outcomes:
        """One arm minus another, on the seeds that both ran, which saw the same training pictures.

        Args:
            kept: whether it is the first one's gain minus `KEPT_SHARE` of the other's.
        """
        mine, theirs, found = self.outcomes(one), self.outcomes(other), {}
        for name in mine:
            seeds = min(len(mine[name]), len(theirs[name]))
            a, b = mine[name][:seeds], theirs[name][:seeds]
            found[name] = kept_gain(a, b, self.base(name)) if kept else a - b
        return found


def kept_gain(method: np.ndarray, lora: np.ndarray, base: np.ndarray) -> np.ndarray:
    """How far a method is above 90% of LoRA's gain, on each picture: a plain contrast of outcomes.

    Args:
        method, lora: (seeds, pictures).
        base: (pictures,) of the unadapted model.
    """
    return (method - base) - KEPT_SHARE * (lora - base)


def arms_table(found: Found) -> pd.DataFrame:
    """A row for each finished arm, with `COLUMNS`."""
    plan, rows = found.plan, []
    steps = json.loads((PACKED / "steps.json").read_text("utf-8"))[plan.lab]["ratios"]
    kept, before = f"kept_{plan.measure}", f"base_kept_{plan.measure}"
    for arm in (each for each in plan.arms if each.name in found.runs):
        records = [found.results.records[name] for name in found.runs[arm.name]]
        gain = sets_like_these(found.gain(arm.name))
        above = sets_like_these(found.contrast(arm.name, plan.reference))
        changes = [r.measures[kept] - r.measures[before] for r in records if kept in r.measures]
        row = {
            "arm": arm.name,
            "title": arm.title(STUDIES[plan.lab].unit),
            "method": arm.method,
            "parameters": records[0].sizes["parameters"],
            "rate": records[0].settings["lr"],
            "gain": gain.mean,
            "half-width": gain.half_width,
            "above LoRA": above.mean,
            "above LoRA, half-width": above.half_width,
            "change of what it knew": 100 * np.mean(changes) if changes else None,
            "activations, MB": np.median([r.sizes["activation_bytes"] for r in records]) / 1e6,
            "step time": steps.get(arm.name),
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def answers(several: Sequence[Found]) -> list[Answer]:
    """Every question whose arms are finished, with Holm's correction over all questions of all labs."""
    found, asked = [], 0
    for each in several:
        for question in questions_of(each.plan):
            asked += 1
            if {question.one, question.other} <= set(each.runs):
                outcomes = each.contrast(question.one, question.other, question.kept)
                like, groups = sets_like_these(outcomes), sets_like_these(_grouped(outcomes))
                unit = each.plan.unit + f", above {KEPT_SHARE:.0%} of the gain" * question.kept
                about = (each.plan.lab, question.asks, unit)
                found.append(Answer(*about, like, these_sets(outcomes), groups, like.p))
    # One that is not answered yet counts as 1: when its runs come, no early verdict is taken back.
    adjusted = holm([answer.p for answer in found] + [1.0] * (asked - len(found)))
    return [replace(answer, p=p) for answer, p in zip(found, adjusted, strict=False)]


def _grouped(outcomes: Outcomes) -> Outcomes:
    """Group of sets that show the same concepts -> the means of its sets."""
    means: dict[str, list[float]] = {}
    for name, each in outcomes.items():
        means.setdefault(group_of(name), []).append(each.mean())
    return {group: np.array(each) for group, each in means.items()}


def _described(found: Found) -> list[dict[str, Any]]:
    """The differences of `DESCRIBED` whose arms are finished."""
    return [
        {"lab": found.plan.lab, "one": one, "other": other}
        | {"like": asdict(sets_like_these(found.contrast(one, other)))}
        for one, other in DESCRIBED
        if {one, other} <= set(found.runs)
    ]


def _rates(found: Found) -> dict[str, dict[str, float]]:
    """Arm -> rate -> what it reached on the validation pictures, times 100."""
    arms = [arm for arm in found.plan.arms if arm.name in found.runs]
    tried = {arm.name: sorted(found.results.rates_tried(arm).items()) for arm in arms}
    return {arm: {f"{rate:.3g}": 100 * at for rate, at in each} for arm, each in tried.items()}


def _sets(found: Found) -> dict[str, dict[str, float]]:
    """Arm -> set -> its mean there over seeds and pictures, in hundredths, of `CORNERS` and `LATER`."""
    arms = [*CORNERS, *(f"{method}-{size}" for method, size in LATER)]
    outcomes = {arm: found.outcomes(arm) for arm in arms if arm in found.runs}
    return {arm: {name: each.mean() for name, each in its.items()} for arm, its in outcomes.items()}


def as_json(several: Sequence[Found]) -> dict[str, Any]:
    """What `serial_lora_course.lessons.l09_trial.tables.load_found` reads."""
    labs = {found.plan.lab: found for found in several}
    arms = {
        lab: arms_table(found).to_json(orient="records", double_precision=15)
        for lab, found in labs.items()
    }
    return {
        "units": {lab: found.plan.unit for lab, found in labs.items()},
        "runs": {lab: len(found.results.records) for lab, found in labs.items()},
        "arms": {lab: json.loads(rows) for lab, rows in arms.items()},
        "answers": [asdict(answer) for answer in answers(several)],
        "described": [row for found in several for row in _described(found)],
        "rates": {lab: _rates(found) for lab, found in labs.items()},
        "sets": {lab: _sets(each) for lab, each in labs.items() if each.runs.keys() >= {*CORNERS}},
    }
