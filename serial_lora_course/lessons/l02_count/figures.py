"""The pairs of a block, drawn to scale; what a block keeps, by operation; and what a step saves, by the batch."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
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
        for left, bottom, said in (
            (1.68, 1.66, f"{width} x {width}"),
            (7.65, 2.93, f"rank {rank}"),
        ):
            axes.text(left, bottom, said, color=QUIET, fontsize=10)
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


def plot_kept(bars: Mapping[str, Mapping[str, float]], totals: Mapping[str, float]) -> Figure:
    """Way to train -> part -> widths that a block keeps for each token, and their sum, counted in another way."""
    colours = ("#8a8a8a", "#b5b5b5", "#dadada", PALE, PURPLE)
    with styled_figure(9.6, 3.4) as figure:
        axes, rows = figure.subplots(), range(len(bars))
        begins, told = [0.0] * len(bars), []
        for title, colour in zip(next(iter(bars.values())), colours, strict=True):
            parts = [bar[title] for bar in bars.values()]
            drawn = axes.barh(rows, parts, 0.62, begins, color=colour, label=title)
            said = [f"{part:.0f}" if part > 0.5 else "" for part in parts]
            axes.bar_label(drawn, said, label_type="center", fontsize=10)
            begins = [begin + part for begin, part in zip(begins, parts, strict=True)]
            told.append(f"{title} {', '.join(f'{part:.2f}' for part in parts)}")
        for row, (total, thin) in enumerate(zip(totals.values(), parts, strict=True)):
            axes.text(begins[row], row, f"  {total:.2f}", va="center", weight="bold")
            said = f"{thin:.2f}" if thin else ""
            axes.text(begins[row] + 2.3, row, said, va="center", color=PURPLE)
        axes.set_yticks(rows, list(bars))
        axes.set(xlabel="kept for each token, in widths of the block", xlim=(0, 24.5))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=len(colours), fontsize=10)
    told.append(f"in all {', '.join(f'{total:.2f}' for total in totals.values())}")
    said = f"Kept for each token, in widths, by {', '.join(bars)}: {'; '.join(told)}."
    return with_description(figure, said)


def plot_savings(
    memory: Mapping[str, tuple[float, float, Mapping[int, float]]], guess: float | None
) -> Figure:
    """By how much the last way needs less memory than the others, over the batch.

    Each way has what no batch changes, what one picture keeps, and batch -> what was measured in all.
    """
    batches, told = [1, 2, 4, 8, 16, 32, 64], []
    *others, smaller = memory
    fixed, each, seen = memory[smaller]
    with styled_figure(9.6, 3.5) as figure:
        axes = figure.subplots()
        axes.axhline(75, color=QUIET, linestyle=DASHED)
        said = "parameters that learn, and moments, at equal rank"
        axes.text(64, 77, said, ha="right", color=QUIET)
        for other, colour in zip(others, (BLUE, INK), strict=True):
            base, more, of = memory[other]
            saved = [100 * (1 - (fixed + each * n) / (base + more * n)) for n in batches]
            axes.plot(batches, saved, color=colour, label=f"memory, beside {other}")
            axes.plot([*of], [100 * (1 - seen[n] / of[n]) for n in of], "o", color=colour)
            above = colour == BLUE
            for n, share in zip(batches, saved, strict=True):
                said = f"{abs(share):.1f}%" if above or n in (1, 64) else ""
                axes.text(n, share + (3 if above else -8), said, color=colour, ha="center")
            told.append(f"{other}: {', '.join(f'{share:.1f}' for share in saved)}")
        axes.plot([], [], "o", color=QUIET, label="measured")
        if guess is not None:
            look = {"markersize": 9, "color": "white", "markeredgecolor": INK}
            axes.plot(32, 100 * guess, "D", label="your guess", **look)
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set(xlabel="pictures in a step", ylabel=f"{smaller} has less, %", ylim=(-12, 88))
        axes.legend(loc="center left", bbox_to_anchor=(0.0, 0.57))
    said = f"In %, how much less memory {smaller} takes with {batches} pictures, beside {'; '.join(told)}."
    return with_description(figure, said + (f" Guess: {guess:.0%}." if guess is not None else ""))


def _box(axes: Axes, x: float, y: float, size: tuple, fill: str, edge: str, **look: str) -> None:
    axes.add_patch(Rectangle((x, y), *size, facecolor=fill, edgecolor=edge, **look))


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
