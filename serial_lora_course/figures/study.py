"""The study's fronts: what each method gains for its parameters, for the time of a step, for memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.style import QUIET, house_style, method_look, with_description
from serial_lora_course.figures.tables import require_columns
from serial_lora_course.labs.frames import on_front

COSTS = {
    "parameters": "trained parameters",
    "ms a step": "milliseconds of the processor a step",
    "activations, MB": "kept for a backward pass, MB",
}
"""Column -> what it is, in words."""
COLUMNS = ("arm", "title", "method", *COSTS, "gain", "half-width")


def plot_front(
    labs: Mapping[str, pd.DataFrame], units: Mapping[str, str], costs: Sequence[str] = tuple(COSTS)
) -> Figure:
    """Gain against costs, a row a lab (one cost: a column a lab); a line joins the arms that none beats.

    Args:
        costs: some of `COSTS`.
        labs: lab -> its arms, as :func:`serial_lora_course.study.tables.arms_table` gives them.
        units: lab -> the unit of its gain.

    Raises:
        SerialLoRAError: a column is missing, or a table is empty.
    """
    words, several = [], len(costs) > 1
    rows, columns = (len(labs), len(costs)) if several else (1, len(labs))
    with house_style():
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(5.2 * columns, 4.2 * rows),
            squeeze=False,
            sharey="row" if several else "none",
            layout="constrained",
        )
        axes = axes.reshape(len(labs), len(costs))
        for row, (lab, arms) in zip(axes, labs.items(), strict=True):
            require_columns(arms, COLUMNS)
            row[0].set_ylabel(f"gain, {units[lab]}")
            for axis, cost in zip(row, costs, strict=True):
                title = COSTS[cost]
                axis.set(xscale=_scale(cost), title=lab.upper(), xlabel=title)
                front = _draw(axis, arms, cost)
                words.append(f"{lab.upper()}, {title}: {front}")
        plt.close(figure)
    told = "Gain with 95% intervals over sets, against cost. On the front, from the cheapest: "
    return with_description(figure, f"{told}{'; '.join(words)}.")


def plot_budget(arms: pd.DataFrame, unit: str, cost: str, most: float) -> Figure:
    """Gain against one cost, and which arm is best among those that cost no more than ``most``.

    Raises:
        SerialLoRAError: a column is missing, the table is empty, or no arm is so cheap.
    """
    require_columns(arms, COLUMNS)
    within = arms[arms[cost] <= most]
    if within.empty:
        raise SerialLoRAError(f"No arm has {most:g} {COSTS[cost]} or fewer; allow more.")
    best = within.loc[within["gain"].idxmax()]
    serial = within[within["method"] == "serial_lora"]
    with house_style():
        figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
        axis.set(xscale=_scale(cost), xlabel=COSTS[cost], ylabel=f"gain, {unit}")
        front = _draw(axis, arms, cost)
        dearest = axis.get_xlim()[1]
        axis.axvspan(most, dearest, color=QUIET, alpha=0.15, lw=0)
        axis.set_xlim(right=dearest)
        said = (
            f"Up to {most:,.0f} {COSTS[cost]}: best is {best['title']}, {best['gain']:+.1f} {unit}"
        )
        axis.set_title(said.replace(": ", ":\n"), size=10)
        plt.close(figure)
    if len(serial):
        own = serial.loc[serial["gain"].idxmax()]
        said += f"; Serial LoRA's best, {own['title']}, {own['gain']:+.1f}"
    return with_description(figure, f"{said}. The whole front: {front}.")


def _scale(cost: str) -> str:
    """Parameters differ by a factor of hundreds, time and memory by less than two."""
    return "log" if cost == "parameters" else "linear"


def _draw(axis: Axes, arms: pd.DataFrame, cost: str) -> str:
    """One picture; its front in words. Named are the front, Serial LoRA and LoRA: else no name is legible."""
    front = on_front(arms, "gain", cost)
    axis.plot(front[cost], front["gain"], color=QUIET, zorder=1)
    points = arms.dropna(subset=[cost])
    columns = ["title", "method", cost, "gain", "half-width"]
    for title, method, x, gain, spread in points[columns].to_numpy():
        look = method_look(method)
        named = title in set(front["title"]) or method in ("serial_lora", "lora")
        bars = {"elinewidth": 0.8, "alpha": 1.0 if named else 0.4}
        axis.errorbar(x, gain, spread, color=look["color"], marker=look["marker"], **bars)
        if named:
            axis.annotate(title, (x, gain), (4, 4), textcoords="offset points", size=7)
    best = front[["title", "gain"]].to_numpy()
    return "; ".join(f"{title} {gain:+.1f}" for title, gain in best) or "nothing measured"
