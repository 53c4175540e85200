"""What lesson 05's tables of steps, runs and the paper's cells say, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from serial_lora_course.claims.paper import paper_table
from serial_lora_course.labs.steps import slope


def read_descent(steps: pd.DataFrame) -> str:
    """Which matrix moves first, and whether the other one follows."""
    first, last = steps.iloc[0], steps.iloc[-1]
    return (
        f"In step 1 B moves by {first['size of ΔB']:.2g} and A by exactly {first['size of ΔA']:g}, since A's "
        f"gradient has the factor B, and B is zero. By step {last['step']:.0f} A's part of the change is "
        f"{last['B ΔA'] / last['ΔB A']:.0%} of B's part."
    )


def read_paces(descent: pd.DataFrame, adam: pd.DataFrame) -> str:
    """How far B moves beside A in step 2, under both optimizers."""
    by_descent, by_adam = (
        steps["size of ΔB"].iloc[1] / steps["size of ΔA"].iloc[1] for steps in (descent, adam)
    )
    return (
        f"In step 2, the first in which both move, B moves {by_descent:.1f} times as far as A under gradient "
        f"descent and {by_adam:.1f} times under Adam."
    )


def read_ratios(by_ratio: pd.DataFrame) -> str:
    """At which ratio one step lowers the loss most, and from which on it raises it."""
    change = by_ratio.set_index("ratio")["loss changed by"]
    rises = change.index[change > 0]
    end = (
        f"rises from a ratio of {rises.min():g} on"
        if len(rises)
        else "rises at none of these ratios"
    )
    best = change.idxmin()
    more = f", {change[best] / change.iloc[0]:.1f} times as much as at {change.index[0]:g}"
    return f"The loss falls most at a ratio of {best:g}{more if best != change.index[0] else ''}, and {end}."


def read_widths(widths: Sequence[int], effects: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """The powers of the width that the effects of both steps grow with."""
    of_A, of_B = (
        " and ".join(
            f"{slope(widths, [effect[matrix] for effect in found]):.2f} ({title})"
            for title, found in effects.items()
        )
        for matrix in "AB"
    )
    return f"The effect of A's step grows with the width to the power {of_A}, that of B's step to the power {of_B}."


def read_names(rates: pd.DataFrame) -> str:
    """Under which names the second matrix got a rate of its own.

    Args:
        rates: ``names``, ``B / A`` and ``weight decay`` of each pair, as text.
    """
    said = ", ".join(f"{row['B / A']} under “{row['names']}”" for _, row in rates.iterrows())
    decays = " and ".join(sorted(set(rates["weight decay"])))
    return f"The rate of B over that of A is {said}. The weight decay is {decays}."


def read_decay(left: Sequence[float], steps: int) -> str:
    """How much of A and of B decay takes away."""
    of_A, of_B = left
    return f"In {steps} steps without a gradient decay takes {1 - of_A:.1%} of A away, and {1 - of_B:.1%} of B."


def read_three_ways(three: pd.DataFrame, pictures: int) -> str:
    """What plus is worth beside slow and beside fast, a line a pair.

    Args:
        three: as :func:`serial_lora_course.labs.steps.three_ways` gives them.
        pictures: in the test set.
    """
    lines = []
    for pair, runs in three.groupby(level="pair", sort=False):
        points = 100 * runs.droplevel("pair")["accuracy"]
        usual, alone = points["plus"] - points["slow"], points["plus"] - points["fast"]
        lines.append(
            f"- **{pair}**: plus beside slow is {usual:+.1f} points. Plus beside fast is {alone:+.1f} points, or "
            f"{abs(alone) * pictures / 100:.0f} of {pictures} test pictures."
        )
    return "\n".join(lines)


def plus_minus_plain(plain: str) -> pd.DataFrame:
    """The paper's accuracy with the plus minus without, in points: rows shots, columns data sets."""
    table = paper_table("Table III")
    with_plus, without = (table.xs(name, level="method") for name in (f"{plain}+", plain))
    return with_plus - without


def read_paper_plus(changes: Mapping[str, pd.DataFrame]) -> str:
    """How often the plus loses in the paper's cells, by how much at worst, and on average."""
    lines = []
    for plain, change in changes.items():
        cells = change.stack()
        shots, dataset = cells.idxmin()
        means = ", ".join(f"{mean:+.1f} ({amount})" for amount, mean in change.mean(axis=1).items())
        lines.append(
            f"- **{plain}+** loses to {plain} in {(cells < 0).sum()} of {len(cells)} cells, at worst by "
            f"{-cells.min():.1f} points ({dataset}, {shots}). Means over data sets: {means}."
        )
    return "\n".join(lines)
