"""The tables of lesson 09, and what each shows in a sentence.

Where a table rests on an exercise, it takes the function that answers it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from serial_lora_course.claims.evidence import (
    MEASURES,
    Evidence,
    Measure,
    paired,
    printed_scores,
    scores,
    summarise,
)
from serial_lora_course.labs.frames import ERRORS
from serial_lora_course.labs.methods import METHOD_TITLES
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


# ------------------------------------------------------------------------------------ the sweep


def describe_sweep(sweep: pd.DataFrame) -> str:
    """What a rank sweep was run on."""
    ranks = ", ".join(map(str, sorted(sweep["lab_rank"].unique())))
    return (
        f"{len(sweep)} runs on {', '.join(sweep['dataset'].unique())}: "
        f"{', '.join(map(str, sorted(sweep['amount'].unique())))} shots, "
        f"{sweep['seed'].nunique()} seeds, ranks {ranks} (LoRA at equal budget: a quarter of each)"
    )


def sweep_table(sweep: pd.DataFrame) -> pd.DataFrame:
    """Serial LoRA minus the others: a row a rank and a comparison; mean, error, pairs, significant."""
    points = MEASURES["accuracy"]
    rows = []
    for rank, runs in sweep.groupby("lab_rank"):
        for other, title in OTHERS.items():
            found = summarise(paired(runs, points, "serial_lora", other), points.unit)
            row = {"rank": rank, "against": title, "mean": found.mean, "error": found.error}
            apart = abs(found.mean) > ERRORS * found.error
            rows.append(row | {"pairs": found.pairs, "significant": apart})
    return pd.DataFrame(rows)


def show_sweep(table: pd.DataFrame) -> pd.DataFrame:
    """That table to show: a row a rank, a column a comparison, a star where it is significant."""
    text = [
        f"{row.mean:+.2f} ± {row.error:.2f}{' *' * row.significant}" for row in table.itertuples()
    ]
    return table.assign(text=text).pivot(index="rank", columns="against", values="text")[
        [*OTHERS.values()]
    ]


def read_sweep(sweep: pd.DataFrame, table: pd.DataFrame) -> str:
    """What more rank brings, how many differences are significant, and how many luck would make so."""
    means = sweep[sweep["method"] == "serial_lora"].groupby("rank")["accuracy"].mean()
    low, high = means.idxmin(), means.idxmax()
    starred, pairs = int(table["significant"].sum()), int(table["pairs"].min())
    stars = {0: "none is", 1: "one is"}.get(starred, f"{starred} are")
    false = false_positive_rate(pairs)
    return (
        f"Serial LoRA's mean accuracy lies between {means[low]:.1%} (rank {low}) and "
        f"{means[high]:.1%} (rank {high}), while its parameters grow "
        f"{means.index.max() // means.index.min()}-fold. Of the {len(table)} differences {stars} "
        f"significant at two standard errors. With {pairs} pairs a true zero gets a star in {false:.0%} "
        f"of all cases, so {false * len(table):.1f} false positives are to be expected if no method is "
        "better than another."
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


def read_choice(table: pd.DataFrame) -> str:
    """For which methods the rule saves parameters."""
    share = "share of the best rank's"
    smaller = table[table[share] < 1]
    if smaller.empty:
        return (
            "The rule keeps the best rank of every method: each smaller rank is worse by more than "
            "one standard error."
        )
    saved = ", ".join(
        f"{row['method']} from rank {row['best rank']} to {row['rank by the rule']} "
        f"({row[share]:.0%} of the parameters)"
        for _, row in smaller.iterrows()
    )
    kept = ", ".join(table.loc[table[share] == 1, "method"])
    return f"The rule takes {saved}" + (f" and keeps the best rank of {kept}." if kept else ".")


# ----------------------------------------------------------------------------------- one difference


def pair_scores(runs: pd.DataFrame, measure: Measure, one: str, other: str) -> pd.DataFrame:
    """Scores of two methods, amounts averaged: a row a data set and seed, a column a method."""
    table = scores(runs, measure)[[other, one]].dropna()
    return table.groupby(["dataset", "seed"]).mean()


def error_table(runs: pd.DataFrame, measure: Measure, paired_error: PairedError) -> pd.DataFrame:
    """Serial LoRA minus LoRA with five errors: a row for what counts as one measurement.

    Columns ``count``, ``mean``, ``error`` and ``half``, half of the 95% confidence interval by t.
    """
    every = scores(runs, measure)[["serial_lora", "lora"]].dropna()
    draws, sets = (every.groupby(level).mean() for level in (["dataset", "seed"], "dataset"))
    difference = draws["serial_lora"] - draws["lora"]
    within = difference.groupby("dataset").var().mean()
    mean = difference.mean()
    rows = {
        "a run, nothing paired": (
            len(every),
            2 * len(every) - 2,
            mean,
            math.sqrt(every.var().sum() / len(every)),
        )
    }
    for name, table in (
        ("a pair of runs", every),
        ("a data set and seed, shots averaged", draws),
        ("a data set: sets like these", sets),
    ):
        one, other = (torch.tensor(table[m].to_numpy()) for m in ("serial_lora", "lora"))
        rows[name] = (len(table), len(table) - 1, *paired_error(one, other))
    free = len(draws) - len(sets)
    rows["a seed within its set: these sets"] = (
        len(draws),
        free,
        mean,
        math.sqrt(within / len(draws)),
    )
    found = pd.DataFrame(rows, index=["count", "freedom", "mean", "error"]).T
    found["half"] = stats.t.ppf(0.975, found.pop("freedom")) * found["error"]
    return found.astype({"count": int}).rename_axis("one measurement is")


def read_errors(table: pd.DataFrame) -> str:
    """What pairing saves, and what the data sets say about others like them."""
    single, pair = (table["error"].iloc[row] for row in (0, 1))
    like = table.iloc[3]
    low, high = like["mean"] - like["half"], like["mean"] + like["half"]
    zero = "contains zero: not significant" if low < 0 < high else "leaves zero out: significant"
    return (
        f"Pairing makes the standard error {single / pair:.1f} times smaller without a further run; "
        f"without it one needs {(single / pair) ** 2:.0f} times as many. For data sets like these "
        f"the difference is {like['mean']:+.2f}, with a 95% confidence interval from {low:+.2f} to "
        f"{high:+.2f}, which {zero}."
    )


def false_positive_rate(pairs: int) -> float:
    """How often a mean of so many pairs is beyond two standard errors although the truth is zero."""
    return float(2 * stats.t.sf(ERRORS, pairs - 1))


def read_power(spread: float, sizes: Iterable[float] = (2.0, 1.0, 0.5)) -> str:
    """How many pairs make two standard errors as small as a difference, at a spread of one pair."""
    wanted = [(size, math.ceil((ERRORS * spread / size) ** 2)) for size in sizes]
    needed = ", ".join(
        f"{count} pairs for {size:g} point{'s' * (size != 1)}" for size, count in wanted
    )
    return (
        f"One pair's difference has a standard deviation of {spread:.1f} points here. For two "
        f"standard errors to be as small as a difference, it takes {needed}."
    )


# ------------------------------------------------------------------------------ signs and margins


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


def read_signs(table: pd.DataFrame) -> str:
    """How many rows are significant by cells, and how many by data sets."""
    cells, sets = (int((table[f"p, {what}"] < 0.05).sum()) for what in ("cells", "data sets"))
    return (
        f"By cells {cells} of {len(table)} rows have p below 5%; by data sets {sets}. The last "
        "column is the smallest p that so few data sets can give, even if all of them agree: it is "
        f"above 5% in {int((table['least p'] > 0.05).sum())} of {len(table)} rows."
    )


def margin_table(
    evidence: Evidence, other: str, say_comparable: Callable[[float, float, float], str]
) -> pd.DataFrame:
    """Serial LoRA minus another method: a row a measure, its margin, the verdict, and from which
    margin it would hold."""
    rows = []
    for name, measure in MEASURES.items():
        runs = evidence.runs(measure.task)
        found = summarise(paired(runs, measure, "serial_lora", other), measure.unit)
        rows.append(
            {
                "measure": NAMES[name],
                "unit": measure.unit,
                "mean": found.mean,
                "error": found.error,
                "margin": measure.margin,
                "comparable": say_comparable(found.mean, found.error, measure.margin),
                "holds from": max(0.0, ERRORS * found.error - found.mean),
            }
        )
    return pd.DataFrame(rows).set_index("measure")


def read_margins(tables: Mapping[str, pd.DataFrame]) -> str:
    """For each comparison, which measures get which verdict, and which are behind but comparable."""
    lines = []
    for title, table in tables.items():
        verdicts = table.groupby("comparable", sort=False).groups
        said = "; ".join(f"{verdict} on {', '.join(names)}" for verdict, names in verdicts.items())
        small = table[(table["comparable"] == "holds") & (table["mean"] < -ERRORS * table["error"])]
        lines.append(
            f"- **Not behind {title} by more than the margin**: {said}."
            + (
                f" Significantly behind, and comparable: {', '.join(small.index)}."
                * bool(len(small))
            )
        )
    return "\n".join(lines)
