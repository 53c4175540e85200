"""What one measurement is; and differences with their intervals beside a margin."""

from __future__ import annotations

from collections.abc import Sequence

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
        middle.set(title="seeds and means (bars)", ylabel="difference, Dice × 100")
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


def plot_margins(judged: Sequence[tuple]) -> Figure:
    """Serial LoRA's differences, a lab beside the other; thick by themselves, thin for all together.

    What is too far behind is shaded.

    Args:
        judged: lab, rival, mean, half of its interval, half of that for all together, margin, the verdict by it,
            how many data sets there are, and how many would show that equal methods hold; two rivals a lab.
    """
    labs, told = list(dict.fromkeys(row[0] for row in judged)), []
    with styled_figure(9.6, 3.7) as figure:
        panels = np.atleast_1d(figure.subplots(1, len(labs)))
        for axes, lab in zip(panels, labs, strict=True):
            rows = [row for row in judged if row[0] == lab]
            reach = 1.12 * max(max(abs(row[2]) + row[4], 1.5 * row[5]) for row in rows)
            axes.axvspan(-reach, -rows[0][5], color="#f7ddcc", lw=0, zorder=0)
            axes.axvline(0, color=INK, lw=1)
            for place, (_, rival, *numbers) in enumerate(rows):
                mean, half, wide, margin, verdict, sets, needed = numbers
                look = {"color": VERDICTS.get(verdict, INK)}
                axes.errorbar(mean, place, xerr=wide, marker="o", capsize=6, lw=1.2, **look)
                axes.plot(
                    [mean - half, mean + half], [place] * 2, lw=5, solid_capstyle="butt", **look
                )
                box = {"facecolor": "white", "lw": 0, "pad": 1.5, "alpha": 0.8}
                style = {"ha": "center", "va": "bottom", "bbox": box} | look
                words = f"{verdict}: {sets} sets, {needed} needed"
                axes.text(0, place - 0.2, words, weight="bold", fontsize=10, **style)
                told.append(
                    f"{TITLES[lab]}, against {NAMES[rival]} {mean:+.2f} ± {half:.2f}, with the others ± {wide:.2f}, "
                    f"margin {margin:g}: {words}"
                )
            axes.text(-reach, 1.65, " too far\n behind", size=9, color=VERMILION, va="bottom")
            axes.set(xlim=(-reach, reach), ylim=(1.7, -0.7), yticks=[], title=TITLES[lab])
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
        words = [NAMES[row[1]].replace("LoRA", "against\nLoRA") for row in rows]
        key = "thick: this interval alone, thin: for all together, gives the verdict"
        figure.supxlabel(key, fontsize=10, color=QUIET)
        panels[0].set_yticks(range(len(words)), words)
        panels[0].tick_params("y", length=0)
    return with_description(
        figure, f"Serial LoRA's difference with its 95% interval. {'; '.join(told)}."
    )
