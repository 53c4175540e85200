"""What lesson 04's tables show, in words, and those tables that are made of records.

Accuracies are between 0 and 1, differences in points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from scipy.stats import binomtest
from torch import Tensor

from serial_lora_course.claims.paper import paper_facts, paper_table
from serial_lora_course.labs.frames import paired_difference
from serial_lora_course.labs.methods import METHODS, get_method
from serial_lora_course.labs.records import Record
from serial_lora_course.measures.intervals import CONFIDENCE

PAIRS = (
    ("serial_lora", "lora"),
    ("serial_lora", "lora_equal_budget"),
    ("serial_lora_plus", "lora_plus"),
    ("lora_plus", "lora"),
    ("serial_lora_plus", "serial_lora"),
)
"""Which methods are compared."""


def read_prompts(table: pd.DataFrame, own: str, generic: str, templates: Sequence[str]) -> str:
    """How far the wording of the prompt moves zero-shot accuracy.

    Args:
        table: a row a data set, with columns ``by chance``, ``largest class`` and each template.
        own, generic: the data sets' own template, and the generic one.
    """
    apart = 100 * (table[own] - table[generic]).abs()
    wording = 100 * (table[templates].max(axis=1) - table[templates].min(axis=1))
    return (
        f"With the data sets' own prompt, zero-shot accuracy is {table[own].mean():.1%} on average; chance "
        f"would give {table['by chance'].mean():.1%}, naming the largest class "
        f"{table['largest class'].mean():.1%}. The generic prompt moves it by up to {apart.max():.1f} points. "
        f"Over all the prompts one data set's accuracy moves by up to {wording.max():.1f} points (on "
        f"{wording.idxmax()}), without any training."
    )


def runs_table(records: Mapping[str, Record], zero_shot: str) -> pd.DataFrame:
    """A row a method: its run beside zero-shot accuracy.

    Args:
        zero_shot: the measure of a record that is compared with.
    """
    rows = {}
    for name, record in records.items():
        before, after = record.measures[zero_shot], record.measures["accuracy"]
        rows[get_method(name).label] = {
            "trainable": f"{record.sizes['parameters']:,}",
            "zero-shot": f"{before:.1%}",
            "adapted": f"{after:.1%}",
            "gain in points": f"{100 * (after - before):+.1f}",
            "last loss": f"{record.measures['loss']:.2f}",
            "seconds": f"{record.seconds:.0f}",
        }
    return pd.DataFrame(rows).T.rename_axis("method")


def read_two_runs(right: Mapping[str, Tensor]) -> str:
    """On how many pictures two methods differ, and how often chance alone gives as much (McNemar 1947).

    Args:
        right: method in words -> (N,), whether each test picture is right.
    """
    (one, first), (other, second) = right.items()
    only = int((first & ~second).sum()), int((second & ~first).sum())
    differ, apart = sum(only), abs(only[0] - only[1])
    p = binomtest(only[0], differ).pvalue if differ else 1.0
    verdict = (
        "not significant" if p > 1 - CONFIDENCE else "significant for these pictures, in one run"
    )
    return (
        f"Right with {one} only: {only[0]} of {len(first)} pictures; with {other} only: {only[1]}. Were both "
        f"methods equally good, each of these {differ} would fall to either side as a coin does, and a "
        f"difference of {apart} or more would come up with probability {p:.2f} (McNemar's exact test): "
        f"{verdict}. One test picture is {100 / len(first):.1f} points."
    )


def read_changes(labels: Tensor, before: Tensor, after: Tensor) -> str:
    """How many pictures stayed right, came right, went wrong and stayed wrong; (N,) each."""
    was, now = before == labels, after == labels
    return (
        f"Of {len(labels)} test pictures, {int((was & now).sum())} were right and stayed right, "
        f"{int((~was & now).sum())} turned from wrong to right, {int((was & ~now).sum())} from right to wrong, "
        f"and {int((~was & ~now).sum())} were wrong before and after."
    )


def read_classes(before: Tensor, after: Tensor, names: Sequence[str], agreement: float) -> str:
    """Which class gained most, and which lost.

    Args:
        before, after: confusion matrices (C, C).
        agreement: share of the test pictures to which two methods give the same class.
    """
    size = before.sum(1)
    change = (after.diagonal() - before.diagonal()) / size
    best, worst = int(change.argmax()), int(change.argmin())

    def counts(place: int) -> str:
        was, now = int(before[place, place]), int(after[place, place])
        return f"“{names[place]}”, from {was} to {now} of {int(size[place])}"

    lost = f"{counts(worst)}, lost most" if change[worst] < 0 else "no class lost"
    return (
        f"The class that gained most is {counts(best)}; {lost}. Serial LoRA and LoRA say the same about "
        f"{agreement:.0%} of the test pictures."
    )


def read_gains(results: pd.DataFrame, zero_shot: str) -> str:
    """What Serial LoRA gains over zero-shot with the most shots, over the data sets."""
    most = int(results["amount"].max())
    runs = results[(results["amount"] == most) & (results["method"] == "serial_lora")]
    gains = 100 * (runs["accuracy"] - runs[zero_shot]).groupby(runs["dataset"]).mean()
    base = results.groupby("dataset")[zero_shot].first().mean()
    return (
        f"Zero-shot, with the same prompt, accuracy is {base:.1%}. With {most} shots Serial LoRA gains "
        f"{gains.mean():+.1f} points over that on average, between {gains.min():+.1f} ({gains.idxmin()}) and "
        f"{gains.max():+.1f} ({gains.idxmax()})."
    )


def differences(results: pd.DataFrame) -> pd.DataFrame:
    """The pairs of `PAIRS` that were run, by number of shots, in points; see `paired_difference`."""
    there = [pair for pair in PAIRS if set(pair) <= set(results["method"])]
    found = [paired_difference(results, *pair, "accuracy") for pair in there]
    table = pd.concat(found, ignore_index=True)
    table[["mean", "sem"]] *= 100
    return table


def read_differences(table: pd.DataFrame) -> str:
    """Which comparisons of :func:`differences` are significant."""
    clear = table[table["verdict"] != "not significant"]
    found = [
        f"{row.methods} with {row.amount} shot{'s' * (row.amount > 1)} ({row.mean:+.1f} ± {row.sem:.1f})"
        for row in clear.itertuples(index=False)
    ]
    return (
        f"Of {len(table)} comparisons {len(found) or 'none'} "
        f"{'is' if len(found) < 2 else 'are'} significant{': ' * bool(found)}{'; '.join(found)}."
    )


def read_cells(results: pd.DataFrame) -> str:
    """Serial LoRA beside LoRA, cell by cell: a data set and a number of shots, the mean over seeds."""
    means = results.groupby(["dataset", "amount", "method"])["accuracy"].mean().unstack("method")
    by_cell = 100 * (means["serial_lora"] - means["lora"])
    ahead, behind = int((by_cell > 0).sum()), int((by_cell < 0).sum())
    worst, best = by_cell.idxmin(), by_cell.idxmax()
    return (
        f"At equal rank Serial LoRA's mean is above LoRA's in {ahead} of {len(by_cell)} cells, below in "
        f"{behind} and equal in {len(by_cell) - ahead - behind}. Its best cell is {best[0]} with {best[1]} shots "
        f"({by_cell.max():+.1f} points), its worst {worst[0]} with {worst[1]} ({by_cell.min():+.1f})."
    )


def beside_paper(results: pd.DataFrame) -> pd.DataFrame:
    """Serial LoRA minus LoRA at equal rank in points: the paper's Table III and the records here."""
    paper = paper_table("Table III")
    serial, lora = (
        paper.xs(METHODS[name].label, level="method") for name in ("serial_lora", "lora")
    )
    here = (
        100
        * paired_difference(results, "serial_lora", "lora", "accuracy").set_index("amount")[
            ["mean", "sem"]
        ]
    )
    own = {f"{row.Index} shot": f"{row.mean:+.1f} ± {row.sem:.1f}" for row in here.itertuples()}
    rows = {}
    for shots, row in (serial - lora).iterrows():
        spread = f"{row.min():+.2f} ... {row.max():+.2f}"
        rows[shots] = {"the paper": f"{row.mean():+.2f}", "from ... to": spread}
        rows[shots]["here"] = own.get(shots, "not run")
    return pd.DataFrame(rows).T.rename_axis("shots")


def read_paper() -> str:
    """How often the paper's table has Serial LoRA behind LoRA."""
    facts = paper_facts()
    return (
        f"In the paper Serial LoRA is behind LoRA in {facts['serial_behind_clip']} of {facts['clip_cells']} "
        "cells."
    )
