"""Figures of lesson 09 and of the appendix: pairs, differences with their errors, how often luck wins.

As everywhere, each returns a figure that carries its description in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)


@dataclass(frozen=True)
class Interval:
    """A mean difference with its 95% confidence interval, to draw.

    Attributes:
        name: what is compared, at the left.
        group: intervals of one group share a colour and a marker.
        mean, half, margin: in one unit; half is half of the interval. The picture is in margins.
        unit: for the words.
    """

    name: str
    group: str
    mean: float
    half: float
    margin: float
    unit: str


def plot_intervals(intervals: Sequence[Interval]) -> Figure:
    """Mean differences with their 95% intervals, each in its own margin.

    In margins all measures fit on one axis: right of 0 speaks for the first method, and left of -1
    it is behind by more than the margin.
    """
    groups = list(dict.fromkeys(each.group for each in intervals))
    looks = [(BLUE, "o"), (GREEN, "v"), (VERMILION, "s"), (QUIET, "D")]
    with house_style():
        figure = Figure(figsize=(8.6, 1.5 + 0.42 * len(intervals)), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(-1, 1, color="#f0f0f0", zorder=0, label="within the margin")
        axes.axvline(0, color=QUIET, linewidth=1)
        for row, each in enumerate(intervals):
            colour, marker = looks[groups.index(each.group) % len(looks)]
            first = all(other.group != each.group for other in intervals[:row])
            axes.errorbar(
                each.mean / each.margin,
                row,
                xerr=each.half / each.margin,
                color=colour,
                marker=marker,
                capsize=4,
                label=each.group if first else None,
            )
        axes.set_yticks(range(len(intervals)), [each.name for each in intervals])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("difference, in margins (bars: 95% confidence intervals)")
        figure.legend(loc="outside upper left", ncols=2)
    phrases = "; ".join(
        f"{each.name}, {each.group}: {each.mean:+.2f} ± {each.half:.2f} {each.unit}, margin "
        f"{each.margin:g}"
        for each in intervals
    )
    return with_description(figure, f"Mean differences with 95% confidence intervals. {phrases}.")


def plot_pairs(table: pd.DataFrame, unit: str, half: float) -> Figure:
    """Two methods' results on the same draws: a line joins a pair; beside it, the differences.

    A bar across a set's differences is their mean.

    Args:
        table: an index of data set and seed, and two columns of scores, named by their methods.
        unit: of a difference, in words.
        half: half of the 95% confidence interval of the mean difference.
    """
    other, one = table.columns
    difference = table[one] - table[other]
    names = list(dict.fromkeys(table.index.get_level_values("dataset")))
    looks = list(zip((BLUE, VERMILION, GREEN, PURPLE, INK, QUIET), "osv^DP", strict=True))
    with house_style():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
        for place, name in enumerate(names):
            colour, marker = looks[place % len(looks)]
            rows, label = table.loc[name], name
            for pair in rows.to_numpy():
                left.plot([0, 1], pair, color=colour, marker=marker, label=label)
                label = None
            own = difference.loc[name]
            right.plot([place] * len(own), own, marker, color=colour)
            right.hlines(own.mean(), place - 0.25, place + 0.25, color=colour)
        mean = difference.mean()
        right.errorbar(len(names), mean, half, color=INK, marker="_", markersize=14, capsize=6)
        right.axhline(0, color=QUIET, linewidth=1)
        right.set_xticks(range(len(names) + 1), [*names, "mean"], rotation=30)
        right.set_title(f"{method_look(one)['label']} minus {method_look(other)['label']}")
        right.set_ylabel(unit)
        left.set_xticks([0, 1], [method_look(name)["label"] for name in (other, one)])
        left.set(xlim=(-0.2, 1.2), title="one line a data set and seed", ylabel=f"score, in {unit}")
        figure.legend(loc="outside upper center", ncols=len(names))
    ahead = int((difference > 0).sum())
    spans = ", ".join(
        f"{name} {difference.loc[name].min():+.1f} to {difference.loc[name].max():+.1f}"
        for name in names
    )
    return with_description(
        figure,
        f"{len(table)} pairs: {method_look(one)['label']} is above {method_look(other)['label']} in "
        f"{ahead}. Differences in {unit}: {spans}; mean {mean:+.2f}, 95% interval "
        f"{mean - half:+.2f} to {mean + half:+.2f}.",
    )


def plot_wins(simulated: Mapping[str, np.ndarray], cells: int, real: Mapping[str, int]) -> Figure:
    """How often a number of best cells comes about by luck, one picture a way to count.

    Args:
        simulated: a title to the best cells counted in each simulated table, (tables,) whole numbers.
        cells: in a table.
        real: a title to the number in a real table, drawn as a line.
    """
    phrases = []
    with house_style():
        figure = Figure(figsize=(3.6 * len(simulated), 3.2), layout="constrained")
        grid = figure.subplots(1, len(simulated), squeeze=False, sharey=True)[0]
        for axes, (title, counts) in zip(grid, simulated.items(), strict=True):
            share = np.bincount(np.asarray(counts, dtype=int), minlength=cells + 1) / len(counts)
            axes.bar(range(cells + 1), 100 * share, color=BLUE, width=0.8)
            if title in real:
                axes.axvline(real[title], color=INK, linestyle="--")
                side = "right" if real[title] > 0.75 * cells else "left"
                place = {"ha": side, "va": "top", "transform": axes.get_xaxis_transform()}
                axes.text(real[title], 0.97, " in the paper ", fontsize=10, **place)
            axes.set_title(title)
            axes.set_xticks(range(0, cells + 1, 2))
            phrases.append(
                f"{title}: mean {np.mean(counts):.1f}, at most one in twenty above "
                f"{np.quantile(counts, 0.95):.0f}"
                + (f", {real[title]} in the paper" if title in real else "")
            )
        grid[0].set_ylabel("% of tables")
        figure.supxlabel(f"best cells of {cells}", fontsize=11)
    return with_description(
        figure, f"Best cells of {cells} by luck, in {len(counts):,} tables. {'; '.join(phrases)}."
    )
