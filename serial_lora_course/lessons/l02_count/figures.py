"""The pairs of a block, drawn to scale; what a block keeps, by operation; and the memory of a step, by its parts."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from serial_lora_course.plots import style
from serial_lora_course.plots.style import GREEN, INK, PURPLE, QUIET, styled_figure

GREYS = ("#8a8a8a", "#b5b5b5", "#dadada")
PALE = "#cfe3ef"
DOT = {"color": "white", "markeredgecolor": INK, "linestyle": "none"}
BASE = "LoRA, rank 32"  # what a way's memory is compared with
PARTS = {
    "weights": "CLIP's weights",
    "pairs": "pairs, in a step with their moments",
    "kept": "kept for the backward pass",
}


def plot_quarter(width: int = 768, rank: int = 32) -> Figure:
    """One attention block with LoRA's four pairs, and with Serial LoRA's one, to scale."""
    pair, thin, gap = 2 * width * rank, rank / width, 0.12
    side = (2 * thin) ** 0.5  # a square of as many parameters as a pair
    with styled_figure(9.6, 3.5) as figure:
        axes = figure.subplots()

        def box(x: float, y: float, wide: float, high: float, fill: str, edge: str) -> None:
            axes.add_patch(Rectangle((x, y), wide, high, facecolor=fill, edgecolor=edge))

        def say(x: float, y: float, said: str, colour: str = INK, size: int = 10) -> None:
            axes.text(x, y, said, color=colour, fontsize=size, ha="center", va="center")

        for bottom, method, pairs in ((1.9, "lora", 4), (0.0, "serial_lora", 1)):
            look = style.method_look(method)
            colour = look["color"]
            for place, name in enumerate(("q", "k", "v", "out")):
                left = 1.6 * (1 + place)
                box(left, bottom, 1, 1, "#ececec", QUIET)
                say(left + 0.5, bottom + 0.5, name, size=13)
                if pairs == 4:
                    box(left - gap, bottom, thin, 1, colour, "none")
                    box(left, bottom + 1 + gap - thin, 1, thin, colour, "none")
                    say(left - gap - 0.12, bottom + 0.5, "B", colour)
                    say(left + 0.5, bottom + 1 + gap + 0.14, "A", colour)
                corner = (8.1 + side * (place % 2), bottom + 0.5 - side * (place // 2))
                box(*corner, side, side, colour if place < pairs else "none", QUIET)
            said = f"{look['label']}\n{pairs * pair:,}\nparameters"
            axes.text(9.0, bottom + 0.5, said, color=colour, va="center")
        for x, y, said in (
            (2.1, 1.72, f"{width} x {width}"),
            (7.98, 3.0, f"rank {rank}"),
            (6.9, -0.16, "no pair"),
        ):
            say(x, y, said, QUIET)
        # Serial LoRA: x passes A and B, and is added to itself before q, k and v
        stream, plus, high = -0.08, 1.2, 1.32 - thin / 2
        box(0.0, high - thin / 2, 1, thin, colour, "none")
        box(plus - thin / 2, 0.2, thin, 1, colour, "none")
        box(1.42, -0.18, 4.56, 1.36, "none", colour)
        say(0.5, high + 0.16, "A", colour)
        say(plus - 0.14, 0.7, "B", colour)
        say(-0.8, stream, "x", size=13)
        axes.plot((-0.6, -0.6, 0), (stream, high, high), color=colour, lw=1)
        axes.plot((1, plus), (high, high), color=colour, lw=1)
        for end, start, ink in (
            ((plus, 1.2), (plus, high), colour),
            ((plus, stream + 0.1), (plus, 0.2), colour),
            ((1.42, stream), (-0.68, stream), INK),
        ):
            arrow = {"arrowstyle": "-|>", "color": ink, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", end, start, arrowprops=arrow)
        axes.add_patch(Circle((plus, stream), 0.1, facecolor="white", edgecolor=INK, zorder=3))
        axes.text(plus, stream, "+", ha="center", va="center", zorder=4)
        axes.set(xlim=(-0.9, 10.6), ylim=(-0.25, 3.4), aspect="equal")
        axes.axis("off")
    return style.with_description(
        figure,
        f"An attention block's four matrices, {width} by {width}, drawn to scale with pairs of rank {rank}. LoRA "
        f"has a thin column and a thin row beside each of q, k, v and out: {4 * pair:,} parameters. Serial LoRA "
        f"has one such pair, in front of q, k and v: x passes A, then B, and what comes out is added to x: {pair:,} "
        "parameters, a quarter; out has no pair. Squares of the same scale hold as many parameters.",
    )


def plot_kept(
    bars: Mapping[str, Mapping[str, float]], totals: Mapping[str, float], guess: float | None
) -> Figure:
    """Way to train -> part -> widths that a block keeps for each token; their sum, counted in another way; a guess."""
    with styled_figure(9.6, 3.8) as figure:
        axes = figure.subplots()
        drawn = _stack(axes, pd.DataFrame(bars).T, (*GREYS, PALE, PURPLE), 0.62)
        for part in drawn:
            said = [f"{bar.get_width():.0f}" if bar.get_width() > 0.5 else "" for bar in part]
            axes.bar_label(part, said, label_type="center", fontsize=10)
        for part in drawn[:-1]:
            middle = part[0].get_x() + part[0].get_width() / 2
            axes.text(middle, -0.42, part.get_label(), ha="center", va="bottom", fontsize=10)
        for row, (total, bar) in enumerate(zip(totals.values(), drawn[-1], strict=True)):
            end, thin = bar.get_x() + bar.get_width(), bar.get_width()
            axes.text(end, row, f"  {total:.2f}", va="center", weight="bold")
            said = f"{thin:.2f} {drawn[-1].get_label()}" if thin else ""
            axes.text(end + 1.9, row, said, va="center", color=PURPLE, fontsize=10)
        if guess is not None:
            axes.plot(guess, 1.5, "D", **DOT)
            axes.text(guess + 0.3, 1.5, f"your guess: {guess:g}", va="center", fontsize=10)
        axes.set(xlabel="kept for each token, in widths of the block", ylim=(3.5, -1.1))
        axes.grid(visible=False)
        axes.set(xlim=(0, 1.1 * max(totals.values())), xticks=range(0, 21, 5))
    said = [
        f"{way} {totals[way]:.2f} ({', '.join(f'{part} {bar[part]:.2f}' for part in bar)})"
        for way, bar in bars.items()
    ]
    return style.with_description(figure, f"Kept for each token, in widths: {'; '.join(said)}.")


def plot_memory(table: pd.DataFrame, pictures: int, guess: float | None) -> Figure:
    """A row for each way, in MB: its file, the parts of a step with one picture, and with several; a guess."""
    told, empty = [], 0 * table.file
    file = table.assign(weights=empty, pairs=table.file, kept=empty)
    many = table.assign(kept=pictures * table.kept)
    titles = ("the adapter's file", "1 picture a step", f"{pictures} pictures, computed")
    with styled_figure(9.6, 4.2) as figure:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, title, bars in zip(panels, titles, (file, table, many), strict=True):
            parts = bars[[*PARTS]].rename(columns=PARTS)
            _stack(axes, parts, (GREYS[0], GREEN, GREYS[2]), 0.4)
            totals = parts.sum(axis=1)
            told.append(title)
            for row, (way, total) in enumerate(totals.items()):
                less = "" if way == BASE else f" ({100 * (total / totals[BASE] - 1):+.1f}%)"
                said = f"{total:,.{1 if total < 100 else 0}f} MB{less}"
                axes.text(0, row - 0.24, said, va="bottom", fontsize=10)
                told.append(f"{way}: {said}")
            axes.set(title=title, xlabel="MB", xlim=(0, 1.04 * totals.max()))
            axes.set_ylim(len(bars) - 0.6, -0.7)
        panels[1].plot(table.measured, range(len(table)), "o", label="measured", **DOT)
        if guess is not None:
            place, row = totals[BASE] * (1 - guess), [*totals.index].index("Serial LoRA, rank 32")
            said = f"   your guess: {100 * guess:.0f}% saved   "
            axes.plot(place, row, "D", **DOT)
            side = "left" if guess > 0.5 else "right"
            axes.text(place, row, said, va="center", ha=side, fontsize=9)
        drawn = panels[1].get_legend_handles_labels()
        figure.legend(*drawn, loc="outside upper right", ncols=4, fontsize=10)
    return style.with_description(figure, f"In MB, beside {BASE}: {', '.join(told)}.")


def _stack(
    axes: Axes, table: pd.DataFrame, colours: tuple[str, ...], height: float
) -> list[BarContainer]:
    """A bar for each row, the first on top, its columns end to end."""
    begins, rows = table.cumsum(axis=1) - table, range(len(table))
    drawn = [
        axes.barh(rows, table[part], height, begins[part], color=colour, label=part)
        for part, colour in zip(table, colours, strict=True)
    ]
    axes.set_yticks(rows, table.index)
    axes.grid(visible=False, axis="y")
    return drawn
