"""What a sweep over learning rates and ratios says of LoRA+ (lesson 05).

Every function takes runs as ``labs.frames.frame`` gives them, with a column ``points``, the accuracy in
per cent, and compares run by run: the same data set and seed on both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from serial_lora_course.labs.frames import as_text
from serial_lora_course.labs.methods import get_method

RUN = ["dataset", "seed"]
Best = Callable[[dict[float, list[float]]], tuple[float, float, float, bool]]


def best_ratio(accuracies: dict[float, list[float]]) -> tuple[float, float, float, bool]:
    """The ratio with the highest mean; its mean difference from ratio 1, that difference's standard
    error, and whether it is more than two of these from 0."""
    best = max(accuracies, key=lambda ratio: np.mean(accuracies[ratio]))
    differences = np.subtract(accuracies[best], accuracies[1])
    mean, error = differences.mean(), stats.sem(differences)
    return best, float(mean), float(error), bool(abs(mean) > 2 * error)


def beside_ratio_one(results: pd.DataFrame, best_of: Best = best_ratio) -> pd.DataFrame:
    """The usual comparison: the best ratio beside 1, at each rate of A where all ratios were tried."""
    tried = results.groupby(["method", "lr"])["ratio"].transform("nunique")
    rows = []
    for (name, lr), part in results[tried == tried.max()].groupby(["method", "lr"]):
        runs = part.pivot(index=RUN, columns="ratio", values="points").dropna()
        ratio, mean, error, clear = best_of({r: runs[r].tolist() for r in runs})
        row = {"method": get_method(name).label, "rate of A": lr, "best ratio": ratio}
        rows.append(row | _gain(mean, error, len(runs), clear))
    return pd.DataFrame(rows)


def at_one_rate_of_b(results: pd.DataFrame) -> pd.DataFrame:
    """The comparison that isolates the ratio: the same rate of B, and A at that rate or a smaller one."""
    rate_B = (results["lr"] * results["ratio"]).round(9).rename("rate of B")
    rows = []
    for (name, rate), part in results.groupby(["method", rate_B], sort=False):
        runs = part.pivot(index=RUN, columns="lr", values="points")
        for lr in sorted(set(runs.columns) - {rate}) if rate in runs.columns else ():
            gain = (runs[lr] - runs[rate]).dropna()
            row = {"method": get_method(name).label, "rate of B": rate, "A at": lr}
            rows.append(row | _gain(gain.mean(), gain.sem(), len(gain)))
    return pd.DataFrame(rows)


def chosen_on_other_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Two rates beside one, each side with the cell that the *other* seeds prefer, so that neither is
    measured on the runs that chose it."""
    rows = []
    for name, part in results.groupby("method", sort=False):
        two, cells = _left_out(part)
        one, plain = _left_out(part[part["ratio"] == 1])
        gain = two - one
        row = {"method": get_method(name).label.removesuffix("+")}
        row |= {"one rate, chosen": _rates(plain), "two rates, chosen": _rates(cells)}
        rows.append(row | _gain(gain.mean(), gain.sem(), len(gain)))
    return pd.DataFrame(rows)


def _left_out(part: pd.DataFrame) -> tuple[pd.Series, list[tuple[float, float]]]:
    cells = part.pivot(index=RUN, columns=["lr", "ratio"], values="points").dropna(axis=1)
    seeds = cells.index.get_level_values("seed")
    chosen = {seed: cells[seeds != seed].mean().idxmax() for seed in sorted(set(seeds))}
    measured = [cells.loc[seeds == seed, best] for seed, best in chosen.items()]
    return pd.concat(measured), list(chosen.values())


def _rates(cells: list[tuple[float, float]]) -> str:
    return "; ".join(f"A {lr:g}, B {lr * ratio:g}" for lr, ratio in dict.fromkeys(cells))


def _gain(mean: float, error: float, pairs: int, clear: bool | None = None) -> dict[str, object]:
    clear = abs(mean) > 2 * error if clear is None else clear
    return {"gain": mean, "error": error, "pairs of runs": pairs, "clear": "yes" if clear else "no"}


def as_shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its numbers as a reader wants them: rates short, gains with a sign."""
    formats = {"gain": "{:+.1f}", "error": "{:.1f}"}
    formats |= dict.fromkeys(("rate of A", "rate of B", "A at", "best ratio"), "{:g}")
    return as_text(table, {name: form for name, form in formats.items() if name in table})


# ------------------------------------------------------------------------------------ in words


def read_beside_one(table: pd.DataFrame) -> str:
    """How the best ratio goes with the rate of A, and how far to trust it."""
    lines = []
    for name, part in table.groupby("method", sort=False):
        low, high = (part.loc[part["rate of A"].agg(which)] for which in ("idxmin", "idxmax"))
        said = [
            f"with A at {row['rate of A']:g} the best ratio is {row['best ratio']:g} "
            f"({row['gain']:+.1f} ± {row['error']:.1f} points)"
            for row in (low, high)
        ]
        lines.append(f"- **{name}**: {'; '.join(said)}.")
    pairs = table["pairs of runs"].min()
    chance = 2 * stats.t.sf(2, pairs - 1)
    return "\n".join(lines) + (
        f"\n\nWith {pairs} pairs of runs, two standard errors are passed in {chance:.0%} of comparisons "
        "where there is no difference (false positives), and choosing the best ratio first adds more."
    )


def read_at_one_rate(table: pd.DataFrame) -> str:
    """In how many comparisons a smaller rate of A is better or worse, and in how many significantly."""
    clear, gain = table["clear"] == "yes", table["gain"]
    ahead, behind = (int((clear & (side * gain > 0)).sum()) for side in (1, -1))
    sure = sum(low > 0 or high < 0 for low, high in (_interval(row) for _, row in table.iterrows()))
    return (
        f"Of {len(table)} comparisons at the same rate of B, a smaller rate of A is ahead by more than two "
        f"standard errors in {ahead}, behind in {behind}, and neither in {len(table) - ahead - behind}. "
        f"Significant, by a 95% confidence interval without 0: {sure}."
    )


def read_chosen(table: pd.DataFrame) -> str:
    """What a free choice of two rates brings over one."""
    lines = []
    for _, row in table.iterrows():
        low, high = _interval(row)
        verdict = "significant" if low > 0 or high < 0 else "not significant"
        lines.append(
            f"- **{row['method']}**: two rates instead of one bring {row['gain']:+.1f} points on seeds that had no "
            f"say in the choice (95% confidence interval {low:+.1f} to {high:+.1f}): {verdict}."
        )
    return "\n".join(lines)


def _interval(row: pd.Series) -> tuple[float, float]:
    """The 95% confidence interval of a gain, by Student's t."""
    half = stats.t.ppf(0.975, row["pairs of runs"] - 1) * row["error"]
    return row["gain"] - half, row["gain"] + half
