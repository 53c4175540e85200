"""A table of adapters and customers, sums over the weight, costs, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = (
    {"color": BLUE, "marker": "s", "linestyle": DASHED},
    {"color": VERMILION, "marker": "o", "linestyle": "-"},
    {"color": GREEN, "marker": "D", "linestyle": "-."},
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
    """Right answers over the weight, of the own adapter alone and of a sum, and what the sum loses.

    Args:
        weights: of the adapters, on the first axis.
        curves: the two ways -> for each weight, as it is written, which pictures (C, N) are named right.
    """
    own, total = curves.values()
    counts = [[int(hits.sum()) for hits in each.values()] for each in (own, total)]
    both = zip(counts[1], total.values(), own.values(), strict=True)
    texts = [list(map(str, counts[0])), [f"{n} ({change(hits, of)})" for n, hits, of in both]]
    with styled_figure(10, 5) as figure:
        axes = figure.subplots()
        below = axes.get_xaxis_transform()
        axes.text(-0.08, -0.07, "weight", transform=below, ha="right")
        for j, (way, look) in enumerate(zip(curves, LOOKS, strict=False)):
            axes.plot(weights, counts[j], linewidth=1.8, **look)
            row = {"y": -0.12 - 0.07 * j, "va": "top", "transform": below, "color": look["color"]}
            axes.text(x=-0.08, s=way, ha="right", weight="bold", **row)
            for x, text in zip(weights, texts[j], strict=True):
                axes.text(x=x, s=text.replace(" (", "\n("), ha="center", **row)
        best = counts[0][-1]
        axes.axhline(best, color=QUIET, linewidth=1, linestyle=DASHED)
        axes.text(
            weights[1] + 0.02, best, f"own adapter at weight 1: {best}", va="bottom", color=QUIET
        )
        for x, low, loss in (
            (weights[1], counts[0][1], "size"),
            (weights[-1], counts[1][-1], "interference"),
        ):
            axes.annotate("", (x, low), (x, best), arrowprops={"arrowstyle": "<->"})
            axes.text(x - 0.015, (low + best) / 2, loss, ha="right", weight="bold")
        axes.set_xticks(weights, list(own))
        axes.set_title("Small weights are too weak, and at large ones the adapters interfere")
        axes.set_ylabel(f"right of {next(iter(own.values())).numel()}")
    told = "; ".join(
        f"{way}: {', '.join(f'at {at} {text}' for at, text in zip(own, row, strict=True))}"
        for way, row in zip(curves, texts, strict=True)
    )
    return with_description(
        figure, f"Right answers over the weight; in brackets, the sum against the other. {told}."
    )


def plot_serving(
    ms: Mapping[str, Mapping[int, float]], mb: Mapping[str, Mapping[int, float]]
) -> Figure:
    """Time a picture and memory, over the customers in a batch.

    Args:
        ms: way -> customers -> milliseconds a picture.
        mb: way -> customers -> megabytes.
    """
    with styled_figure(11, 4) as figure:
        panels = figure.subplots(1, 2)
        for axes, values, digits in zip(panels, (ms, mb), (1, 0), strict=True):
            top = max(max(each.values()) for each in values.values())
            free = 0.0  # the lowest place for the next name
            ranked = zip(values.items(), LOOKS, strict=True)
            for (way, each), look in sorted(ranked, key=lambda item: [*item[0][1].values()][-1]):
                axes.plot(list(map(str, each)), list(each.values()), **look)
                *_, end = each.values()
                place = max(end, free)
                name = {"va": "center", "color": look["color"], "weight": "bold"}
                axes.text(len(each) - 0.9, place, f"{way} {end:.{digits}f}", **name)
                free = place + top / 13
            axes.set(ylim=(0, 1.1 * top), xlim=(None, len(each) - 0.2))
        panels[0].set_title("processor's ms per picture, least of all rounds")
        panels[1].set_title("MB of image towers and adapters")
        figure.supxlabel("customers in a batch of 64 pictures", fontsize=11)
    words = []
    for way, times in ms.items():
        told = zip(times.items(), mb[way].values(), strict=True)
        words.append(f"{way}: {', '.join(f'{n}: {t:.1f} ms, {m:.0f} MB' for (n, t), m in told)}")
    return with_description(figure, f"Over the customers in a batch. {'; '.join(words)}.")


def plot_verdict(
    ways: Mapping[str, tuple[Tensor, float, float]], own: Tensor, marked: Sequence[str]
) -> Figure:
    """Right answers, time and memory of each way: three columns of bars.

    Args:
        ways: way -> which pictures (C, N) are named right, milliseconds a picture, megabytes.
        own: which are right with own adapters; a way's difference from it is written at its bar.
        marked: ways in another colour.
    """
    titles = (f"right of {own.numel()} (6 customers)", "ms per picture (64)", "MB (64)")
    told = [
        (f"{hits.sum()} ({change(hits, own)})", f"{ms:.1f}", f"{mb:.0f}")
        for hits, ms, mb in ways.values()
    ]
    values = [(int(hits.sum()), ms, mb) for hits, ms, mb in ways.values()]
    colors = [VERMILION if way in marked else BLUE for way in ways]
    with styled_figure(11, 0.45 * len(ways) + 0.8) as figure:
        panels = figure.subplots(1, 3, sharey=True, width_ratios=(4, 3, 3))
        for j, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            lengths, texts = [each[j] for each in values], [each[j] for each in told]
            axes.bar_label(axes.barh(list(ways), lengths, color=colors), texts, padding=4)
            axes.set(title=title, xlim=(0, 1.65 * max(lengths)), xticks=[])
            axes.grid(visible=False)
        axes.invert_yaxis()
    words = "; ".join(f"{way}: {', '.join(each)}" for way, each in zip(ways, told, strict=True))
    return with_description(figure, f"{', '.join(titles)}, a row a way. {words}.")
