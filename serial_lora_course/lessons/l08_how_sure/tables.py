"""Tables of lesson 08; where one rests on an exercise, it takes the function that answers it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.lessons.l08_how_sure.evidence import (
    MEASURES,
    Evidence,
    Measure,
    intervals,
    paired,
    printed_scores,
    scores,
)
from serial_lora_course.measures.differences import mean_and_half, sample_of
from serial_lora_course.measures.intervals import half_width
from serial_lora_course.models.architectures import BASELINES

OTHERS = {"lora": "LoRA of equal rank", "lora_equal_budget": "LoRA at equal budget"}
"""What Serial LoRA is compared with."""
NAMES = {
    "accuracy": "CLIP accuracy",
    "dice": "SAM Dice",
    "fid": "SD3 FID",
    "style": "SD3 style share",
}
PRINTED = NAMES | {"style": "SD3 CLIP-Score"}
"""The same in the paper's tables."""


def sets_needed(difference: float, spread: float) -> int:
    """The fewest data sets whose mean has an interval no longer than a difference to each side.

    Args:
        spread: standard deviation of the data sets' own differences.
    """
    wanted = difference / spread
    return next(n for n in itertools.count(2) if half_width(n**-0.5, n - 1) <= wanted)


def sweep_table(sweep: pd.DataFrame) -> pd.DataFrame:
    """Serial LoRA minus the others: a row a rank, a column a comparison, a star where it is significant."""
    rows = {}
    for rank, runs in sweep.groupby("lab_rank"):
        for other, title in OTHERS.items():
            found = mean_and_half(paired(runs, MEASURES["accuracy"], "serial_lora", other))
            star = " *" if abs(found["mean"]) > found["half"] else ""
            rows.setdefault(rank, {})[title] = f"{found['mean']:+.2f} ± {found['half']:.2f}{star}"
    return pd.DataFrame(rows).T.rename_axis("rank")


PairedError = Callable[[Tensor, Tensor], tuple[float, float]]


def placements_table(matching_rank: Callable[..., int], width: int, rank: int) -> pd.DataFrame:
    """A row for each usual placement of LoRA: the rank of Serial LoRA that has no more parameters."""
    return pd.DataFrame(
        {
            f"LoRA of rank {rank} on": placement.name,
            "parameters in a block": placement.count(width, rank),
            "Serial LoRA's rank": matching_rank(placement.shapes(width), width, rank),
            "who does this": placement.note,
        }
        for placement in BASELINES
    )


def chosen_table(
    sweep: pd.DataFrame, one_error_rank: Callable[[dict[int, list[float]]], int]
) -> pd.DataFrame:
    """A row a method: its best rank, the rank by the rule, and what that one costs."""
    by_seed = sweep.groupby(["method", "rank", "seed"])["accuracy"].mean()
    sizes = sweep.groupby(["method", "rank"])["parameters"].first()
    rows = []
    for method in (name for name in METHOD_TITLES if name in by_seed.index.levels[0]):
        runs = {rank: list(values) for rank, values in by_seed[method].groupby("rank")}
        means = by_seed[method].groupby("rank").mean()
        best, chosen = means.idxmax(), one_error_rank(runs)
        rows.append(
            {
                "method": METHOD_TITLES[method],
                "best rank": best,
                "its accuracy": f"{means[best]:.1%} ± {100 * stats.sem(runs[best]):.1f}",
                "rank by the rule": chosen,
                "accuracy there": f"{means[chosen]:.1%}",
                "parameters there": sizes[method, chosen],
                "share of the best rank's": sizes[method, chosen] / sizes[method, best],
            }
        )
    return pd.DataFrame(rows)


def pair_scores(runs: pd.DataFrame, measure: Measure, one: str, other: str) -> pd.DataFrame:
    """Scores of two methods, amounts averaged: a row a data set and seed, a column a method."""
    table = scores(runs, measure)[[other, one]].dropna()
    return table.groupby(["dataset", "seed"]).mean()


def error_table(runs: pd.DataFrame, measure: Measure, paired_error: PairedError) -> pd.DataFrame:
    """Serial LoRA minus LoRA with five errors: a row for what counts as one measurement.

    Columns ``count``, ``mean``, ``error`` and ``half``, half of the 95% confidence interval by t.
    The error over data sets is ``paired_error``'s.
    """
    every = scores(runs, measure)[["serial_lora", "lora"]].dropna()
    single, difference = len(every), every["serial_lora"] - every["lora"]
    draws = difference.groupby(["dataset", "seed"]).mean()
    sets = draws.groupby("dataset").ngroups
    wide = [m.unstack("seed") for _, m in every.groupby(["dataset", "seed"]).mean().items()]
    over_sets = paired_error(*(torch.tensor(each.to_numpy()) for each in wide))
    these = intervals(draws)["these"]
    apart = math.sqrt(every.var().sum() / single)
    rows = {
        "a run, nothing paired": (single, 2 * single - 2, difference.mean(), apart),
        "a pair of runs": (single, single - 1, difference.mean(), difference.sem()),
        "a data set and seed": (len(draws), len(draws) - 1, draws.mean(), draws.sem()),
        "a data set: sets like these": (sets, sets - 1, *over_sets),
        "a seed within its set: these sets": (len(draws), these.freedom, these.mean, these.error),
    }
    found = pd.DataFrame(rows, index=["count", "freedom", "mean", "error"]).T
    found["half"] = half_width(found["error"], found.pop("freedom"))
    return found.astype({"count": int}).rename_axis("one measurement is")


def signs_table(evidence: Evidence, sign_test: Callable[[int, int], float]) -> pd.DataFrame:
    """Serial LoRA against LoRA, by cells and by data sets: wins, losses and their probability."""
    rows = []
    for name, measure in MEASURES.items():
        printed = printed_scores(evidence.paper, measure)
        sources = {
            "the paper": (PRINTED[name], printed["serial_lora"] - printed["lora"]),
            "here": (
                NAMES[name],
                paired(evidence.runs(measure.task), measure, "serial_lora", "lora"),
            ),
        }
        for source, (title, found) in sources.items():
            row = {"measure": title, "source": source}
            for what, level in (("cells", ["dataset", "amount"]), ("data sets", "dataset")):
                means = found.groupby(level).mean()
                wins, losses = int((means > 0).sum()), int((means < 0).sum())
                row |= {what: f"{wins} to {losses}", f"p, {what}": sign_test(wins, losses)}
            rows.append(row | {"least p": 2 * 0.5 ** len(means)})
    return pd.DataFrame(rows).set_index(["measure", "source"])


def margin_table(
    evidence: Evidence, other: str, say_comparable: Callable[[float, float, int, float], str]
) -> pd.DataFrame:
    """Serial LoRA minus another method: a row a measure, with half of its 95% interval, its margin, the
    verdict, and from which margin it would hold."""
    rows = []
    for name, measure in MEASURES.items():
        sample = sample_of(paired(evidence.runs(measure.task), measure, "serial_lora", other))
        mean, error, count = float(sample.mean()), float(sample.sem()), len(sample)
        half = float(half_width(error, count - 1))
        rows.append(
            {
                "measure": NAMES[name],
                "unit": measure.unit,
                "mean": mean,
                "half": half,
                "sets": count,
                "margin": measure.margin,
                "comparable": say_comparable(mean, error, count, measure.margin),
                "holds from": max(0.0, half - mean),
            }
        )
    return pd.DataFrame(rows).set_index("measure")
