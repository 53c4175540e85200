"""What a sweep over learning rates and ratios says of LoRA+ (lesson 05).

Every function takes runs as ``labs.frames.frame`` gives them, with a column ``points``, the accuracy in
per cent, and compares run by run: the same data set and seed on both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from serial_lora_course.labs.frames import as_text, half_width, sample_in_words, sample_of
from serial_lora_course.labs.methods import get_method

RUN = ["dataset", "seed"]
Best = Callable[[dict[float, list[float]]], tuple[float, float, float, bool]]


def best_ratio(accuracies: dict[float, list[float]]) -> tuple[float, float, float, bool]:
    """The ratio with the highest mean; its mean difference from ratio 1, half of that difference's 95%
    interval, and whether the interval leaves out 0."""
    best = max(accuracies, key=lambda ratio: np.mean(accuracies[ratio]))
    differences = np.subtract(accuracies[best], accuracies[1])
    mean, half = differences.mean(), half_width(stats.sem(differences), len(differences) - 1)
    return best, float(mean), float(half), bool(abs(mean) > half)


def beside_ratio_one(results: pd.DataFrame, best_of: Best = best_ratio) -> pd.DataFrame:
    """The usual comparison: the best ratio beside 1, at each rate of A where all ratios were tried."""
    tried = results.groupby(["method", "lr"])["ratio"].transform("nunique")
    rows = []
    for (name, lr), part in results[tried == tried.max()].groupby(["method", "lr"]):
        runs = sample_of(part.pivot(index=RUN, columns="ratio", values="points").dropna())
        ratio, *found = best_of({r: runs[r].tolist() for r in runs})
        row = {"method": get_method(name).label, "rate of A": lr, "best ratio": ratio}
        rows.append(row | _gain(*found, runs))
    return pd.DataFrame(rows)


def at_one_rate_of_b(results: pd.DataFrame) -> pd.DataFrame:
    """The comparison that isolates the ratio: the same rate of B, and A at that rate or a smaller one."""
    rate_B = (results["lr"] * results["ratio"]).round(9).rename("rate of B")
    rows = []
    for (name, rate), part in results.groupby(["method", rate_B], sort=False):
        runs = part.pivot(index=RUN, columns="lr", values="points")
        for lr in sorted(set(runs.columns) - {rate}) if rate in runs.columns else ():
            row = {"method": get_method(name).label, "rate of B": rate, "A at": lr}
            rows.append(row | _gain_of((runs[lr] - runs[rate]).dropna()))
    return pd.DataFrame(rows)


def chosen_on_other_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Two rates beside one, each side with the cell that the *other* seeds prefer, so that neither is
    measured on the runs that chose it."""
    rows = []
    for name, part in results.groupby("method", sort=False):
        two, cells = _left_out(part)
        one, plain = _left_out(part[part["ratio"] == 1])
        row = {"method": get_method(name).label.removesuffix("+")}
        row |= {"one rate, chosen": _rates(plain), "two rates, chosen": _rates(cells)}
        rows.append(row | _gain_of(two - one))
    return pd.DataFrame(rows)


def _left_out(part: pd.DataFrame) -> tuple[pd.Series, list[tuple[float, float]]]:
    cells = part.pivot(index=RUN, columns=["lr", "ratio"], values="points").dropna(axis=1)
    seeds = cells.index.get_level_values("seed")
    chosen = {seed: cells[seeds != seed].mean().idxmax() for seed in sorted(set(seeds))}
    measured = [cells.loc[seeds == seed, best] for seed, best in chosen.items()]
    return pd.concat(measured), list(chosen.values())


def _rates(cells: list[tuple[float, float]]) -> str:
    return "; ".join(f"A {lr:g}, B {lr * ratio:g}" for lr, ratio in dict.fromkeys(cells))


def _gain_of(each: pd.Series) -> dict[str, object]:
    """What differences, one for each data set and seed, say."""
    sample = sample_of(each)
    mean, half = sample.mean(), float(half_width(sample.sem(), len(sample) - 1))
    return _gain(mean, half, abs(mean) > half, sample)


def _gain(
    mean: float, half: float, significant: bool, sample: pd.Series | pd.DataFrame
) -> dict[str, object]:
    told = {"count": len(sample), "sample": sample_in_words(sample)}
    return {"gain": mean, "half": half} | told | {"significant": bool(significant)}


def as_shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its numbers as a reader wants them: rates short, gains with their intervals."""
    gains = [f"{row.gain:+.1f} ± {row.half:.1f}" for row in table.itertuples()]
    said = table["significant"].map({True: "yes", False: "no"})
    shown = table.assign(gain=gains, significant=said).drop(columns=["half", "count"])
    rates = ("rate of A", "rate of B", "A at", "best ratio")
    return as_text(shown, {name: "{:g}" for name in rates if name in table})


# ------------------------------------------------------------------------------------ in words


def read_beside_one(table: pd.DataFrame) -> str:
    """How the best ratio goes with the rate of A, and how far to trust it."""
    lines = []
    for name, part in table.groupby("method", sort=False):
        low, high = (part.loc[part["rate of A"].agg(which)] for which in ("idxmin", "idxmax"))
        said = [
            f"with A at {row['rate of A']:g} the best ratio is {row['best ratio']:g} "
            f"({row['gain']:+.1f} ± {row['half']:.1f} points)"
            for row in (low, high)
        ]
        lines.append(f"- **{name}**: {'; '.join(said)}.")
    fewest = table.loc[table["count"].idxmin()]
    errors = half_width(1.0, fewest["count"] - 1)
    return "\n".join(lines) + (
        f"\n\nSignificant: {int(table['significant'].sum())} of {len(table)}. With {fewest['sample']} the interval is "
        f"{errors:.1f} standard errors to each side."
    )


def read_at_one_rate(table: pd.DataFrame) -> str:
    """What a smaller rate of A brings at the same rate of B, and in how many cases significantly."""
    gains = ", ".join(
        f"{row['gain']:+.1f} ± {row['half']:.1f} points ({row['method']})"
        for _, row in table.iterrows()
    )
    ahead, behind = (
        int((table["significant"] & (side * table["gain"] > 0)).sum()) for side in (1, -1)
    )
    return (
        f"At the same rate of B a smaller rate of A brings {gains}: of {len(table)} comparisons {ahead} "
        f"significantly better, {behind} significantly worse."
    )


def read_chosen(table: pd.DataFrame) -> str:
    """What a free choice of two rates brings over one."""
    return "\n".join(
        f"- **{row['method']}**: two rates instead of one bring {row['gain']:+.1f} ± {row['half']:.1f} points on "
        f"seeds that had no say in the choice: {'' if row['significant'] else 'not '}significant."
        for _, row in table.iterrows()
    )
