"""What one measurement is, false positives, differences beside a margin, and what an answer costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from serial_lora_course.measures.intervals import half_width
from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
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
    """Pairs of runs, their differences by data set, and three intervals of the mean.

    Over runs with two standard errors, over data sets with two, and over data sets by Student's t.

    Args:
        table: a row for each data set and seed, a column for each method.
    """
    difference = (table[one] - table[other]).unstack("seed")  # (sets, seeds)
    names, means = list(difference.index), difference.mean(axis=1)
    runs = difference.to_numpy().ravel()
    halves = {
        f"{len(runs)} runs,\n2 s.e.": 2 * runs.std(ddof=1) / len(runs) ** 0.5,
        f"{len(names)} sets,\n2 s.e.": 2 * float(means.sem()),
        f"{len(names)} sets,\nt": float(half_width(means.sem(), len(means) - 1)),
    }
    with styled_figure(9.6, 4.4) as figure:
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.2, 1))
        heights = spread_out(table[one].groupby("dataset").mean())
        for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
            pairs = table.loc[name, [other, one]].to_numpy()
            left.plot([0, 1], pairs.T, color=colour, marker="o", markersize=4)
            left.text(1.06, heights[name], name, color=colour, va="center")
            middle.plot([place] * len(pairs), difference.loc[name], "o", color=colour, alpha=0.45)
            middle.hlines(means[name], place - 0.3, place + 0.3, color=colour, lw=4)
        for place, half in enumerate(halves.values()):
            look = {"color": QUIET, "marker": "o", "capsize": 7, "lw": 2}  # the colour of no set
            right.errorbar(place, means.mean(), half, **look)
            words = "0 is\ninside" if abs(means.mean()) <= half else "0 is\noutside"
            low = min(means.mean() - half, 0)
            right.text(place, low - 0.04, words, color=QUIET, ha="center", va="top", fontsize=10)
        left.set_xticks([0, 1], [NAMES[other].replace(", ", ",\n"), NAMES[one]])
        left.set(xlim=(-0.2, 1.75), title="pairs of runs", ylabel="Dice × 100")
        middle.set_xticks(range(len(names)), names, rotation=30)
        middle.set(title="seeds and means (bars)", ylabel="difference, Dice × 100")
        right.set_xticks(range(len(halves)), list(halves))
        right.set(title="intervals of the mean", xlim=(-0.6, 2.6))
        for axes in (middle, right):
            axes.axhline(0, color=INK, lw=1)
            axes.set_ylim(min(runs.min(), 0) - 0.25, runs.max() + 0.25)
        for axes in (left, right):
            axes.grid(visible=False, axis="x")
    told = "; ".join(f"{name} {mean:+.2f}" for name, mean in means.items())
    widths = "; ".join(f"± {half:.2f} from {words}" for words, half in halves.items())
    return with_description(
        figure,
        f"{NAMES[one]} minus {NAMES[other]}. Means of the data sets: {told}. Their mean {means.mean():+.2f}: {widths}.",
    )


def spread_out(heights: pd.Series) -> dict[str, float]:
    """Heights of labels, from below, each a line's height above the one before."""
    found, apart = {}, 0.06 * (heights.max() - heights.min())
    for name, height in heights.sort_values().items():
        found[name] = max([height, *(other + apart for other in found.values())])
    return found


def plot_false_positives(rates: pd.DataFrame, guess: float | None) -> Figure:
    """How often each interval finds a winner between equal methods, by seeds.

    Args:
        rates: a row for each number of seeds, a column for each kind of interval.
        guess: the learner's, in percent, for the first interval and the most seeds.
    """
    looks = ((VERMILION, "o"), (BLUE, "s"), (GREEN, "^"))
    with styled_figure(7.6, 3.9) as figure:
        axes = figure.subplots()
        axes.plot([0, rates.index[-1]], [5, 5], color=INK, lw=1, linestyle=DASHED)
        for name, (color, marker) in zip(rates, looks, strict=False):
            heights = 100 * rates[name].astype(float)
            axes.plot(rates.index, heights, color=color, marker=marker, lw=2)
            words = f"{name}: {heights.iloc[-1]:.0f}%"
            axes.annotate(
                words,
                (rates.index[-1], heights.iloc[-1]),
                (8, 0),
                color=color,
                textcoords="offset points",
                va="center",
            )
        if guess is not None:
            axes.plot(rates.index[-1], guess, "x", color=INK, markersize=9, mew=2)
            axes.annotate(
                "your guess",
                (rates.index[-1], guess),
                (-10, 4),
                ha="right",
                textcoords="offset points",
                va="bottom",
            )
        axes.text(12, 5.8, "promised: 5%", fontsize=10, va="bottom")
        axes.set(
            xlabel="seeds for each of the five data sets",
            ylabel="false positives, %",
            ylim=(0, max(80, guess or 0)),
            xlim=(0, rates.index[-1] * 1.42),
            xticks=list(rates.index),
            title="Equal methods: how often is zero left out?",
        )
        axes.grid(visible=False, axis="x")
    told = "; ".join(
        f"{name} {', '.join(f'{share:.0%} with {seeds}' for seeds, share in rates[name].items())}"
        for name in rates
    )
    return with_description(figure, f"False positives by seeds, five data sets. {told}.")


