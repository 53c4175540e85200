"""The tables of lesson 09, and what each shows in a sentence.

Where a table rests on an exercise, it takes the function that answers it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from serial_lora_course.labs.frames import half_width, sample_in_words, sample_of
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


def read_costs(costs: pd.DataFrame) -> str:
    """What the largest rank costs, and LoRA at a quarter of it.

    Args:
        costs: megabytes, a row a rank: LoRA, Serial LoRA, LoRA at a quarter of the rank.
    """
    lora, serial, quarter = costs.iloc[-1].map("{:.2f} MB".format)
    return (
        f"At rank {costs.index[-1]} LoRA takes {lora} and Serial LoRA {serial}. At a quarter of the rank LoRA takes "
        f"{quarter}: that is the equal budget."
    )


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


def read_placements(table: pd.DataFrame) -> str:
    """Which placements of LoRA buy the smallest and the largest rank of Serial LoRA."""
    where, ranks = table.columns[0], table["Serial LoRA's rank"]
    low, high = table.loc[ranks.idxmin()], table.loc[ranks.idxmax()]
    said = [f"{row[ranks.name]} ({row[where]})" for row in (low, high)]
    return f"{where.removesuffix(' on')} buys Serial LoRA of rank {' to '.join(said)}."


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
    """Serial LoRA minus the others: a row a rank and a comparison.

    Columns ``mean``, ``half``, half of its 95% interval, ``sample`` in words, and ``significant``.
    """
    rows = []
    for rank, runs in sweep.groupby("lab_rank"):
        for other, title in OTHERS.items():
            sample = sample_of(paired(runs, MEASURES["accuracy"], "serial_lora", other))
            mean, half = sample.mean(), half_width(sample.sem(), len(sample) - 1)
            row = {"rank": rank, "against": title, "mean": mean, "half": half}
            row |= {"sample": sample_in_words(sample), "significant": abs(mean) > half}
            rows.append(row)
    return pd.DataFrame(rows)


def show_sweep(table: pd.DataFrame) -> pd.DataFrame:
    """That table to show: a row a rank, a column a comparison, a star where it is significant."""
    text = [
        f"{row.mean:+.2f} ± {row.half:.2f}{' *' * row.significant}" for row in table.itertuples()
    ]
    return table.assign(text=text).pivot(index="rank", columns="against", values="text")[
        [*OTHERS.values()]
    ]


def read_sweep(sweep: pd.DataFrame, table: pd.DataFrame) -> str:
    """What more rank brings, how many differences are significant, and how many luck would make so."""
    means = sweep[sweep["method"] == "serial_lora"].groupby("rank")["accuracy"].mean()
    low, high = means.idxmin(), means.idxmax()
    starred = int(table["significant"].sum())
    stars = {0: "none is", 1: "one is"}.get(starred, f"{starred} are")
    return (
        f"Serial LoRA's mean accuracy lies between {means[low]:.1%} (rank {low}) and "
        f"{means[high]:.1%} (rank {high}), while its parameters grow "
        f"{means.index.max() // means.index.min()}-fold. Of the {len(table)} differences {stars} "
        f"significant, with {table['sample'].iloc[0]} behind each; if no method were better than "
        f"another, {0.05 * len(table):.1f} of {len(table)} would be, by chance."
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
        return "The rule keeps the best rank of every method."
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


def read_false_positives(table: pd.DataFrame) -> str:
    """What two standard errors promise with the fewest and with the most measurements.

    Args:
        table: a row a number of measurements: the share of means farther than two standard errors
            from a true zero, and how many standard errors 95% of them stay within.
    """
    few, many = table.iloc[0], table.iloc[-1]
    return (
        f"With {table.index[0]} measurements {few.iloc[0]:.0%} of the means are farther off than two standard "
        f"errors, with {table.index[-1]} it is {many.iloc[0]:.0%}. To hold 95% of them an interval needs "
        f"{few.iloc[1]:.1f} standard errors to each side, and {many.iloc[1]:.1f}."
    )


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


def read_errors(table: pd.DataFrame) -> str:
    """What the data sets say about others like them and about themselves, and what pairing saves."""
    single, pair = (table["error"].iloc[row] for row in (0, 1))
    like, these = table.iloc[3], table.iloc[4]
    zero = "contains 0" if abs(like["mean"]) < like["half"] else "leaves 0 out"
    return (
        f"For data sets like these the difference is {like['mean']:+.2f} ± {like['half']:.2f}, which {zero}; for "
        f"these data sets with other seeds it is ± {these['half']:.2f}. Pairing alone makes the standard error "
        f"{single / pair:.1f} times smaller; without it one needs {(single / pair) ** 2:.0f} times as many runs."
    )


def read_power(
    mean: float, half: float, spread: float, sizes: Iterable[float] = (2.0, 1.0, 0.5)
) -> str:
    """Whether a mean difference is significant, and how many data sets would see one of each size.

    Args:
        half: half of its interval.
        spread: standard deviation of the data sets' own differences.
    """
    needed = ", ".join(
        f"{_sets_for(size / spread)} for {size:g} point{'s' * (size != 1)}" for size in sizes
    )
    return (
        f"{mean:+.2f} ± {half:.2f} points is {'' if abs(mean) > half else 'not '}significant. The data sets' "
        f"differences have a standard deviation of {spread:.1f} points. So many data sets make half of the interval "
        f"as small as a difference: {needed}."
    )


def _sets_for(size: float) -> int:
    """The smallest number of sets whose mean has an interval this small, in standard deviations."""
    return next(n for n in itertools.count(2) if half_width(n**-0.5, n - 1) <= size)


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


def read_margins(tables: Mapping[str, pd.DataFrame]) -> str:
    """For each comparison, which measures get which verdict, and which are behind but comparable."""
    lines = []
    for title, table in tables.items():
        verdicts = table.groupby("comparable", sort=False).groups
        said = "; ".join(f"{verdict} on {', '.join(names)}" for verdict, names in verdicts.items())
        small = table[(table["comparable"] == "holds") & (table["mean"] < -table["half"])]
        lines.append(
            f"- **Not behind {title} by more than the margin**: {said}."
            + (
                f" Significantly behind, and comparable: {', '.join(small.index)}."
                * bool(len(small))
            )
        )
    return "\n".join(lines)


def read_holds_from(table: pd.DataFrame) -> str:
    """What holds, and from which margin on the rest would."""
    holds = table["comparable"] == "holds"
    needed = ", ".join(
        f"{name} from {row['holds from']:.2f} {row['unit']}"
        for name, row in table[~holds].iterrows()
    )
    kept = ", ".join(table.index[holds]) or "Nothing"
    return f"{kept} holds." + f" With another margin would hold: {needed}." * bool(needed)
