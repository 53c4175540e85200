"""Sums of adapters beside others as large, a table of adapters and customers, and a gather."""

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


def plot_sums(
    counted: Sequence[int],
    as_trained: Sequence[tuple[int, float]],
    at_random: Sequence[Sequence[tuple[int, float]]],
    levels: Mapping[str, int],
) -> Figure:
    """Right answers, and how far features move: a line for adapters as trained, a band for turned ones.

    Args:
        counted: the adapters in the sum, on the first axis.
        as_trained: both values at each of them.
        at_random: the same, for each random draw.
        levels: name -> right answers, dotted across the first panel.
    """
    words, titles = [], ("right answers", "how far the others move a picture's features")
    note = {"textcoords": "offset points", "ha": "center", "fontsize": 10}
    with styled_figure(11, 4.2) as figure:
        every = figure.subplots(1, 2)
        for i, (axes, title) in enumerate(zip(every, titles, strict=True)):
            trained, draws = ([row[i] for row in as_trained], np.array(at_random)[..., i])  # (D, k)
            low, high = draws.min(0), draws.max(0)
            axes.plot(counted, trained, color=VERMILION, marker="o", label="as trained")
            look = {"color": BLUE, "marker": "s", "linestyle": DASHED}
            axes.plot(counted, draws.mean(0), label="turned at random, as large", **look)
            axes.fill_between(counted, low, high, color=BLUE, alpha=0.18, linewidth=0)
            shape = (".0f", ".2f")[i]
            for where, value in zip(counted[1:], trained[1:], strict=True):
                at = {"xytext": ((24, 3), (0, 9))[i], "color": VERMILION}
                axes.annotate(f"{value:{shape}}", (where, value), **note, **at)
            told = f"{low[-1]:{shape}} to {high[-1]:{shape}}"
            axes.annotate(told, (counted[-1], high[-1]), xytext=(-16, 6), color=BLUE, **note)
            axes.set(title=title, xlabel="adapters in the sum", xticks=counted)
            ends = min(trained), max(*trained, draws.max())
            axes.set_ylim(*((0.8 * ends[0], 1.08 * ends[1]), (0, 1.2 * ends[1]))[i])
            numbers = ", ".join(f"{value:{shape}}" for value in trained)
            words.append(f"{title}: as trained {numbers}; turned {told} in the last")
        for name, level in levels.items():
            every[0].axhline(level, color=QUIET, linestyle=":", linewidth=1.4)
            under = note | {"ha": "left", "xytext": (-4, 6)}
            every[0].annotate(f"{name}: {level}", (counted[0], level), **under)
            words.append(f"{name}: {level}")
        every[1].legend(loc="upper left")
    return with_description(
        figure, f"With {list(counted)} adapters in the sum. {'; '.join(words)}."
    )


def plot_table(
    hits: Mapping[tuple[str, str], Tensor],
    rows: Sequence[str],
    title: str,
    totals: Sequence[str] = (),
) -> Figure:
    """How many are right: a row an adapter, a column a customer; a frame where both are one.

    Blue is more than in the first row, red less.

    Args:
        hits: (adapter, customer) -> which pictures are named right.
        rows: the adapters that are shown.
        title: what is counted.
        totals: what is told of each row, to the right of it.
    """
    columns = list(dict.fromkeys(customer for _, customer in hits))
    table = np.array([[int(hits[row, column].sum()) for column in columns] for row in rows])
    width = 1.15 * len(columns) + 1.6 + 1.8 * bool(totals)
    with styled_figure(width, 0.5 * len(rows) + 1) as figure:
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
        for y, total in enumerate(totals):
            axes.text(len(columns) - 0.3, y, total, va="center", weight="bold")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(title=title, xlabel="pictures of", ylabel="adapter")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    told = [f"{row}: {', '.join(map(str, line))}" for row, line in zip(rows, table, strict=True)]
    for y, total in enumerate(totals):
        told[y] += f", in all {total}"
    return with_description(
        figure, f"{title}. Columns: {', '.join(columns)}. Rows: {'; '.join(told)}."
    )


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
    with styled_figure(5.4 * len(panels), 0.68 * max(len(names), len(shown)) + 0.4) as figure:
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
