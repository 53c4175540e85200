"""The study's fronts: what each method gains for its parameters, for the time of a step, for memory."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serial_lora_course.figures.style import QUIET, house_style, method_look, with_description
from serial_lora_course.figures.tables import require_columns
from serial_lora_course.labs.frames import on_front

COSTS = {
    "parameters": "trained parameters",
    "ms a step": "milliseconds of the processor a step",
    "activations, MB": "kept for a backward pass, MB",
}
"""Column -> what it is, in words."""
COLUMNS = ("arm", *COSTS, "gain", "half-width")


def plot_front(labs: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> Figure:
    """Gain against each of `COSTS`, a row a lab; a line joins the arms that no other one beats.

    Args:
        labs: lab -> its arms, as :func:`serial_lora_course.study.tables.arms_table` gives them.
        units: lab -> the unit of its gain.

    Raises:
        SerialLoRAError: a column is missing, or a table is empty.
    """
    words = []
    with house_style():
        figure, axes = plt.subplots(
            len(labs),
            len(COSTS),
            figsize=(5.2 * len(COSTS), 4.2 * len(labs)),
            squeeze=False,
            sharey="row",
            layout="constrained",
        )
        for row, (lab, arms) in zip(axes, labs.items(), strict=True):
            require_columns(arms, COLUMNS)
            row[0].set_ylabel(f"gain over the unadapted model, {units[lab]}")
            for axis, (cost, title) in zip(row, COSTS.items(), strict=True):
                axis.set(xscale="log", title=lab.upper(), xlabel=title)
                front = _draw(axis, arms, cost)
                words.append(f"{lab.upper()}, {title}: {front}")
        plt.close(figure)
    told = (
        "Gain against three costs, with 95% intervals over sets. On the front, from the cheapest: "
    )
    return with_description(figure, f"{told}{'; '.join(words)}.")


def _draw(axis: Axes, arms: pd.DataFrame, cost: str) -> str:
    """One picture; its front in words."""
    front = on_front(arms, "gain", cost)
    axis.plot(front[cost], front["gain"], color=QUIET, zorder=1)
    points = arms.dropna(subset=[cost])
    for arm, x, gain, spread in points[["arm", cost, "gain", "half-width"]].to_numpy():
        look = method_look(arm.split("-")[0])
        axis.errorbar(x, gain, spread, color=look["color"], marker=look["marker"])
        axis.annotate(arm, (x, gain), (4, 4), textcoords="offset points", size=7)
    best = front[["arm", "gain"]].to_numpy()
    return ", ".join(f"{arm} {gain:+.1f}" for arm, gain in best) or "nothing measured"
