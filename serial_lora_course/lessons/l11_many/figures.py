"""Tables of adapters and customers, sums over the weight, others as trained and turned, and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, ScalarFormatter
from torch import Tensor

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

LOOKS = (
    {"color": BLUE, "marker": "s", "linestyle": DASHED},
    {"color": VERMILION, "marker": "o", "linestyle": "-"},
    {"color": PURPLE, "marker": "^", "linestyle": ":"},
    {"color": GREEN, "marker": "D", "linestyle": "-."},
    {"color": INK, "marker": "v", "linestyle": "-"},
)
NOTE = {"textcoords": "offset points", "ha": "center", "fontsize": 10}


def apart(named: Tensor, other: Tensor) -> tuple[int, float]:
    """How many more of the same pictures (C, N) are right, and half of its 95% interval."""
    lead = named.float() - other.float()  # 1, 0 or -1; the pictures are the sample
    return int(lead.sum()), 1.96 * float((lead.shape[1] * lead.var(dim=1).sum()).sqrt())


def plot_table(
    hits: Mapping[str, Tensor], columns: Sequence[str], title: str, totals: bool = False
) -> Figure:
    """How many are right: a row an adapter, a column a customer; a frame where both are one.

    Blue is more than in the first row, red less.

    Args:
        hits: row -> which pictures (C, N) are named right.
        columns: the C customers.
        title: what is counted.
        totals: whether the sum of a row, and how far it is from that of the first, stand at its right.
    """
    rows, (first, *_) = list(hits), hits.values()
    table = np.array([named.sum(1).tolist() for named in hits.values()])
    with styled_figure(1.15 * len(columns) + 1.6 + 1.8 * totals, 0.5 * len(rows) + 1) as figure:
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
        told = [
            f"{row}: {', '.join(map(str, line))}" for row, line in zip(rows, table, strict=True)
        ]
        for y, named in enumerate(hits.values() if totals else ()):
            lead, half = apart(named, first)
            total = f"{int(named.sum())}" + (f" ({lead:+d} ± {half:.0f})" if y else "")
            axes.text(len(columns) - 0.3, y, total, va="center", weight="bold")
            told[y] += f", in all {total}"
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(title=title, xlabel="pictures of", ylabel="adapter")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return with_description(
        figure, f"{title}. Columns: {', '.join(columns)}. Rows: {'; '.join(told)}."
    )


def plot_weights(weights: Sequence[float], curves: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """Right answers over the weight: a curve a way, and its numbers in a row under the axis.

    Bars and brackets tell how far a curve is from the one before; the first, from its own end.

    Args:
        weights: of the adapters, on the first axis.
        curves: way -> for each weight, as it is written, which pictures (C, N) are named right.
    """
    words, names = [], list(next(iter(curves.values())))
    before = dict.fromkeys(names, next(iter(curves.values()))[names[-1]])
    with styled_figure(11, 5) as figure:
        axes = figure.subplots()
        row = {"transform": axes.get_xaxis_transform(), "fontsize": 10, "y": -0.07}
        axes.text(x=-0.08, s="weight", **row, ha="right")
        for j, ((way, named), look) in enumerate(zip(curves.items(), LOOKS, strict=False)):
            counts, told = [int(each.sum()) for each in named.values()], []
            axes.plot(weights, counts, linewidth=1.8, **look)
            row |= {"color": look["color"], "y": -0.15 - 0.07 * j}
            axes.text(x=-0.08, s=way, **row, ha="right", weight="bold")
            for x, count, (at, right) in zip(weights, counts, named.items(), strict=True):
                text, (lead, half) = f"{count}", apart(right, before[at])
                if half:
                    text += f" ({lead:+d} ± {half:.0f})"
                if half and j:
                    bar = {"color": look["color"], "capsize": 4, "linewidth": 1}
                    axes.errorbar(x + 0.006 * (j - 1), count, half, **bar)
                axes.text(x=x, s=text, **row, ha="center")
                told.append(f"at {at} {text}")
            words.append(f"{way}: {', '.join(told)}")
            before = named
        axes.set_xticks(weights, names)
        title = "brackets and bars: distance to the row above (first row: to weight 1), with 95%"
        axes.set_xlim(-0.06, 1.08)
        axes.set(ylabel=f"right of {right.numel()}", title=title)
    return with_description(
        figure, f"Right of {right.numel()} over the weight; {title}. {'; '.join(words)}."
    )


def plot_sides(
    counted: Mapping[tuple[str, str], Sequence[Tensor]],
    moved: Mapping[tuple[str, str], Sequence[float]],
    levels: Mapping[str, Tensor],
) -> Figure:
    """Right answers, and how far features move, with the others in some blocks, as trained or turned.

    Args:
        counted: (blocks, side) -> for each draw, which pictures (C, N) are named right.
        moved: the same, for pictures and prompts -> for each draw, how far their features move.
        levels: name -> which pictures are named right, dotted; the first is what is compared with.
    """
    rows = list(dict.fromkeys(where for where, _ in counted))
    words, (own, *_) = [], levels.values()
    with styled_figure(11, 3.4) as figure:
        answers, far = figure.subplots(1, 2, width_ratios=(3, 2))
        for (where, side), draws in counted.items():
            trained = len(draws) == 1
            look = {"color": VERMILION if trained else BLUE, "marker": "o" if trained else "s"}
            look |= {"linestyle": "none", "markersize": 7}
            height = rows.index(where) + (-0.15 if trained else 0.15)
            counts, (lead, half) = [int(named.sum()) for named in draws], apart(draws[0], own)
            answers.plot(counts, [height] * len(counts), **look)
            words.append(f"{where}, {side}: {', '.join(map(str, counts))}")
            if trained:
                answers.errorbar(counts, [height], xerr=half, color=look["color"], capsize=4)
                words[-1] += f" ({lead:+d} ± {half:.0f})"
            if drift := moved.get((where, side)):
                label = side if where == rows[0] else None
                far.plot(drift, [height] * len(drift), label=label, **look)
                told, at = f"{np.mean(drift):.2f}", (max(drift), height)
                far.annotate(told, at, **NOTE, xytext=(20, -4), color=look["color"])
                words[-1] += f", features move by {told}"
        for name, named in levels.items():
            count = int(named.sum())
            answers.axvline(count, color=QUIET, linestyle=":", linewidth=1.4)
            answers.annotate(f"{name}: {count}", (count, -0.6), **NOTE, xytext=(0, 4))
            words.append(f"{name}: {count}")
        answers.set_yticks(range(len(rows)), rows)
        answers.set(ylabel="the other five act in", xlabel=f"right of {own.numel()}")
        far.set_title("how far features move")
        far.set_yticks([0, 1], ["pictures", "prompts"])
        far.set(xlim=(0, 1), xlabel="distance, of features of length 1")
        far.legend(loc="lower right")
        for axes in (answers, far):
            axes.set_ylim(len(rows) - 0.5, -0.6)
    return with_description(figure, f"{'; '.join(words)}.")


def plot_times(sizes: Sequence[int], ms: Mapping[str, Sequence[float]]) -> Figure:
    """Milliseconds a picture over the size of its batch, both on scales of powers: a line a way."""
    words = []
    with styled_figure(10, 4.4) as figure:
        axes = figure.subplots()
        for (way, values), look in zip(ms.items(), LOOKS, strict=False):
            axes.loglog(sizes, values, label=f"{way}: {values[-1]:.1f}", **look)
            told = ", ".join(f"{value:.1f} for {n}" for n, value in zip(sizes, values, strict=True))
            words.append(f"{way}: {told}")
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 6, 8)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        axes.set(xlabel="pictures in the batch", ylabel="ms of the processor, a picture")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=f"in a batch of {sizes[-1]}")
    return with_description(figure, f"Milliseconds a picture, by the batch. {'; '.join(words)}.")
