"""What one measurement is; differences with their intervals beside a margin; and verdicts by margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.measures.intervals import half_width
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, INK, "#8c510a")
NAMES = {
    "lora": "LoRA, equal rank",
    "lora_equal_budget": "LoRA, equal size",
    "serial_lora": "Serial LoRA",
}
TITLES = {
    "clip": "CLIP, points of accuracy",
    "sam": "SAM, points of Dice (0.01)",
    "sd3": "SD3, points of style share",
}
VERDICTS = {"holds": GREEN, "open": QUIET, "fails": VERMILION}


def plot_measurement(table: pd.DataFrame, one: str, other: str) -> Figure:
    """Pairs of runs, their differences by data set, and two intervals: over runs, and over data sets.

    Args:
        table: a row for each data set and seed, a column for each method.
    """
    difference = (table[one] - table[other]).unstack("seed")  # (sets, seeds)
    names, means = list(difference.index), difference.mean(axis=1)
    runs = difference.to_numpy().ravel()
    halves = [2 * runs.std(ddof=1) / len(runs) ** 0.5]
    halves.append(float(half_width(means.sem(), len(means) - 1)))
    with styled_figure(9.6, 4.4) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.3, 0.9))
        heights = spread_out(table[one].groupby("dataset").mean())
        for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
            pairs = table.loc[name, [other, one]].to_numpy()
            left.plot([0, 1], pairs.T, color=colour, marker="o", markersize=4)
            left.text(1.06, heights[name], name, color=colour, va="center")
            middle.plot([place] * len(pairs), difference.loc[name], "o", color=colour, alpha=0.45)
            middle.hlines(means[name], place - 0.3, place + 0.3, color=colour, lw=4)
        for place in range(2):
            look = {"color": QUIET, "marker": "o", "capsize": 7, "lw": 2}  # the colour of no set
            right.errorbar(place, means.mean(), halves[place], **look)
            inside = abs(means.mean()) <= halves[place]
            low, words = means.mean() - halves[place], "contains 0" if inside else "leaves out 0"
            right.text(place, low - 0.04, words, color=QUIET, ha="center", va="top")
        left.set_xticks([0, 1], [NAMES[other].replace(", ", ",\n"), NAMES[one]])
        left.set(xlim=(-0.2, 1.75), title="pairs of runs", ylabel="Dice × 100")
        middle.set_xticks(range(len(names)), names, rotation=30)
        middle.set(title="mean of each data set", ylabel="difference")
        right.set_xticks([0, 1], [f"{len(runs)} runs", f"{len(names)} data sets"])
        right.set(title="interval of the mean", xlim=(-0.6, 1.6))
        for axes in (middle, right):
            axes.axhline(0, color=INK, lw=1)
            axes.set_ylim(min(runs.min(), 0) - 0.25, runs.max() + 0.25)
        for axes in (left, right):
            axes.grid(visible=False, axis="x")
    told = "; ".join(f"{name} {mean:+.2f}" for name, mean in means.items())
    return with_description(
        figure,
        f"{NAMES[one]} minus {NAMES[other]}. Means of the data sets: {told}. The mean {means.mean():+.2f}, "
        f"± {halves[0]:.2f} over {len(runs)} runs, ± {halves[1]:.2f} over {len(names)} data sets.",
    )


def spread_out(heights: pd.Series) -> dict[str, float]:
    """Heights of labels, from below, each a line's height above the one before."""
    found, apart = {}, 0.06 * (heights.max() - heights.min())
    for name, height in heights.sort_values().items():
        found[name] = max([height, *(other + apart for other in found.values())])
    return found


def plot_margins(judged: Sequence[tuple[str, str, float, float, float, str]]) -> Figure:
    """Intervals of Serial LoRA's differences, a lab beside the other, with what is too far behind shaded.

    Args:
        judged: lab, rival, mean, half of the interval, margin, and the verdict, two rivals a lab.
    """
    labs = list(dict.fromkeys(row[0] for row in judged))
    with styled_figure(9.6, 3.2) as figure:
        panels = np.atleast_1d(figure.subplots(1, len(labs)))
        for axes, lab in zip(panels, labs, strict=True):
            rows = [row for row in judged if row[0] == lab]
            ends = [abs(row[2]) + row[3] for row in rows]
            reach = 1.15 * max(*ends, 1.5 * rows[0][4])
            axes.axvspan(-reach, -rows[0][4], color="#f7ddcc", lw=0, zorder=0)
            axes.axvline(0, color=INK, lw=1)
            for place, (_, _, mean, half, _, verdict) in enumerate(rows):
                colour = VERDICTS.get(verdict, INK)
                axes.errorbar(mean, place, xerr=half, color=colour, marker="o", capsize=6, lw=2)
                box = {"facecolor": "white", "lw": 0, "pad": 1.5}
                style = {"color": colour, "ha": "center", "va": "bottom", "weight": "bold"}
                axes.text(mean, place - 0.2, verdict, bbox=box, **style)
            axes.text(-reach, 1.65, " too far\n behind", size=9, color=VERMILION, va="bottom")
            axes.set(xlim=(-reach, reach), ylim=(1.7, -0.7), yticks=[], title=TITLES[lab])
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
        words = [NAMES[row[1]].replace("LoRA", "against\nLoRA") for row in rows]
        panels[0].set_yticks(range(len(words)), words)
        panels[0].tick_params("y", length=0)
    told = "; ".join(
        f"{TITLES[lab]}, against {NAMES[rival]} {mean:+.2f} ± {half:.2f}, margin {margin:g}: {verdict}"
        for lab, rival, mean, half, margin, verdict in judged
    )
    return with_description(figure, f"Serial LoRA's difference with its 95% interval. {told}.")


def plot_strips(margins: Sequence[float], strips: Mapping[str, Sequence[str]]) -> Figure:
    """Which verdict a comparison gets at which margin: a strip for each, from small margins to large.

    Args:
        margins: equally far apart, in multiples of the one that was chosen.
        strips: name of a comparison -> its verdict at each margin.
    """
    step, told = margins[1] - margins[0], []
    with styled_figure(9.6, 3.2) as figure:
        axes = figure.subplots()
        for place, (name, verdicts) in enumerate(strips.items()):
            left, parts = 0.0, []
            for verdict, run in groupby(verdicts):
                width = step * len([*run])
                colour = VERDICTS.get(verdict, INK)
                axes.barh(place, width, left=left, height=0.7, color=colour, alpha=0.8, lw=0)
                if width > 0.09 * step * len(margins):
                    style = {"color": "white", "ha": "center", "va": "center", "weight": "bold"}
                    axes.text(left + width / 2, place, verdict, **style)
                left += width
                parts.append(f"{verdict} up to {left:.1f}")
            told.append(f"{name}: {', '.join(parts)}")
        axes.axvline(1, color=INK, lw=2)
        axes.text(1, -0.55, "our margin", ha="center", va="bottom")
        for at, (verdict, colour) in zip((0.99, 0.9, 0.81), VERDICTS.items(), strict=True):
            style = {"color": colour, "weight": "bold", "ha": "right", "va": "bottom"}
            axes.text(at, 1.01, f"■ {verdict}", transform=axes.transAxes, **style)
        axes.set_yticks(range(len(strips)), strips)
        axes.set(xlim=(0, left), ylim=(len(strips) - 0.4, -0.5))
        axes.set_xlabel("the margin, in multiples of ours")
        axes.grid(visible=False)
    return with_description(figure, f"Verdicts by margin, in multiples of ours. {'; '.join(told)}.")
