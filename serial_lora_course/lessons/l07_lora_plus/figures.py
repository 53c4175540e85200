"""The race of A and B, what their steps do at a width, a square of rates, and a search of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)


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
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0, 1.28 * last)  # the labels stand beyond the last step
        axes.set_xticks([step for step in axes.get_xticks() if 0 <= step <= last])
        axes.spines["bottom"].set_bounds(0, last)
    return with_description(figure, f"How far A and B have moved in the end. {'; '.join(words)}.")


def plot_widths(
    widths: Sequence[int], effects: Mapping[str, Sequence[Sequence[float]]], own: int
) -> Figure:
    """How far one step of A, and one of B, moves the output, against the width, on log scales.

    Args:
        widths: of the layer.
        effects: title of a picture -> for each width the effect of a step of A, and of one of B; then the most
            that each could do, which is dotted.
        own: the width of the lesson's model, one of them: a line, and A's effect there as a multiple of B's.
    """
    words, places = [], []
    with styled_figure(3.9 * len(effects) + 0.6, 3.6) as figure:
        panels = figure.subplots(1, len(effects), sharey=True, squeeze=False)[0]
        for axes, (title, pairs) in zip(panels, effects.items(), strict=True):
            axes.axvline(own, color=QUIET, linestyle=DASHED, linewidth=1.2)
            *measured, most_A, most_B = zip(*pairs, strict=True)
            for name, colour, values in zip("AB", (BLUE, VERMILION), measured, strict=True):
                axes.plot(widths, values, color=colour, marker="o", linewidth=2.2)
                ahead = values[-1] >= max(pairs[-1][:2])  # labels of lines that meet stand apart
                beside = {"xytext": (8, -3 if ahead else 3), "textcoords": "offset points"}
                beside["va"] = "bottom" if ahead else "top"
                axes.annotate(name, (widths[-1], values[-1]), color=colour, **beside)
                words.append(f"{title}, {name}: {values[0]:.2g} to {values[-1]:.2g}")
            for colour, values in ((BLUE, most_A), (INK, most_B)):  # B's lies on its line
                axes.plot(widths, values, color=colour, linestyle=":", linewidth=1.8, zorder=4)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xlim(widths[0] / 1.2, 1.7 * widths[-1])  # labels stand beyond the last width
            ticks = [width for width in widths if width != own][::2]
            axes.set_xticks(ticks, [f"{width}" for width in ticks])
            axes.spines["bottom"].set_bounds(widths[0], widths[-1])
            axes.set_title(title, fontsize=11)
            axes.set_xlabel("width d")
            of_A, of_B, *_ = pairs[widths.index(own)]
            words.append(f"at width {own} A's is {of_A / of_B:.2g} times B's")
            places.append((axes, f"ours, {own}: A's is\n{of_A / of_B:.2g} times B's"))
        panels[0].set_ylabel(
            "how far one step of A or B, at one\nrate, moves an output (dotted: at most)"
        )
        place = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 10, "color": QUIET}
        for axes, told in places:
            axes.annotate(told, (own, axes.get_ylim()[0]), **place)
    span = f"from width {widths[0]} to {widths[-1]}"
    return with_description(
        figure, f"How far one step moves the output, {span}. {'; '.join(words)}."
    )


def plot_rates(
    right: Mapping[tuple[float, float], Sequence[int]], counted: str, zero_shot: int
) -> Figure:
    """Runs as a square, mean and each seed: B's rate to the right, A's upwards; darker is more, red less than zero-shot.

    Args:
        right: (A's rate, B's rate) -> how many are right in each seed.
        counted: what the numbers are, such as "right of 73".
        zero_shot: how many are right without training.
    """
    rates = sorted({rate for pair in right for rate in pair})
    words, size = [], len(rates)
    means = np.array([[np.mean(right[a, b]) for b in rates] for a in rates])
    reach = 1.9 * abs(means - zero_shot).max()
    with styled_figure(2.4 * size, 1.35 * size) as figure:
        axes = figure.subplots()
        limits = {"vmin": zero_shot - reach, "vmax": zero_shot + reach}
        axes.imshow(means, "RdBu", origin="lower", aspect="auto", **limits)
        for (up, a), (across, b) in product(enumerate(rates), enumerate(rates)):
            middle = {"ha": "center", "va": "center", "color": INK}
            each = ", ".join(f"{count}" for count in right[a, b])
            axes.text(
                across, up + 0.1, f"{means[up, across]:.1f}", fontsize=20, weight="bold", **middle
            )
            axes.text(across, up - 0.28, f"seeds: {each}", fontsize=10, **middle)
            words.append(f"A {a:g}, B {b:g}: {means[up, across]:.1f} ({each})")
            if a == b:
                frame = {"edgecolor": INK, "facecolor": "none", "linewidth": 2.4}
                axes.add_patch(Rectangle((across - 0.48, up - 0.47), 0.96, 0.94, **frame))
        for side in (axes.xaxis, axes.yaxis):
            side.set_ticks(range(size), [f"{rate:g}" for rate in rates])
        axes.set(xlabel="learning rate of B", ylabel="learning rate of A")
        axes.set_title(counted, fontsize=10)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return with_description(figure, f"{counted}. A frame: one rate for both. {'; '.join(words)}.")


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
                best = (line.idxmax(), line.max())
                axes.scatter(*best, s=200, facecolors="none", edgecolors=colour, linewidths=2)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set(title=title, xlabel="learning rate of B (ring: the best)", ylabel=ylabel)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return with_description(figure, f"What was reached at each rate of B. {'; '.join(words)}.")
