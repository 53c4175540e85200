"""What a ratio of LoRA+ brings, told by the runs of a sweep in three fair and unfair ways.

Each function takes runs as ``labs.frames.frame`` gives them, with a column ``points``, the accuracy in
per cent, and compares run by run: the same data set and seed on both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from serial_lora_course.labs.methods import get_method
from serial_lora_course.measures.differences import mean_and_half, sample_of
from serial_lora_course.paper_tables import paper_table

RUN = ["dataset", "seed"]
Best = Callable[[dict[float, list[float]]], tuple[float, float, float, bool]]


def beside_ratio_one(results: pd.DataFrame, best_of: Best) -> pd.DataFrame:
    """The usual comparison: the best ratio beside 1, at each rate of A where all ratios were tried."""
    tried = results.groupby(["method", "lr"])["ratio"].transform("nunique")
    rows = []
    for (name, lr), part in results[tried == tried.max()].groupby(["method", "lr"]):
        runs = sample_of(part.pivot(index=RUN, columns="ratio", values="points").dropna())
        ratio, mean, half, significant = best_of({r: runs[r].tolist() for r in runs})
        row = {"method": get_method(name).label, "rate of A": f"{lr:g}", "best ratio": f"{ratio:g}"}
        rows.append(row | _gain(mean, half) | {"significant": "yes" if significant else "no"})
    return pd.DataFrame(rows)


def at_one_rate_of_b(results: pd.DataFrame) -> pd.DataFrame:
    """The comparison that isolates the ratio: the same rate of B, and A at that rate or a smaller one."""
    rate_B = (results["lr"] * results["ratio"]).round(9).rename("rate of B")
    rows = []
    for (name, rate), part in results.groupby(["method", rate_B], sort=False):
        runs = part.pivot(index=RUN, columns="lr", values="points")
        for lr in sorted(set(runs.columns) - {rate}) if rate in runs.columns else ():
            row = {"method": get_method(name).label, "rate of B": f"{rate:g}", "A at": f"{lr:g}"}
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


def _gain_of(differences: pd.Series) -> dict[str, object]:
    """What differences, one for each data set and seed, come to."""
    found = mean_and_half(differences)
    gain = _gain(found["mean"], found["half"]) | {"sample": found["sample"]}
    return gain | {"significant": "yes" if abs(found["mean"]) > found["half"] else "no"}


def _gain(mean: float, half: float) -> dict[str, str]:
    return {"gain": f"{mean:+.1f} ± {half:.1f}"}


def plus_minus_plain(plain: str) -> pd.DataFrame:
    """The paper's accuracy with the plus minus without, in points: rows shots, columns data sets."""
    table = paper_table("Table III")
    with_plus, without = (table.xs(name, level="method") for name in (f"{plain}+", plain))
    return with_plus - without
