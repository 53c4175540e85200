"""What the study found, from its records and outcomes alone: no model is run.

An arm's gain is its measure minus the unadapted model's on the same test pictures, a mean over sets;
what it forgot is the same of the pictures that pretraining knew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from serial_lora_course.labs.records import Record
from serial_lora_course.study.found import COLUMNS, Answer, Found, with_step_times
from serial_lora_course.study.labs import STUDIES
from serial_lora_course.study.plan import PLANS, Arm, LabPlan, questions_of
from serial_lora_course.study.runs import Study, final_runs, least_of, least_runs, run_of
from serial_lora_course.study.sets import VALIDATION, group_of
from serial_lora_course.study.statistics import (
    KEPT_SHARE,
    holm,
    kept_gain,
    sets_like_these,
    these_sets,
)

Outcomes = dict[str, np.ndarray]
"""Set -> (seeds, pictures)."""


@dataclass(frozen=True)
class Results:
    """A lab's finished arms.

    Attributes:
        study: where records and outcomes are.
        rates: arm's name -> the rate that was chosen, of arms all of whose runs are there.
    """

    study: Study
    rates: dict[str, float]

    @classmethod
    def of(cls, study: Study) -> Results:
        """What is there by now; nothing is run."""
        rates = {}
        for arm in study.plan.arms:
            tried = {
                run.rate for run in map(_run(study.plan), study.done.values()) if _is(run, arm)
            }
            for rate in tried:
                if all(run.name in study.done for run in final_runs(study.plan, arm, rate)):
                    rates[arm.name] = rate
        return cls(study, rates)

    def records(self, arm: Arm) -> list[Record]:
        runs = final_runs(self.study.plan, arm, self.rates[arm.name])
        return [self.study.done[run.name] for run in runs]

    def outcomes(self, arm: Arm, measure: str) -> Outcomes:
        found: dict[str, list[np.ndarray]] = {}
        for run in final_runs(self.study.plan, arm, self.rates[arm.name]):
            found.setdefault(run.dataset, []).append(self.study.outcomes(run.name)[measure])
        return {name: np.stack(each).astype(np.float64) for name, each in found.items()}

    def base(self, dataset: str, measure: str) -> np.ndarray:
        return self.study.outcomes(f"base_{dataset}")[measure].astype(np.float64)

    def gain(self, arm: Arm, measure: str) -> Outcomes:
        """In hundredths of the measure."""
        return {
            name: 100 * (each - self.base(name, measure))
            for name, each in self.outcomes(arm, measure).items()
        }

    def contrast(self, one: Arm, other: Arm, kept: bool) -> Outcomes:
        """On the seeds that both ran, which saw the same training pictures; in hundredths."""
        measure = self.study.plan.measure
        mine, theirs, contrast = self.outcomes(one, measure), self.outcomes(other, measure), {}
        for name in mine:
            seeds = min(len(mine[name]), len(theirs[name]))
            a, b = mine[name][:seeds], theirs[name][:seeds]
            contrast[name] = 100 * (kept_gain(a, b, self.base(name, measure)) if kept else a - b)
        return contrast


def _run(plan: LabPlan):
    return lambda record: run_of(record, plan)


def _is(run, arm: Arm) -> bool:
    return run.arm.name == arm.name and not run.dataset.endswith(VALIDATION)


def arms_table(results: Results) -> pd.DataFrame:
    """A row for each finished arm: size, chosen rate, gain, what it forgot, time and memory."""
    plan, rows = results.study.plan, []
    reference = next((arm for arm in plan.arms if arm.name == plan.reference), None)
    for arm in plan.arms:
        if arm.name not in results.rates:
            continue
        records = results.records(arm)
        gain = sets_like_these(results.gain(arm, plan.measure))
        above = None
        if plan.reference in results.rates:
            above = sets_like_these(results.contrast(arm, reference, kept=False))
        kept, before = f"kept_{plan.measure}", f"base_kept_{plan.measure}"
        changes = [r.measures[kept] - r.measures[before] for r in records if kept in r.measures]
        rows.append(
            {
                "arm": arm.name,
                "title": arm.title(STUDIES[plan.lab].unit),
                "method": arm.method,
                "parameters": records[0].sizes["parameters"],
                "rate": results.rates[arm.name],
                "gain": gain.mean,
                "half-width": gain.half_width,
                "above LoRA": above.mean if above else float("nan"),
                "above LoRA, half-width": above.half_width if above else float("nan"),
                "change of what it knew": 100 * np.mean(changes) if changes else float("nan"),
                "activations, MB": _median(records, "activation_bytes") / 1e6,
            }
        )
    return with_step_times(plan.lab, pd.DataFrame(rows, columns=COLUMNS))


def _median(records: Sequence[Record], size: str) -> float:
    """Of the runs whose records have it."""
    found = [record.sizes[size] for record in records if size in record.sizes]
    return float(np.median(found)) if found else float("nan")


def answers(several: Sequence[Results]) -> list[Answer]:
    """Every question of every lab, with Holm's correction over them all."""
    found = []
    for results in several:
        study, plan = results.study, results.study.plan
        arms = {arm.name: arm for arm in plan.arms}
        for question in questions_of(plan):
            both = [arms[question.one], arms[question.other]]
            runs = [run for arm in both for run in least_of(plan, arm)]
            unit = plan.unit + f", above {KEPT_SHARE:.0%} of the gain" * question.kept
            answer = Answer(plan.lab, question.asks, unit, sum(map(study.has, runs)), len(runs))
            if {question.one, question.other} <= set(results.rates):
                outcomes = results.contrast(*both, question.kept)
                like = sets_like_these(outcomes)
                groups = sets_like_these(_grouped(outcomes))
                some = {"like": like, "these": these_sets(outcomes), "groups": groups}
                answer = replace(answer, **some, p=like.p)
            found.append(answer)
    adjusted = holm([answer.p for answer in found])
    return [replace(answer, p=p) for answer, p in zip(found, adjusted, strict=True)]


