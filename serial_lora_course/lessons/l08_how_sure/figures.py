"""What one measurement is, false positives, differences beside a margin, and what an answer takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
WORDS = {"holds": "comparable", "open": "open", "fails": "not comparable"}


def plot_measurement(table: pd.DataFrame, one: str, other: str) -> Figure:
    """Pairs of runs, their differences by data set, and three intervals of the mean.

    Args:
        table: a row for each data set and seed, a column for each method.
    """
    difference = (table[one] - table[other]).unstack("seed")  # (sets, seeds)
    names, means = list(difference.index), difference.mean(axis=1)
    runs = difference.to_numpy().ravel()
    with styled_figure(8.4, 4.4) as figure:
        left, middle = figure.subplots(1, 2, width_ratios=(1.1, 1.2))
        ends = table[one].groupby("dataset").mean()
        heights = spread_out(ends, 0.06 * (ends.max() - ends.min()))
        for place, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
            pairs = table.loc[name, [other, one]].to_numpy()
            left.plot([0, 1], pairs.T, color=colour, marker="o", markersize=4)
            left.text(1.06, heights[name], name, color=colour, va="center")
            middle.plot([place] * len(pairs), difference.loc[name], "o", color=colour, alpha=0.45)
            middle.hlines(means[name], place - 0.3, place + 0.3, color=colour, lw=4)

        left.set_xticks([0, 1], [NAMES[other].replace(", ", ",\n"), NAMES[one]])
        left.set(xlim=(-0.2, 1.75), title="Pairs of runs", ylabel="Dice × 100")
        middle.set_xticks(range(len(names)), names, rotation=30)
        middle.set(title="Seeds, and their means", ylabel="difference, Dice × 100")
        middle.axhline(0, color=INK, lw=1)
        middle.set_ylim(min(runs.min(), 0) - 0.25, runs.max() + 0.25)
        left.grid(visible=False, axis="x")
    told = "; ".join(f"{name} {mean:+.2f}" for name, mean in means.items())
    return with_description(
        figure, f"{NAMES[one]} minus {NAMES[other]}. Means of the data sets: {told}."
    )


def plot_intervals(intervals: Mapping[str, tuple[float, float]]) -> Figure:
    """Intervals of one mean beside zero, one below the other.

    Args:
        intervals: by name, the mean and half of the interval.
    """
    told = []
    with styled_figure(7.6, 0.7 + 0.55 * len(intervals)) as figure:
        axes = figure.subplots()
        for place, (name, (mean, half)) in enumerate(intervals.items()):
            inside = abs(mean) <= half
            look: dict[str, Any] = {"color": QUIET if inside else GREEN}
            axes.errorbar(mean, place, xerr=half, marker="o", capsize=7, lw=2, **look)
            words = f"± {half:.2f}: zero is {'inside' if inside else 'outside'}"
            axes.text(mean + half, place, f"  {words}", va="center", **look)
            told.append(f"{name}: {mean:+.2f} {words}")
        reach = max(mean + half for mean, half in intervals.values())
        axes.axvline(0, color=INK, lw=1)
        axes.set_yticks(range(len(intervals)), list(intervals))
        axes.set(xlabel="lead of Serial LoRA, points of Dice", xlim=(None, 1.6 * reach))
        axes.set_ylim(len(intervals) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
    return with_description(figure, f"Intervals of the mean. {'; '.join(told)}.")


def spread_out(heights: pd.Series, apart: float) -> dict[str, float]:
    """Heights of labels, from below, each so far above the one before."""
    found: dict[str, float] = {}
    for name, height in heights.sort_values().items():
        found[name] = max([height, *(other + apart for other in found.values())])
    return found


def plot_false_positives(rates: pd.DataFrame, guess: float | None) -> Figure:
    """How often each interval finds a winner between equal methods, by seeds.

    Args:
        rates: a row for each number of seeds, a column for each kind of interval.
        guess: the learner's, in percent, for the first interval and the most seeds.
    """
    with styled_figure(7.6, 3.9) as figure:
        axes = figure.subplots()
        draw_rates(axes, rates, (VERMILION, GREEN), 5)
        mark_guess(axes, rates.index[-1], guess)
        axes.set(
            xlabel="seeds for each of the five data sets",
            ylabel="false positives, %",
            ylim=(0, max(80, guess or 0)),
            xlim=(0, rates.index[-1] * 1.42),
            title="How often an interval finds a winner between equal methods",
        )
    return with_description(
        figure, f"False positives by seeds, five data sets. {told_rates(rates)}."
    )


def plot_shapes(shapes: Mapping[str, Any], rates: pd.DataFrame, guess: float | None) -> Figure:
    """Shapes of data sets, and how often Student's interval leaves out the truth with each.

    Args:
        shapes: distributions of scipy's, with mean 0 and standard deviation 1.
        rates: a row for each number of data sets, a column for each shape.
        guess: the learner's, in percent, for six sets of the second shape.
    """
    colors = (GREEN, VERMILION, BLUE)
    with styled_figure(9.6, 3.9) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
        where = np.linspace(-3.2, 4.2, 600)
        for (name, shape), color in zip(shapes.items(), colors, strict=False):
            left.plot(where, shape.pdf(where), color=color, lw=2, label=name)
        left.axvline(0, color=INK, lw=1)
        left.set_ylim(0)
        left.legend(frameon=False, handlelength=1.2)
        left.set(yticks=[], xlabel="difference on a data set", title="Three shapes with mean 0")
        draw_rates(right, rates, colors, 0.7)
        mark_guess(right, 6, guess)
        right.set(
            xlabel="data sets",
            ylabel="false positives, %",
            ylim=(0, max(14, 1.1 * (guess or 0))),
            xlim=(2, rates.index[-1] * 1.45),
            title="How often the interval leaves out zero",
        )
        left.grid(visible=False)
    return with_description(
        figure, f"False positives by the number of data sets. {told_rates(rates)}."
    )


def draw_rates(axes: Axes, rates: pd.DataFrame, colors: Sequence[str], apart: float) -> None:
    """A line for each column, in percent; dashed at the 5% that were promised.

    Args:
        apart: how far the names at the lines' ends keep from each other, in percent.
    """
    axes.plot([0, rates.index[-1]], [5, 5], color=INK, lw=1, linestyle=DASHED)
    heights = spread_out(100 * rates.iloc[-1].astype(float), apart)
    for name, color, marker in zip(rates, colors, "o^s", strict=False):
        axes.plot(rates.index, 100 * rates[name].astype(float), color=color, marker=marker, lw=2)
        words = f"{name}: {rates[name].iloc[-1]:.0%}"
        box = {"facecolor": "white", "lw": 0, "pad": 1.5}
        end = 1.03 * rates.index[-1]
        axes.text(end, heights[name], words, color=color, va="center", bbox=box)
    axes.set_xticks(list(rates.index))
    axes.grid(visible=False, axis="x")


def mark_guess(axes: Axes, where: float, guess: float | None) -> None:
    """The learner's guess as a cross."""
    if guess is not None:
        axes.plot(where, guess, "x", color=INK, markersize=9, mew=2)
        axes.annotate("your guess", (where, guess), (9, 0), textcoords="offset points", va="center")


