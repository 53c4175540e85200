"""The race of A and B, what their steps do at a width, four runs with two rates, and two sweeps of rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    INK,
    QUIET,
    VERMILION,
    method_look,
    styled_figure,
    with_description,
)

MARKERS = "osD^vP*X"
RUNS = ("slow", "LoRA+", "A fast", "both fast")


def plot_race(races: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """How far A and B have moved over the steps, on a log scale; of two races the second is dashed.

    A line begins where a matrix has moved: weight decay alone moves A a thousand times less, which does not count.

    Args:
        races: title -> for ``A`` and ``B`` the distance from the start, before each step and at the end.
    """
    words = []
    least = max(max(line) for race in races.values() for line in race.values()) / 1000
    with styled_figure(8, 4) as figure:
        axes = figure.subplots()
        for (title, race), line in zip(races.items(), ("-", DASHED), strict=False):
            for name, colour, aside in (("A", BLUE, "top"), ("B", VERMILION, "bottom")):
                moved = {step: far for step, far in enumerate(race[name]) if far > least}
                look = {"color": colour, "linestyle": line, "linewidth": 2.2}
                axes.plot([*moved], [*moved.values()], marker="o", markevery=[0], **look)
                beside = {"xytext": (6, 0), "textcoords": "offset points", "va": aside}
                end = (len(race[name]) - 1, race[name][-1])
                words.append(f"{name}, {title}: {race[name][-1]:.2g}")
                axes.annotate(words[-1], end, color=colour, **beside)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="steps taken", ylabel="distance from the start")
        last = len(race["A"]) - 1
        axes.set_xlim(0, 1.28 * last)  # the labels stand beyond the last step
        axes.set_xticks([step for step in axes.get_xticks() if 0 <= step <= last])
        axes.spines["bottom"].set_bounds(0, last)
    return with_description(figure, f"How far A and B have moved in the end. {'; '.join(words)}.")


def plot_widths(
    widths: Sequence[int], effects: Mapping[str, Sequence[tuple[float, float]]], own: int
) -> Figure:
    """How far one step of A, and one of B, moves the output, against the width, on log scales.

    Args:
        widths: of the layer.
        effects: title of a picture -> for each width the effect of a step of A, and of one of B.
        own: the width of the lesson's model, one of them: a line, and A's effect there as a multiple of B's.
    """
    words, places = [], []
    with styled_figure(3.9 * len(effects) + 0.6, 3.6) as figure:
        panels = figure.subplots(1, len(effects), sharey=True, squeeze=False)[0]
        for axes, (title, pairs) in zip(panels, effects.items(), strict=True):
            axes.axvline(own, color=QUIET, linestyle=DASHED, linewidth=1.2)
            for name, colour, values in zip(
                "AB", (BLUE, VERMILION), zip(*pairs, strict=True), strict=True
            ):
                axes.plot(widths, values, color=colour, marker="o", linewidth=2.2)
                ahead = values[-1] >= max(pairs[-1])  # labels of lines that meet stand apart
                beside = {"xytext": (8, -3 if ahead else 3), "textcoords": "offset points"}
                beside["va"] = "bottom" if ahead else "top"
                axes.annotate(name, (widths[-1], values[-1]), color=colour, **beside)
                words.append(f"{title}, {name}: {values[0]:.2g} to {values[-1]:.2g}")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlim(
                widths[0] / 1.2, 1.7 * widths[-1]
            )  # the labels stand beyond the last width
            ticks = [width for width in widths if width != own][::2]
            axes.set_xticks(ticks, [f"{width}" for width in ticks])
            axes.spines["bottom"].set_bounds(widths[0], widths[-1])
            axes.set_title(title, fontsize=11)
            axes.set_xlabel("width d")
            of_A, of_B = pairs[widths.index(own)]
            words.append(f"at width {own} A's is {of_A / of_B:.2g} times B's")
            places.append((axes, f"ours, {own}: A's is\n{of_A / of_B:.2g} times B's"))
        panels[0].set_ylabel("change of the output by a step\nof A or B, relative to its size")
        place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 10, "color": QUIET}
        for axes, told in places:
            axes.annotate(told, (own, axes.get_ylim()[0]), **place)
    span = f"from width {widths[0]} to {widths[-1]}"
    return with_description(
        figure, f"How far one step moves the output, {span}. {'; '.join(words)}."
    )


def plot_four_runs(seeds: Sequence[Mapping[str, int]], counted: str, zero_shot: int) -> Figure:
    """Four runs as a square, mean and each seed: B's rate to the right, A's upwards; darker is more.

    Args:
        seeds: for each seed, how many are right in each of `RUNS`.
        counted: what the numbers are, such as "right of 73".
        zero_shot: how many are right without training.
    """
    words = []
    means = {name: float(np.mean([seed[name] for seed in seeds])) for name in RUNS}
    most = max(means.values())
    with styled_figure(6.6, 3.9) as figure:
        axes = figure.subplots()
        square = np.reshape([means[name] for name in RUNS], (2, 2))  # A's rate, B's rate
        colours = {"vmin": zero_shot - (most - zero_shot) / 4, "vmax": 1.4 * most}
        axes.imshow(square, "Blues", origin="lower", aspect=0.6, **colours)
        for place, name in enumerate(RUNS):
            middle = {"ha": "center", "va": "center", "color": INK}
            up, right = divmod(place, 2)
            more = f"{name} ({means[name] - means['slow']:+.1f})" if place else name
            each = "seeds: " + ", ".join(f"{seed[name]}" for seed in seeds)
            axes.text(right, up + 0.27, more, fontsize=11, **middle)
            axes.text(right, up, f"{means[name]:.1f}", fontsize=24, weight="bold", **middle)
            axes.text(right, up - 0.28, each, fontsize=11, **middle)
            words.append(f"{more}: {means[name]:.1f} ({each})")
        axes.set_xticks(range(2), ["B slow", "B fast"])
        axes.set_yticks(range(2), ["A slow", "A fast"])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.axhline(0.5, color="white", linewidth=4)
        axes.axvline(0.5, color="white", linewidth=4)
        axes.set_xlabel(counted, fontsize=10)
    return with_description(
        figure, f"Mean of each run, and how far above slow: {'; '.join(words)}."
    )


def plot_sweep(runs: pd.DataFrame) -> Figure:
    """Accuracy against the rate of A, and against that of B: a row a method, a colour for each rate of A.

    A ring marks B at A's rate. Means far below zero-shot lie under the picture, so that they do not flatten the others.

    Args:
        runs: a row a run, as `serial_lora_course.labs.frames.frame` gives them.
    """
    points = runs.assign(B=runs["lr"] * runs["ratio"], A=runs["lr"], percent=100 * runs["accuracy"])
    floor = 90 * runs["zero_shot_dataset"].mean()
    means = points.groupby(["method", "A", "B", "ratio"], as_index=False)["percent"].mean()
    methods, rates = sorted(means["method"].unique()), sorted(means["A"].unique())
    titles = {method: method_look(method)["label"].removesuffix("+") for method in methods}
    colours = matplotlib.colormaps["viridis"].resampled(len(rates) + 1)
    looks = {rate: {"color": colours(i), "marker": MARKERS[i % 8]} for i, rate in enumerate(rates)}
    words = []
    with styled_figure(8.6, 2.6 * len(methods) + 0.8) as figure:
        shape = {"sharey": True, "sharex": "col", "width_ratios": (1, 2), "squeeze": False}
        panels = figure.subplots(len(methods), 2, **shape)
        for row, method in zip(panels, methods, strict=True):
            part = means[means["method"] == method]
            for axes, name in zip(row, "AB", strict=True):
                axes.axhline(100 * runs["zero_shot_dataset"].mean(), color=QUIET, linestyle=DASHED)
                for rate, line in part.groupby("A"):
                    axes.plot(line[name], line["percent"], **looks[rate])
                equal = part[part["ratio"] == 1]
                ring = {"s": 170, "facecolors": "none", "edgecolors": INK, "zorder": 3}
                axes.scatter(equal[name], equal["percent"], **ring)
                axes.set_title(f"{titles[method]}, by {name}'s rate")
            best = part.loc[part["percent"].idxmax()]
            words.append(f"{titles[method]}: best {best['percent']:.1f}% with A at {best['A']:g}")
        for axes, name in zip(panels[-1], "AB", strict=True):
            axes.set(xscale="log", xlabel=f"learning rate of {name}", ylim=(floor, None))
            axes.xaxis.set_major_formatter("{x:g}")
        panels[-1][0].set_xticks(rates, [f"{rate:g}" for rate in rates])
        panels[-1][0].minorticks_off()
        panels[-1][0].set_xlim(rates[0] / 1.8, rates[-1] * 1.8)
        figure.supylabel("accuracy (%), mean of the seeds", fontsize=11)
        handles = [Line2D([], [], label=f"A at {rate:g}", **looks[rate]) for rate in rates]
        ring = {"linestyle": "none", "marker": "o", "color": INK, "fillstyle": "none"}
        handles += [
            Line2D([], [], label="B at A's rate", markersize=12, **ring),
            Line2D([], [], label="zero-shot", color=QUIET, linestyle=DASHED),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    told = "; ".join(words)
    return with_description(figure, f"Accuracy against A's learning rate, and against B's. {told}.")


def plot_search(searches: Mapping[str, Mapping[str, pd.Series]], ylabels: Sequence[str]) -> Figure:
    """What each rate of B reached, in a panel for each task; a line for a ratio of A's rate to B's.

    Args:
        searches: title -> name of a line -> what was reached, by B's rate.
        ylabels: of each panel.
    """
    words = []
    with styled_figure(4.4 * len(searches), 3.6) as figure:
        panels = figure.subplots(1, len(searches), squeeze=False)[0]
        for axes, (title, lines), ylabel in zip(panels, searches.items(), ylabels, strict=True):
            looks = ((BLUE, "o"), (VERMILION, "^"))
            for (name, line), (colour, marker) in zip(lines.items(), looks, strict=True):
                axes.plot(line, color=colour, marker=marker, linewidth=2.2, label=name)
                told = ", ".join(f"{rate:g}: {value:.1f}" for rate, value in line.items())
                words.append(f"{title}, {name}: {told}")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set(title=title, xlabel="learning rate of B", ylabel=ylabel)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return with_description(figure, f"What was reached at each rate of B. {'; '.join(words)}.")
