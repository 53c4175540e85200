"""The race of A and B, what their steps do at a width, four runs with two rates, and a sweep of them."""

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
                axes.annotate(f"{name}, {title}", end, color=colour, **beside)
                words.append(f"{name}, {title}: {race[name][-1]:.2g}")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="steps taken", ylabel="distance from the start")
        last = len(race["A"]) - 1
        axes.set_xlim(0, 1.2 * last)  # the labels stand beyond the last step
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
    with styled_figure(3.1 * len(effects) + 0.6, 3.6) as figure:
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


def plot_four_runs(counts: Mapping[str, Mapping[str, int]], counted: str, zero_shot: int) -> Figure:
    """Four runs of each method as a square: B's rate to the right, A's upwards; darker is more.

    Args:
        counts: method -> how many are right in each of `RUNS`.
        counted: what the numbers are, such as "right of 73".
        zero_shot: how many are right before training, where the colours begin.
    """
    most, words = max(max(runs.values()) for runs in counts.values()), []
    with styled_figure(4 * len(counts), 3.5) as figure:
        panels = figure.subplots(1, len(counts), squeeze=False)[0]
        for axes, (method, runs) in zip(panels, counts.items(), strict=True):
            square = np.reshape([runs[name] for name in RUNS], (2, 2))  # A's rate, B's rate
            colours = {"vmin": zero_shot - (most - zero_shot) / 4, "vmax": 1.4 * most}
            axes.imshow(square, "Blues", origin="lower", **colours)
            for place, name in enumerate(RUNS):
                count = runs[name]
                middle = {"ha": "center", "va": "center", "color": INK}
                up, right = divmod(place, 2)
                more = f"{name} ({count - runs['slow']:+})" if place else name
                axes.text(right, up + 0.08, f"{count}", fontsize=22, weight="bold", **middle)
                axes.text(right, up - 0.27, more, fontsize=10, **middle)
                words.append(f"{method}, {more}: {count}")
            axes.set_xticks(range(2), ["B slow", "B fast"])
            axes.set_yticks(range(2), ["A slow", "A fast"])
            axes.set_title(method)
            axes.grid(visible=False)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.axhline(0.5, color="white", linewidth=4)
            axes.axvline(0.5, color="white", linewidth=4)
        figure.supxlabel(f"{counted}; zero-shot: {zero_shot}", fontsize=10)
    told = f"{'; '.join(words)}; zero-shot: {zero_shot}"
    return with_description(figure, f"Pictures {counted}, and how many more than slow. {told}.")


def plot_sweep(runs: pd.DataFrame) -> Figure:
    """Accuracy against the rate of B: a picture a method, a line of means for each rate of A.

    Small dots are runs, a ring marks B at A's rate. Means far below zero-shot lie under the picture: an arrow
    points to each, so that one of them does not flatten the others.

    Args:
        runs: a row a run, as `serial_lora_course.labs.frames.frame` gives them.
    """
    points = runs.assign(rate_B=runs["lr"] * runs["ratio"], percent=100 * runs["accuracy"])
    floor = 90 * runs["zero_shot_dataset"].mean()
    methods, rates = sorted(runs["method"].unique()), sorted(runs["lr"].unique())
    titles = {method: method_look(method)["label"].removesuffix("+") for method in methods}
    colours = matplotlib.colormaps["viridis"].resampled(len(rates) + 1)
    looks = {rate: {"color": colours(i), "marker": MARKERS[i % 8]} for i, rate in enumerate(rates)}
    with styled_figure(max(6.4, 4.6 * len(methods)), 4) as figure:
        panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
        for axes, method in zip(panels, methods, strict=True):
            part = points[points["method"] == method]
            axes.axhline(100 * part["zero_shot_dataset"].mean(), color=QUIET, linestyle=DASHED)
            for rate, line in part.groupby("lr"):
                means = line.groupby("rate_B")["percent"].mean()
                axes.plot(means, **looks[rate])
                axes.scatter(line["rate_B"], line["percent"], s=9, color=looks[rate]["color"])
                for rate_B, mean in means[means < floor].items():
                    look = {"arrowstyle": "->", "color": looks[rate]["color"]}
                    place = {"xytext": (0, 28), "textcoords": "offset points", "ha": "center"}
                    axes.annotate(f"{mean:.0f}", (rate_B, floor), arrowprops=look, **place)
            equal = part[part["ratio"] == 1].groupby("rate_B")["percent"].mean()
            axes.scatter(equal.index, equal, s=170, facecolors="none", edgecolors=INK, zorder=3)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set(title=titles[method], xlabel="learning rate of B")
        panels[0].set_ylabel("accuracy (%)")
        panels[0].set_ylim(bottom=floor)
        handles = [Line2D([], [], label=f"A at {rate:g}", **looks[rate]) for rate in rates]
        bare = {"linestyle": "none", "marker": "o", "color": INK}
        handles += [
            Line2D([], [], label="one run", markersize=3, **bare),
            Line2D([], [], label="B at A's rate", markersize=12, fillstyle="none", **bare),
            Line2D([], [], label="zero-shot", color=QUIET, linestyle=DASHED),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    means = points.groupby(["method", "lr", "ratio"])["percent"].mean()
    words = "; ".join(
        "{}: best {:.1f}% with A at {:g} and a ratio of {:g}".format(
            titles[method], means[method].max(), *means[method].idxmax()
        )
        for method in methods
    )
    return with_description(figure, f"Accuracy against the learning rate of B. {words}.")
