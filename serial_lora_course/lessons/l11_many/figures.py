"""Some ways of doing one thing beside each other, a table of adapters and customers, and a gather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = (
    {"color": VERMILION, "marker": "o"},
    {"color": BLUE, "marker": "s", "linestyle": DASHED},
    {"color": GREEN, "marker": "D", "linestyle": (0, (1, 1.5)), "markersize": 8},
)


def plot_ways(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    x: str,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """A panel for each thing measured, and in it a line a way. The first axis doubles.

    Args:
        panels: what is measured -> way -> points (x, value).
        x: what is on the first axis.
        levels: name -> value, dotted across each panel; without them each line's last value is told.
    """
    words = []
    with styled_figure(5.2 + 2.6 * len(panels), 4) as figure:
        for axes, (y, ways) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for (name, points), look in zip(ways.items(), LOOKS, strict=False):
                axes.plot(*zip(*points, strict=True), label=name, **look)
                said = ", ".join(f"{value:.0f} at {where:g}" for where, value in points)
                words.append(f"{y}, {name}: {said}")
                place = {"xytext": (8, -4), "textcoords": "offset points"}
                if levels is None:
                    axes.annotate(f"{points[-1][1]:.0f}", points[-1], **place)
                    continue
                best = [max(value for _, value in at) for at in zip(*ways.values(), strict=True)]
                told = points if name == next(iter(ways)) else points[1:]  # all begin at one place
                for (where, value), highest in zip(told, best[-len(told) :], strict=True):
                    place = {"textcoords": "offset points", "ha": "center", "fontsize": 10}
                    place |= {"xytext": (0, 8 if value == highest else -17), "color": look["color"]}
                    axes.annotate(f"{value:.0f}", (where, value), **place)
            places = [where for where, _ in points]
            for name, level in (levels or {}).items():
                axes.axhline(level, color=QUIET, linestyle=":", linewidth=1.4)
                below = {"xytext": (0, -14), "textcoords": "offset points"}
                axes.annotate(f"{name}: {level:.0f}", (places[0], level), **below)
                words.append(f"{name}: {level:.0f}")
            axes.set_xscale("log", base=2)
            axes.set_xticks(places, [f"{where:g}" for where in places])
            highest = max(value for points in ways.values() for _, value in points)
            axes.set(xlabel=x, ylabel=y, ylim=(0, 1.12 * highest))
            if axes is figure.axes[0] or [*ways] != [*next(iter(panels.values()))]:
                axes.legend(loc="lower left" if levels else "upper left")
    return with_description(figure, f"Over {x}. {'; '.join(words)}.")


def plot_table(counts: Mapping[tuple[str, str], int], title: str) -> Figure:
    """A square of counts: a row an adapter, a column a customer; a frame where both are one.

    Blue is more than in the first row, red less.

    Args:
        counts: (adapter, customer) -> how many.
        title: what is counted.
    """
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*counts, strict=True))
    table = np.array([[counts[row, column] for column in columns] for row in rows])
    with styled_figure(1.15 * len(columns) + 1.6, 0.5 * len(rows) + 1) as figure:
        axes = figure.subplots()
        gains = table - table[0]
        reach = 1.6 * max(abs(gains).max(), 1)
        axes.imshow(gains, "RdBu", aspect="auto", vmin=-reach, vmax=reach)
        for (y, row), (x, column) in product(enumerate(rows), enumerate(columns)):
            same = row == column
            axes.text(x, y, table[y, x], ha="center", va="center", weight="bold" if same else None)
            if same:
                frame = {"edgecolor": VERMILION, "facecolor": "none", "linewidth": 2.4}
                axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, **frame))
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(title=title, xlabel="pictures of", ylabel="adapter")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    told = "; ".join(
        f"{row}: {', '.join(map(str, line))}" for row, line in zip(rows, table, strict=True)
    )
    return with_description(figure, f"{title}. Columns: {', '.join(columns)}. Rows: {told}.")


def plot_gather(
    pictures: Tensor,
    names: Sequence[str],
    panels: Mapping[str, tuple[Sequence[int], Sequence[tuple[str, bool]]]],
) -> Figure:
    """Which of the stored adapters each picture of a batch gets, and what it is named with it.

    Args:
        pictures: (B, 3, H, W), of any range.
        names: of the adapters, in their order.
        panels: title -> each picture's adapter, and its answer with whether that is right.
    """
    words, colours = [], ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C7")
    low, high = pictures.amin((1, 2, 3), keepdim=True), pictures.amax((1, 2, 3), keepdim=True)
    shown = ((pictures - low) / (high - low)).permute(0, 2, 3, 1)  # (B, H, W, 3)
    with styled_figure(5.4 * len(panels), 0.72 * len(shown) + 0.4) as figure:
        for axes, (title, (which, answers)) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for k, name in enumerate(names):
                box = {"facecolor": colours[k % 8], "alpha": 0.3 if k in which else 0.1}
                axes.add_patch(Rectangle((0, k - 0.3), 2.3, 0.6, **box))
                axes.text(1.15, k, f"{k} {name}", ha="center", va="center", fontsize=10)
            for i, (picture, k, (answer, right)) in enumerate(
                zip(shown, which, answers, strict=True)
            ):
                axes.plot([2.3, 4], [k, i], color=colours[k % 8], linewidth=2.2)
                axes.imshow(picture, extent=(4, 4.9, i + 0.45, i - 0.45), aspect="auto")
                told = f"{'✓' if right else '✗'} {answer}"
                axes.text(5.1, i, told, va="center", color=GREEN if right else VERMILION)
                words.append(f"{title}, picture {i} with {names[k]}: {told}")
            axes.set(title=title, xlim=(-0.1, 8.4), ylim=(max(len(names), len(shown)) - 0.5, -0.5))
            axes.axis("off")
    return with_description(figure, f"{'; '.join(words)}.")
