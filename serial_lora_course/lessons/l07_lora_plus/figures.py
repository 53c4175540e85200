"""The race of A and B, and accuracy over a sweep of their two rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
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


def plot_race(races: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """How far A and B have moved over the steps; of two races the second is dashed.

    The first race sets the scale, so what is far ahead of it leaves the picture.

    Args:
        races: title -> for ``A`` and ``B`` the distance from the start, before each step and at the end.
    """
    top = 1.5 * max(distances[-1] for distances in next(iter(races.values())).values())
    words = []
    with styled_figure(8, 4) as figure:
        axes = figure.subplots()
        for (title, race), line in zip(races.items(), ("-", DASHED), strict=False):
            for name, colour in (("A", BLUE), ("B", VERMILION)):
                axes.plot(race[name], color=colour, linestyle=line, linewidth=2.2)
                inside = [step for step, distance in enumerate(race[name]) if distance < 0.93 * top]
                left = inside[-1] + 1 < len(race[name])
                label = f"{name}, {title}" + f" (to {race[name][-1]:.1f})" * left
                place = (inside[-1] + left, 0.93 * top if left else race[name][-1])
                beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(label, place, color=colour, **beside)
                words.append(f"{name}, {title}: {race[name][-1]:.2g}")
        axes.set(xlabel="steps taken", ylabel="distance from the start", ylim=(0, top))
        last = len(race["A"]) - 1
        axes.set_xlim(0, 1.2 * last)  # the labels stand beyond the last step
        axes.set_xticks([step for step in axes.get_xticks() if 0 <= step <= last])
        axes.spines["bottom"].set_bounds(0, last)
    return with_description(figure, f"How far A and B have moved in the end. {'; '.join(words)}.")


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
            axes.set(title=method_look(method)["label"], xlabel="learning rate of B")
        panels[0].set_ylabel("accuracy (%)")
        panels[0].set_ylim(bottom=floor)
        handles = [Line2D([], [], label=f"A at {rate:g}", **looks[rate]) for rate in rates]
        handles.append(Line2D([], [], label="zero-shot", color=QUIET, linestyle=DASHED))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    means = points.groupby(["method", "lr", "ratio"])["percent"].mean()
    words = "; ".join(
        "{}: best {:.1f}% with A at {:g} and a ratio of {:g}".format(
            method_look(method)["label"], means[method].max(), *means[method].idxmax()
        )
        for method in methods
    )
    return with_description(figure, f"Accuracy against the learning rate of B. {words}.")
