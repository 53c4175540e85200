"""Methods beside one another, run by run, in tables and in words: what lessons 06 and 07 share."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from serial_lora_course.labs.frames import paired_difference
from serial_lora_course.labs.methods import METHOD_TITLES

EQUAL_RANK = ("serial_lora", "lora")
EQUAL_BUDGET = ("serial_lora", "lora_equal_budget")
PAIRS = (
    EQUAL_RANK,
    EQUAL_BUDGET,
    ("serial_lora_plus", "lora_plus"),
    ("serial_lora_plus", "serial_lora"),
)
"""Which methods are compared, each on the same pictures as the other."""

TITLES = {"dice": "Dice", "fid": "FID", "kid": "KID", "clip_score": "CLIP-Score"}


def verdicts(
    results: pd.DataFrame, measures: Sequence[str] = ("dice",), pairs: Sequence[tuple] = PAIRS
) -> pd.DataFrame:
    """Pair by pair and amount by amount: the mean difference, its standard error, and the verdict.

    Args:
        measures: columns of which more is better.
    """
    there = set(results["method"])
    found = [
        paired_difference(results, *pair, measure).assign(measure=measure)
        for pair in pairs
        if set(pair) <= there
        for measure in measures
    ]
    names = {"amount": "percent", "mean": "better by", "sem": "standard error"}
    return pd.concat(found, ignore_index=True).rename(columns=names)


def read_verdicts(results: pd.DataFrame, table: pd.DataFrame, measure: str = "dice") -> str:
    """Serial LoRA beside LoRA at equal rank and at equal budget, and how much of LoRA's gain it has.

    Args:
        table: as :func:`verdicts` gives it.
        measure: whose cells are counted; more is better.
    """
    lines = []
    for what, pair in (("equal rank", EQUAL_RANK), ("equal budget", EQUAL_BUDGET)):
        one, other = (METHOD_TITLES[name] for name in pair)
        rows = table[table["methods"] == f"{one} against {other}"]
        said = [
            f"{TITLES.get(name, name)} {_by_verdict(part)}"
            for name, part in rows.groupby("measure", sort=False)
        ]
        cells = results.groupby(["dataset", "amount", "method"])[measure].mean().unstack("method")
        above = int((cells[pair[0]] > cells[pair[1]]).sum())
        lines.append(
            f"- **At {what}**, against {other}: {'. '.join(said)}. Its mean over seeds is better in {above} of "
            f"{len(cells)} cells."
        )
    return "\n".join(lines)


def _by_verdict(rows: pd.DataFrame) -> str:
    return "; ".join(
        f"{verdict} at {', '.join(f'{percent}%' for percent in part['percent'])}"
        for verdict, part in rows.groupby("verdict", sort=False)
    )


def read_gain(results: pd.DataFrame, measure: str = "dice", sign: int = 1) -> str:
    """How much of LoRA's gain Serial LoRA has with all pictures, and with how many parameters.

    Args:
        sign: -1 for a measure of which less is better.
    """
    most = results[results["amount"] == results["amount"].max()]
    gained = (sign * (most[measure] - most[f"base_{measure}"])).groupby(most["method"]).mean()
    size = most.groupby("method")["parameters"].first()
    serial, budget = (
        gained["serial_lora"] / gained["lora"],
        gained["lora_equal_budget"] / gained["lora"],
    )
    return (
        f"With all pictures Serial LoRA has {serial:.0%} of LoRA's gain, with "
        f"{size['serial_lora'] / size['lora']:.0%} of its parameters; LoRA at that number of parameters has "
        f"{budget:.0%}."
    )