def plot_margins(judged: Sequence[tuple]) -> Figure:
    """Serial LoRA's differences, a lab beside the other; thick by themselves, thin for all together.

    What is too far behind is shaded.

    Args:
        judged: lab, rival, mean, half of its interval, half of that for all together, margin, and the verdict
            by it; two rivals a lab.
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
                mean, half, wide, margin, verdict = numbers
                look = {"color": VERDICTS.get(verdict, INK)}
                axes.errorbar(mean, place, xerr=wide, marker="o", capsize=6, lw=1.2, **look)
                axes.plot(
                    [mean - half, mean + half], [place] * 2, lw=5, solid_capstyle="butt", **look
                )
                box = {"facecolor": "white", "lw": 0, "pad": 1.5, "alpha": 0.8}
                style = {"ha": "center", "va": "bottom", "bbox": box} | look
                axes.text(mean, place - 0.2, verdict, weight="bold", fontsize=10, **style)
                told.append(
                    f"{TITLES[lab]}, against {NAMES[rival]} {mean:+.2f} ± {half:.2f}, with the others ± {wide:.2f}, "
                    f"margin {margin:g}: {verdict}"
                )
            axes.text(-reach, 1.65, " too far\n behind", size=9, color=VERMILION, va="bottom")
            axes.set(xlim=(-reach, reach), ylim=(1.7, -0.7), yticks=[], title=TITLES[lab])
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
        words = [NAMES[row[1]].replace("LoRA", "against\nLoRA") for row in rows]
        key = "Serial LoRA minus LoRA.  Thick: 95% interval alone; thin: all six together"
        figure.supxlabel(key, fontsize=10, color=QUIET)
        panels[0].set_yticks(range(len(words)), words)
        panels[0].tick_params("y", length=0)
    return with_description(
        figure, f"Serial LoRA's difference with its 95% interval. {'; '.join(told)}."
    )


def plot_studies(spread: float, margin: float, sizes: Sequence[int]) -> Figure:
    """Where the means of studies of two equal methods land, and which of them find that the claim holds.

    Args:
        spread: the standard deviation of the data sets' means.
        margin: above 0.
        sizes: numbers of data sets, one panel each.
    """
    told = []
    with styled_figure(9.6, 3.3) as figure:
        panels = figure.subplots(1, len(sizes), sharey=True)
        for axes, size in zip(panels, sizes, strict=True):
            error = spread / size**0.5
            reach = stats.t.ppf(0.975, size - 1) * error
            share = float(stats.nct.sf(reach / error, size - 1, margin / error))  # reach varies
            where = np.linspace(-3.6, 3.6, 500)
            bell = stats.norm.pdf(where, scale=error)
            holds = where > reach - margin
            axes.fill_between(where, bell, color="#dddddd", lw=0)
            axes.fill_between(where, bell, where=holds, color=GREEN, alpha=0.75, lw=0)
            axes.axvline(0, color=INK, lw=1)
            axes.axvline(-margin, color=VERMILION, lw=2)
            arrow = {"arrowstyle": "<->", "color": QUIET, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (-margin, 1.32), (reach - margin, 1.32), arrowprops=arrow)
            axes.text(
                reach / 2 - margin,
                1.36,
                "reach",
                color=QUIET,
                ha="center",
                fontsize=10,
                bbox={"facecolor": "white", "lw": 0, "pad": 1},
            )
            axes.axvline(reach - margin, color=GREEN, lw=1.2, linestyle=DASHED)
            title = f"{size} data sets: {share:.0%} hold"
            axes.set(title=title, xlim=(-3.6, 3.6), ylim=(0, 1.55), yticks=[])
            axes.set_xticks([-margin, 0], ["minus\nmargin", "0"])
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
            told.append(f"{size} data sets: reach {reach:.2f}, {share:.0%} hold")
        figure.supxlabel("mean of a study of two equal methods", fontsize=10, color=QUIET)
    return with_description(
        figure,
        f"Bells of studies' means around 0, margin {margin:g}; green is right of the margin by the interval's "
        f"reach. {'; '.join(told)}.",
    )


def plot_price(curve: pd.DataFrame, margin: float, found: float, had: int) -> Figure:
    """How many data sets an answer takes, by the true difference.

    Args:
        curve: a row for each true difference; by the spread as estimated, and its low and its high end.
        margin: above 0.
        found: the mean that was found.
        had: how many data sets it stands on.
    """
    with styled_figure(7.6, 4.1) as figure:
        axes = figure.subplots()
        for side in (curve[curve.index < -margin], curve[curve.index > -margin]):
            color = VERMILION if side.index[0] < -margin else GREEN
            axes.fill_between(side.index, side["low"], side["high"], color=color, alpha=0.15, lw=0)
            axes.plot(side.index, side["estimate"], color=color, marker="o", lw=2)
        axes.axvline(-margin, color=INK, lw=1.2, linestyle=DASHED)
        axes.axvline(found, color=QUIET, lw=1.2, linestyle=":")
        axes.axhline(had, color=QUIET, lw=1)
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, had / 2), 3 * high)
        top = {"y": 2.6 * high, "va": "top", "fontsize": 10}
        sides = ("right", "left") if found < -margin else ("left", "right")
        axes.text(x=found, s=" mean found ", color=QUIET, ha=sides[0], **top)
        axes.text(x=-margin, s=" minus margin ", ha=sides[1], **top)
        right = curve.index.max()
        axes.text(
            right, had * 0.93, f"{had} run so far", color=QUIET, ha="right", va="top", fontsize=10
        )
        axes.text(
            curve.index.min(),
            curve["low"].min(),
            "finds: fails",
            color=VERMILION,
            weight="bold",
            va="top",
        )
        axes.text(
            right,
            curve["low"].min(),
            "finds: holds",
            color=GREEN,
            weight="bold",
            ha="right",
            va="top",
        )
        axes.set(
            xlabel="true difference, points of accuracy",
            ylabel="data sets",
            title="CLIP, equal rank: the price of an answer",
        )
    told = "; ".join(
        f"{truth:+.2f}: {row.estimate:.0f} ({row.low:.0f} to {row.high:.0f})"
        for truth, row in curve.iterrows()
    )
    return with_description(figure, f"Data sets by the true difference. {told}.")