def _grouped(outcomes: Outcomes) -> Outcomes:
    """Group -> the means of its sets."""
    means: dict[str, list[float]] = {}
    for name, each in outcomes.items():
        means.setdefault(group_of(name), []).append(each.mean())
    return {group: np.array(each) for group, each in means.items()}


def found_by(several: Sequence[Results]) -> Found:
    """What is told of the study: runs, finished arms, answers."""
    labs = {results.study.plan.lab: results for results in several}
    return Found(
        {
            lab: (len(results.study.done), least_runs(results.study.plan))
            for lab, results in labs.items()
        },
        {lab: arms_table(results) for lab, results in labs.items()},
        answers(several),
    )


def found_in_what_is_packed() -> Found:
    """The same from the records that travel with the course."""
    with TemporaryDirectory() as folder:
        return found_by([Results.of(Study(plan, Path(folder))) for plan in PLANS.values()])


def answers_table(found: Sequence[Answer]) -> pd.DataFrame:
    """A row for each question and lab."""
    return pd.DataFrame(
        {
            "lab": answer.lab,
            "asks": answer.asks,
            "verdict": answer.verdict,
            "found": str(answer),
            "p, Holm": answer.p if answer.like else float("nan"),
        }
        for answer in found
    )


def choices_table(study: Study) -> pd.DataFrame:
    """Every rate that was tried: its mean on validation pictures, and what it cost."""
    rows = []
    for record in study.done.values():
        run = run_of(record, study.plan)
        if run.dataset.endswith(VALIDATION):
            reached = record.measures[study.plan.chosen_by]
            rows.append((run.arm.name, run.rate, reached, record.seconds))
    table = pd.DataFrame(rows, columns=["arm", "rate", "reached", "seconds"])
    return table.groupby(["arm", "rate"], sort=False).agg(
        sets=("reached", "size"), reached=("reached", "mean"), seconds=("seconds", "sum")
    )


def progress(study: Study) -> str:
    """How far a lab is."""
    done = len(study.done)
    hours = sum(record.seconds for record in study.done.values()) / 3600
    return f"{study.plan.lab}: {done} of at least {least_runs(study.plan)} runs, {hours:.1f} hours of training"
