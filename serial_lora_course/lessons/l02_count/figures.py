"""The quarter, drawn to scale: the pairs of a block; and what learns and what memory holds, way by way."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from serial_lora_course.plots.style import (
    INK,
    PURPLE,
    QUIET,
    method_look,
    styled_figure,
    with_description,
)

MATRICES = {"q": 1.6, "k": 3.2, "v": 4.8, "out": 6.4}  # where each begins, one wide
GAP = 0.12  # between a matrix and its pair
PALE = "#cfe3ef"


def plot_quarter(width: int = 768, rank: int = 32) -> Figure:
    """One attention block with LoRA's four pairs, and with Serial LoRA's one, to scale."""
    pair = 2 * width * rank
    with styled_figure(9.6, 3.5) as figure:
        axes = figure.subplots()
        side = (pair / width**2) ** 0.5  # a square of as many parameters as a pair
        for bottom, method, pairs in ((1.9, "lora", 4), (0.0, "serial_lora", 1)):
            look = method_look(method)
            for name, left in MATRICES.items():
                _box(axes, left, bottom, (1, 1), "#ececec", QUIET)
                axes.text(left + 0.5, bottom + 0.5, name, ha="center", va="center", fontsize=13)
            for cell in range(4):
                corner = (8.1 + side * (cell % 2), bottom + 0.5 - side * (cell // 2))
                filled = look["color"] if cell < pairs else "none"
                _box(axes, *corner, (side, side), filled, QUIET)
            said = f"{look['label']}\n{pairs * pair:,}\nparameters"
            axes.text(9.0, bottom + 0.5, said, color=look["color"], va="center")
        for left in MATRICES.values():
            _draw_pair(axes, left, 1.9, rank / width, method_look("lora")["color"])
        readers = (1.42, -0.18, (4.56, 1.36))  # what reads the changed tokens
        _box(axes, *readers, "none", look["color"], linestyle="--")
        _draw_serial(axes, rank / width, look["color"])
        axes.set(xlim=(-0.9, 10.6), ylim=(-0.25, 3.4), aspect="equal")
        axes.axis("off")
    return with_description(
        figure,
        f"An attention block's four matrices, {width} by {width}, drawn to scale with pairs of rank {rank}. LoRA "
        f"has a thin column and a thin row beside each of q, k, v and out: {4 * pair:,} parameters. Serial LoRA "
        f"has one such pair, in front of q, k and v: x passes A, then B, and what comes out is added to x: {pair:,} "
        "parameters, a quarter. Squares of the same scale hold as many parameters.",
    )


def plot_answer(
    learn: Mapping[str, int],
    memory: Mapping[str, Mapping[str, float]],
    times: float,
    share: float,
) -> Figure:
    """A row for each way to train a model: how many parameters learn, and what memory holds.

    Args:
        learn: way -> parameters. The first is the whole model; then LoRA, LoRA on q and v, and, as
            the last, Serial LoRA.
        memory: way -> part -> GB; all ways have the same parts.
        times: the guess for LoRA on q and v, in sizes of Serial LoRA.
        share: the guess for Serial LoRA's memory, as a share of LoRA's.
    """
    ways, titles = list(learn), list(next(iter(memory.values())))
    one, rows = learn[ways[-1]], range(len(ways))
    end = 1.25 * max(learn[way] for way in ways[1:]) / one
    with styled_figure(9.6, 3.7) as figure:
        sizes, held = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.5))
        looks = [QUIET, *[method_look("lora")["color"]] * (len(ways) - 2)]
        looks.append(method_look("serial_lora")["color"])
        sizes.barh(rows, [min(learn[way] / one, end) for way in ways], 0.6, color=looks)
        for row, way in enumerate(ways):
            out = learn[way] / one > end  # the bar goes on beyond the panel
            look = {"color": "white" if out else INK, "ha": "right" if out else "left"}
            said = f"  {learn[way] / one:,.0f} ×{' →' if out else ''} "
            sizes.text(min(learn[way] / one, end), row, said, va="center", weight="bold", **look)
        sizes.set_yticks(rows, [f"{way}:\n{learn[way]:,} learn" for way in ways])
        sizes.set(xlabel="parameters that learn, in sizes of Serial LoRA", xlim=(0, end))
        begins = [0.0] * len(memory)
        for title, colour in zip(titles, (QUIET, PURPLE, PALE), strict=False):
            parts = [memory[way][title] for way in ways]
            bars = held.barh(rows, parts, 0.6, begins, color=colour, label=title)
            ink = "white" if colour == QUIET else INK
            wide = 0.1 * max(sum(each.values()) for each in memory.values())
            said = [f"{part:.2f}" if part > wide else "" for part in parts]
            held.bar_label(bars, said, label_type="center", color=ink, fontsize=10)
            begins = [begin + part for begin, part in zip(begins, parts, strict=True)]
        for row, total in enumerate(begins):
            held.text(total, row, f"  {total:.2f} GB", va="center", fontweight="bold")
        held.set(xlabel="memory in training, GB", xlim=(0, 1.2 * max(begins)))
        guess = {"marker": "D", "markersize": 8, "color": "white", "markeredgecolor": INK}
        guess |= {"linestyle": "", "clip_on": False, "label": "your guess"}
        sizes.plot(times, 2, **guess | {"label": None})
        held.plot(share * begins[1], rows[-1], **guess)
        held.invert_yaxis()
        for axes in (sizes, held):
            axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=len(titles) + 1)
    told = "; ".join(
        f"{way}: {learn[way]:,} learn; {', '.join(f'{title} {gb:.2f}' for title, gb in parts.items())}, "
        f"together {sum(parts.values()):.2f}"
        for way, parts in memory.items()
    )
    return with_description(
        figure,
        f"How many parameters learn, and what memory holds in GB. {told}. Diamonds are the guesses: "
        f"{times:g} times Serial LoRA for {ways[2]}, and {share * begins[1]:.2f} GB for Serial LoRA.",
    )


def _box(
    axes: Axes, left: float, bottom: float, size: tuple, fill: str, edge: str, **look: str
) -> None:
    axes.add_patch(Rectangle((left, bottom), *size, facecolor=fill, edgecolor=edge, **look))


def _draw_pair(axes: Axes, left: float, bottom: float, thin: float, colour: str) -> None:
    """B as a column at the left of a matrix's place, A as a row above it."""
    _box(axes, left - GAP, bottom, (thin, 1), colour, "none")
    _box(axes, left, bottom + 1 + GAP - thin, (1, thin), colour, "none")
    style = {"color": colour, "fontsize": 10, "ha": "center", "va": "center"}
    axes.text(left - GAP - 0.12, bottom + 0.5, "B", **style)
    axes.text(left + 0.5, bottom + 1 + GAP + 0.14, "A", **style)