def told_rates(rates: pd.DataFrame) -> str:
    """In words for those who can't see the picture."""
    return "; ".join(
        f"{name} {', '.join(f'{share:.0%} with {count}' for count, share in rates[name].items())}"
        for name in rates
    )


def plot_margins(judged: Sequence[tuple]) -> Figure:
    """Serial LoRA's differences, a lab beside the other; thick by themselves, thin for all together.

    What is too far behind is shaded.

    Args:
        judged: lab, rival, mean, half of its interval, half of that for all together, margin, the verdict by
            it, and "ahead", "behind" or "open" for zero; two rivals a lab.
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
                mean, half, wide, margin, verdict, side = numbers
                words = WORDS[verdict] + f", and {side}" * (side != "open")
                look = {"color": VERDICTS.get(verdict, INK)}
                axes.errorbar(mean, place, xerr=wide, capsize=6, lw=1.2, **look)
                axes.plot(
                    [mean - half, mean + half], [place] * 2, lw=5, solid_capstyle="butt", **look
                )
                fill = "white" if side == "open" else INK
                axes.plot(mean, place, "D", ms=7, mec=INK, mfc=fill, mew=1.2)
                box = {"facecolor": "white", "lw": 0, "pad": 1.5, "alpha": 0.8}
                style = {"ha": "center", "va": "bottom", "bbox": box} | look
                axes.text(mean, place - 0.2, words, weight="bold", fontsize=10, **style)
                told.append(
                    f"{TITLES[lab]}, against {NAMES[rival]} {mean:+.2f} ± {half:.2f}, with the others ± {wide:.2f}, "
                    f"margin {margin:g}: {verdict}; against zero: {side}"
                )
            axes.text(-reach, 1.65, " too far\n behind", size=9, color=VERMILION, va="bottom")
            axes.set(xlim=(-reach, reach), ylim=(1.7, -0.7), yticks=[], title=TITLES[lab])
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
        rivals = [NAMES[row[1]].replace("LoRA", "against\nLoRA") for row in rows]
        key = "Serial LoRA minus LoRA.  Thick: 95% interval alone; thin: all six together; black: thin bar excludes zero"
        figure.supxlabel(key, fontsize=10, color=QUIET)
        panels[0].set_yticks(range(len(rivals)), rivals)
        panels[0].tick_params("y", length=0)
    return with_description(
        figure, f"Serial LoRA's difference with its 95% interval. {'; '.join(told)}."
    )


def plot_studies(studies: Mapping[int, Sequence[tuple[float, float]]], lead: float) -> Figure:
    """Intervals of simulated studies, one above the other: green if they find the lead.

    An interval that misses the true lead has a red dot.

    Args:
        studies: for each number of data sets, the mean and half of the interval of every study.
        lead: the true one.
    """
    told = []
    with styled_figure(9.6, 3.9) as figure:
        panels = figure.subplots(1, len(studies), sharey=True, sharex=True)
        for axes, (size, intervals) in zip(panels, studies.items(), strict=True):
            found = [mean - half > 0 for mean, half in intervals]
            for place, (mean, half) in enumerate(intervals):
                color = GREEN if found[place] else QUIET
                axes.plot([mean - half, mean + half], [place] * 2, color=color, lw=1.6)
                missed = abs(mean - lead) > half
                axes.plot(
                    mean, place, "o", color=VERMILION if missed else color, ms=7 if missed else 4
                )
            axes.axvline(0, color=INK, lw=1)
            axes.axvline(lead, color=INK, lw=1, linestyle=DASHED)
            axes.text(lead, len(found), " true lead", fontsize=10, va="bottom")
            title = f"{size} data sets: {sum(found)} of {len(found)} find it"
            axes.set(title=title, xlim=(lead - 1.6, lead + 1.6), yticks=[], ylim=(-1, 33))
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
            told.append(title)
        figure.supxlabel("lead of Serial LoRA, points of Dice", fontsize=10, color=QUIET)
    return with_description(figure, f"Intervals of simulated studies. {'; '.join(told)}.")


def plot_price(curves: pd.DataFrame, found: float, had: int, guess: float | None) -> Figure:
    """How many data sets it takes to find a lead, by the true lead.

    Args:
        curves: a row for each true lead; columns "one question", its "low" and "high", and "as one of six".
        found: the mean that was found.
        had: how many data sets it stands on.
        guess: the learner's, if the true lead is the mean found.
    """
    with styled_figure(7.6, 4.1) as figure:
        axes = figure.subplots()
        band: dict[str, Any] = {"color": GREEN, "alpha": 0.15, "lw": 0}
        axes.fill_between(curves.index, curves["low"], curves["high"], **band)
        for name, color, up in (("as one of six", PURPLE, 5), ("one question", GREEN, -5)):
            axes.plot(curves.index, curves[name], color=color, marker="o", lw=2)
            end = (curves.index[-1], curves[name].iloc[-1])
            axes.annotate(name, end, (8, up), color=color, textcoords="offset points", va="center")
        axes.axvline(found, color=QUIET, lw=1.2, linestyle=":")
        axes.plot([0, curves.index[-1]], [had, had], color=QUIET, lw=1)
        mark_guess(axes, found, guess)
        axes.set_yscale("log")
        ticks = (3, 5, 10, 20, 50, 100, 200)
        axes.set_yticks(ticks, ticks)
        axes.minorticks_off()
        near, high = curves.index[-2], curves["high"].iloc[-2]
        axes.text(near, 1.1 * high, "95% interval\nof the spread", color=GREEN)
        _, high = axes.get_ylim()
        look: dict[str, Any] = {"color": QUIET, "fontsize": 10}
        axes.text(found, high, " lead found", va="top", **look)
        axes.text(curves.index[0], had, f"{had} run so far", va="bottom", **look)
        axes.set(
            xlabel="true lead, points of Dice",
            ylabel="data sets",
            xlim=(0, curves.index[-1] * 1.3),
            title="The smaller the lead, the more data sets it takes",
        )
    told = "; ".join(
        f"{truth:.2f}: {row['one question']} ({row['low']} to {row['high']}), as one of six {row['as one of six']}"
        for truth, row in curves.iterrows()
    )
    return with_description(figure, f"Data sets by the true lead. {told}.")
