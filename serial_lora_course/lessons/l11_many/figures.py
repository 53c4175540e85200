"""A table of adapters and customers, sums over the weight, and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    PURPLE,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = (
    {"color": BLUE, "marker": "s", "linestyle": DASHED},
    {"color": VERMILION, "marker": "o", "linestyle": "-"},
    {"color": PURPLE, "marker": "^", "linestyle": ":"},
)


def apart(named: Tensor, other: Tensor) -> tuple[int, float]:
    """How many more of the same pictures (C, N) are right, and half of its 95% interval."""
    lead = named.float() - other.float()  # 1, 0 or -1; the pictures are the sample
    return int(lead.sum()), 1.96 * float((lead.shape[1] * lead.var(dim=1).sum()).sqrt())


def change(named: Tensor, other: Tensor) -> str:
    """How many more are right, and half of its 95% interval, in words."""
    lead, half = apart(named, other)
    return f"{lead:+d} ± {half:.0f}" if half else "+0"


def plot_table(hits: Mapping[str, Tensor], columns: Sequence[str], title: str) -> Figure:
    """How many are right: a row an adapter, a column a customer; a frame where both are one.

    Below each number stands its distance to the first row; bold, and blue or red, where it is beyond its interval.

    Args:
        hits: row -> which pictures (C, N) are named right.
        columns: the C customers.
        title: what is counted.
    """
    rows, (first, *_) = list(hits), hits.values()
    told = []
    with styled_figure(1.3 * len(columns) + 1.4, 0.62 * len(rows) + 1) as figure:
        axes = figure.subplots()
        shades = np.zeros((len(rows), len(columns)))
        for y, (row, named) in enumerate(hits.items()):
            words = []
            for x, column in enumerate(columns):
                lead, half = apart(named[x : x + 1], first[x : x + 1])
                clear = abs(lead) > half
                shades[y, x] = lead * clear
                words.append(f"{int(named[x].sum())}")
                axes.text(x, y - 0.16 * (y > 0), words[-1], ha="center", va="center", weight="bold")
                if y:
                    look = {"weight": "bold" if clear else None, "fontsize": 9}
                    axes.text(
                        x, y + 0.24, f"{lead:+d} ± {half:.0f}", ha="center", va="center", **look
                    )
                    words[-1] += f" ({lead:+d} ± {half:.0f})"
                if row == column:
                    frame = {"edgecolor": VERMILION, "facecolor": "none", "linewidth": 2.4}
                    axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, **frame))
            told.append(f"{row}: {', '.join(words)}")
        reach = 1.8 * max(abs(shades).max(), 1)
        axes.imshow(shades, "RdBu", aspect="auto", vmin=-reach, vmax=reach)
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

    Bars and brackets tell how far a curve is from the one before.

    Args:
        weights: of the adapters, on the first axis.
        curves: way -> for each weight, as it is written, which pictures (C, N) are named right.
    """
    words, names = [], list(next(iter(curves.values())))
    before = next(iter(curves.values()))
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
                if half:
                    bar = {"color": look["color"], "capsize": 4, "linewidth": 1}
                    axes.errorbar(x + 0.006 * (j - 1), count, half, **bar)
                axes.text(x=x, s=text, **row, ha="center")
                told.append(f"at {at} {text}")
            words.append(f"{way}: {', '.join(told)}")
            before = named
        axes.set_xticks(weights, names)
        title = "brackets and bars: the difference from the row above, with its 95% interval"
        axes.set_xlim(-0.06, 1.08)
        axes.set(ylabel=f"right of {right.numel()}", title=title)
    return with_description(
        figure, f"Right of {right.numel()} over the weight; {title}. {'; '.join(words)}."
    )


def plot_times(
    sizes: Sequence[int], groups: Sequence[int], ms: Mapping[tuple[str, int, int], Sequence[float]]
) -> Figure:
    """Milliseconds a picture, over the pictures in a batch of strangers, and over the customers in a full one.

    Args:
        sizes: pictures in a batch, each of another customer.
        groups: how many customers share a batch of the largest size.
        ms: (way, pictures, customers) -> milliseconds a picture, in each round.
    """
    words, full = [], sizes[-1]
    with styled_figure(11, 4) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 3))
        looks = {"no adapter": LOOKS[0], "switch": LOOKS[2], "gather": LOOKS[1]}
        panels = (
            (left, sizes, [(n, n) for n in sizes]),
            (right, groups, [(full, n) for n in groups]),
        )
        for axes, ticks, batches in panels:
            for way, look in looks.items():
                rounds = [sorted(ms[way, *each]) for each in batches]
                middle = [each[len(each) // 2] for each in rounds]
                spread = [
                    [m - each[0] for m, each in zip(middle, rounds, strict=True)],
                    [each[-1] - m for m, each in zip(middle, rounds, strict=True)],
                ]
                axes.errorbar(ticks, middle, spread, label=way, capsize=4, **look)
                told = ", ".join(f"{m:.1f} for {n}" for m, n in zip(middle, ticks, strict=True))
                words.append(f"{axes is left and 'pictures' or 'customers'}, {way}: {told}")
            axes.set_xscale("log")
            axes.set_xticks(ticks, list(map(str, ticks)))
            axes.minorticks_off()
        left.set(
            title="every picture has its own customer", xlabel="pictures in the batch (log scale)"
        )
        right.set(title=f"a batch of {full} pictures", xlabel="customers in the batch (log scale)")
        left.set(ylabel="processor's ms per picture (bars: all rounds)", ylim=(0, None))
        left.legend(loc="lower left")
    return with_description(figure, f"Milliseconds a picture. {'; '.join(words)}.")
