"""Pictures of what is inside an adapter: how changes are made, singular values, and overlaps beside chance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = {  # by how a line's name begins
    "W + dW": {"color": GREEN, "linewidth": 1.8},
    "W": {"color": INK, "linestyle": (0, (1, 1.5)), "linewidth": 3.5},
    "dW": {"color": VERMILION, "linewidth": 1.8, "marker": "s"},
    "float32": {"color": VERMILION, "marker": "s"},
    "float16": {"color": BLUE, "marker": "o"},
    "bfloat16": {"color": GREEN, "marker": "v"},
    "A at": {"color": INK, "marker": "o"},
    "how": {"color": VERMILION, "marker": "s"},
}


def draw_block(
    axes: Axes, corner: tuple[float, float], size: tuple[float, float], fill: str, name: str
) -> None:
    """A matrix of this width and height, filled, with its name in it."""
    axes.add_patch(Rectangle(corner, *size, facecolor=fill, edgecolor="white", linewidth=2))
    middle = corner[0] + size[0] / 2, corner[1] + size[1] / 2
    light = {"ha": "center", "va": "center", "color": "white", "fontweight": "bold"}
    axes.text(*middle, f"${name}$", **light, fontsize=13)


def plot_stacks() -> Figure:
    """What LoRA, LoRA with one A, and Serial LoRA add to W_q, W_k and W_v, stacked, as products of blocks."""
    colours = dict(zip("qkv", (BLUE, GREEN, PURPLE), strict=True))
    with styled_figure(9.6, 3.6) as figure:
        panels = figure.subplots(1, 3, width_ratios=(3, 2.4, 3.7))
        for axes, title in zip(panels, ("LoRA", "LoRA with one A", "Serial LoRA"), strict=True):
            serial, one = title == "Serial LoRA", title == "LoRA with one A"
            for row, (letter, colour) in enumerate(colours.items()):
                y = 2.2 - 1.1 * row
                if serial:
                    draw_block(axes, (0, y), (1, 1), QUIET, f"W_{letter}")
                else:
                    draw_block(axes, (0, y), (0.5, 1), colour, f"B_{letter}")
                if not (serial or one):
                    draw_block(axes, (0.7, y + 0.25), (1, 0.5), colour, f"A_{letter}")
            if serial:
                draw_block(axes, (1.2, 1.1), (0.5, 1), VERMILION, "B")
            if serial or one:
                left = 1.9 if serial else 0.7
                draw_block(axes, (left, 1.35), (1, 0.5), VERMILION, "A")
                for x in (left - 0.1, 1.1)[: 1 + serial]:
                    axes.text(x, 1.6, "×", ha="center", va="center", fontsize=13)
            axes.set(title=title, xlim=(-0.1, 3 if serial else 1.8), ylim=(-0.1, 3.3), aspect=1)
            axes.set_axis_off()
    text = "The changes of W_q, W_k and W_v, on top of each other. LoRA: three B's, each times its own A. LoRA with one A: "
    return with_description(
        figure, text + "three B's times one A. Serial LoRA: the weights times one B times one A."
    )


def plot_values(
    panels: Mapping[str, Mapping[str, Tensor]], count: int, rank: int | None = None
) -> Figure:
    """The largest singular values of some matrices, in panels; logarithmic beside a rank, but for a panel named linear.

    Args:
        panels: title -> name of a line -> singular values, the largest first.
        count: how many are drawn.
        rank: of an adapter; behind it lies the rounding.
    """
    with styled_figure(9.6 if len(panels) > 1 else 6.4, 3.8) as figure:
        drawn = figure.subplots(1, len(panels), sharey=len(panels) > 2, squeeze=False)[0]
        for axes, (title, lines) in zip(drawn, panels.items(), strict=True):
            for name, values in lines.items():
                look = next(found for begin, found in LOOKS.items() if name.startswith(begin))
                style = {"markersize": 3, "label": name} | look
                axes.plot(np.arange(1, count + 1), values[:count], **style)
            axes.set(title=title, xlabel="number of the singular value")
            axes.set_xticks([1, *range(4, count + 1, 4)])
            if rank and title != "linear":
                axes.set_yscale("log")
                axes.minorticks_off()
            if count > 48:
                axes.set_xscale("log")
                axes.set_xticks(ticks := [1, 4, 16, 64, count], map(str, ticks))
                axes.minorticks_off()
            if rank:
                axes.margins(y=0.16)
                axes.axvline(rank, color=QUIET, linestyle=(0, (1, 1.5)))
                words = {"color": QUIET, "va": "top", "transform": axes.get_xaxis_transform()}
                axes.text(rank, 0.98, "adapter ← ", ha="right", **words)
                axes.text(rank, 0.98, " → rounding", **words)
        drawn[0].set_ylabel("singular value")
        drawn[-1].legend(loc="lower left" if rank else "best")
    told = "; ".join(
        f"{title}, {name}: "
        + ", ".join(
            f"value {i} {values[i - 1]:.1e}" for i in (1, rank, rank and rank + 1, count) if i
        )
        for title, lines in panels.items()
        for name, values in lines.items()
    )
    return with_description(figure, f"Singular values, the largest first. {told}.")


def plot_left_over(table: Mapping[str, Mapping[str, float]], limit: float) -> Figure:
    """What share of a change each recovery leaves over, a row a model, on a logarithmic axis.

    Args:
        table: model -> recovery -> share.
        limit: a line; more than this is a refusal.
    """
    looks = zip(next(iter(table.values())), (BLUE, VERMILION), ("o", "D"), strict=True)
    height = np.arange(len(table))
    with styled_figure(8.6, 0.34 * len(table) + 1.5) as figure:
        axes = figure.subplots()
        for (column, color, marker), shift in zip(looks, (-0.13, 0.13), strict=True):
            shares = [row[column] for row in table.values()]
            axes.plot(shares, height + shift, marker, color=color, label=column, markersize=6)
        axes.axvline(limit, color=QUIET, linestyle=(0, (1, 1.5)))
        axes.set(xscale="log", xlim=(1e-8, 2), xlabel="share of the change that is left over")
        axes.set_yticks(height, list(table))
        axes.invert_yaxis()
        axes.minorticks_off()
        axes.legend(loc="center", bbox_to_anchor=(0.5, 0.5))
        text = {
            "color": QUIET,
            "ha": "right",
            "va": "bottom",
            "transform": axes.get_xaxis_transform(),
        }
        axes.text(limit * 0.85, 0.02, f"{limit:g}", **text)
    words = "; ".join(
        f"{name}: " + ", ".join(f"{column} {share:.2g}" for column, share in row.items())
        for name, row in table.items()
    )
    return with_description(figure, f"What is left over. {words}.")


def plot_seeds(table: Mapping[str, tuple[float, list[float]]], chance: float) -> Figure:
    """The overlap of each file's A with the fresh A of its own seed, and of many others.

    Args:
        table: file -> overlap with its own seed's, and with each other seed's, from 0 to 1.
        chance: the overlap of random subspaces; a line.
    """
    scatter = np.random.default_rng(0)
    with styled_figure(8.6, 0.42 * len(table) + 1.7) as figure:
        axes = figure.subplots()
        for row, (own, others) in enumerate(table.values()):
            height = row + scatter.uniform(-0.25, 0.25, len(others))
            axes.plot(others, height, ".", color=QUIET, markersize=2, alpha=0.5)
            axes.plot(own, row, "D", color=VERMILION, markersize=8)
            side = (
                {"x": own - 0.02, "ha": "right"} if own > 0.3 else {"x": own + 0.05, "ha": "left"}
            )
            axes.text(y=row, s=f"{own:.2f}", va="center", color=VERMILION, **side)
        axes.plot([], [], "D", color=VERMILION, label="its own seed")
        axes.plot([], [], ".", color=QUIET, label="each other seed")
        axes.axvline(chance, color=INK, linestyle=(0, (1, 1.5)), label="chance")
        axes.set(xlim=(0, 1.04), xlabel="overlap with the A that a seed draws")
        axes.set_yticks(range(len(table)), list(table))
        axes.invert_yaxis()
        figure.legend(loc="outside upper center", ncols=3)
    words = "; ".join(
        f"{name}: {own:.2f}, others at most {max(others):.2f}"
        for name, (own, others) in table.items()
    )
    return with_description(figure, f"Overlap with the A of a file's own seed. {words}.")