def _draw_serial(axes: Axes, thin: float, colour: str) -> None:
    """The tokens x, Serial LoRA's pair, A before B, and the sum of both."""
    stream, low, plus = -0.08, 0.2, 1.2  # B ends above the sum
    high = low + 1 + GAP - thin / 2
    _box(axes, 0.0, high - thin / 2, (1, thin), colour, "none")
    _box(axes, plus - thin / 2, low, (thin, 1), colour, "none")
    style = {"color": colour, "fontsize": 10, "ha": "center", "va": "center"}
    axes.text(0.5, high + 0.16, "A", **style)
    axes.text(plus - 0.14, low + 0.5, "B", **style)
    axes.text(-0.8, stream, "x", ha="center", va="center", fontsize=13, style="italic")
    axes.plot((-0.6, -0.6), (stream, high), color=colour, linewidth=1)
    axes.plot((1.0, plus), (high, high), color=colour, linewidth=1)
    arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}
    for end, start, ink in (
        ((0.0, high), (-0.6, high), colour),
        ((plus, low + 1), (plus, high), colour),
        ((plus, stream + 0.1), (plus, low), colour),
        ((plus - 0.1, stream), (-0.68, stream), INK),
        ((1.42, stream), (plus + 0.1, stream), INK),
    ):
        axes.annotate("", end, start, arrowprops=arrow | {"color": ink})
    axes.add_patch(Circle((plus, stream), 0.1, facecolor="white", edgecolor=INK))
    axes.text(plus, stream, "+", ha="center", va="center")
