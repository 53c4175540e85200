"""The pairs of a block, drawn to scale; what a block keeps, by operation; and the memory of a step, by its parts."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from serial_lora_course.plots import style
from serial_lora_course.plots.style import INK, PURPLE, QUIET, styled_figure

GREYS = ("#8a8a8a", "#b5b5b5", "#dadada")
PALE = "#cfe3ef"
BASE = "LoRA, rank 32"  # what a way's memory is compared with


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


def plot_kept(bars: Mapping[str, Mapping[str, float]], totals: Mapping[str, float]) -> Figure:
    """Way to train -> part -> widths that a block keeps for each token, and their sum, counted in another way."""
    with styled_figure(9.6, 3.4) as figure:
        axes = figure.subplots()
        drawn = _stack(axes, bars, (*GREYS, PALE, PURPLE))
        for part in drawn:
            said = [f"{bar.get_width():.0f}" if bar.get_width() > 0.5 else "" for bar in part]
            axes.bar_label(part, said, label_type="center", fontsize=10)
        for row, (total, bar) in enumerate(zip(totals.values(), drawn[-1], strict=True)):
            end, thin = bar.get_x() + bar.get_width(), bar.get_width()
            axes.text(end, row, f"  {total:.2f}", va="center", weight="bold")
            axes.text(end + 2.3, row, f"{thin:.2f}" if thin else "", va="center", color=PURPLE)
        axes.set(xlabel="kept for each token, in widths of the block", xlim=(0, 24.5))
        figure.legend(loc="outside upper right", ncols=len(drawn), fontsize=10)
    said = [
        f"{way} {totals[way]:.2f} ({', '.join(f'{part} {bar[part]:.2f}' for part in bar)})"
        for way, bar in bars.items()
    ]
    return style.with_description(figure, f"Kept for each token, in widths: {'; '.join(said)}.")


def plot_memory(
    memory: Mapping[int, Mapping[str, Mapping[str, float]]],
    measured: Mapping[str, float],
    guess: float | None,
) -> Figure:
    """Pictures in a step -> way to train -> its parts in MB; and what was measured with one picture."""
    told, dot = [], {"color": "white", "markeredgecolor": INK, "linestyle": "none"}
    with styled_figure(9.6, 3.6) as figure:
        panels = figure.subplots(1, len(memory), sharey=True)
        for axes, (pictures, bars) in zip(panels, memory.items(), strict=True):
            _stack(axes, bars, (GREYS[0], PURPLE, GREYS[2]))
            totals = {way: sum(bar.values()) for way, bar in bars.items()}
            told.append(f"{pictures} a step")
            for row, (way, total) in enumerate(totals.items()):
                less = "" if way == BASE else f" ({100 * (total / totals[BASE] - 1):+.1f}%)"
                axes.text(total, row, f"   {total:,.0f}{less}", va="center", fontsize=10)
                told.append(f"{way}: {total:.0f}{less}")
            axes.set(title=f"{pictures} picture{'s' * (pictures > 1)} a step", xlabel="MB")
            axes.set_xlim(0, 1.6 * max(totals.values()))
        rows = [list(bars).index(way) for way in measured]
        panels[0].plot([*measured.values()], rows, "o", label="measured", **dot)
        if guess is not None:
            row = list(bars).index("Serial LoRA, rank 32")
            axes.plot(totals[BASE] * (1 - guess), row, "D", **dot)
            axes.text(totals[BASE] * (1 - guess), row, "   your guess", va="center", fontsize=10)
        drawn = panels[0].get_legend_handles_labels()
        figure.legend(*drawn, loc="outside upper right", ncols=4, fontsize=10)
    said = f"Memory in MB of CLIP with pictures, beside {BASE}: {', '.join(told)}."
    return style.with_description(figure, said)


def _stack(
    axes: Axes, bars: Mapping[str, Mapping[str, float]], colours: tuple[str, ...]
) -> list[BarContainer]:
    """A row for each way, the first on top, its parts end to end."""
    begins, drawn = [0.0] * len(bars), []
    for title, colour in zip(next(iter(bars.values())), colours, strict=True):
        sizes = [bar[title] for bar in bars.values()]
        drawn.append(axes.barh(range(len(bars)), sizes, 0.62, begins, color=colour, label=title))
        begins = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return drawn
