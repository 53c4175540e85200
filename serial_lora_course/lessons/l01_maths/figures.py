"""Low rank, seen: rank-one terms of a matrix, the error of each rank, where tokens move, what a method misses and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
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


def plot_terms(matrix: Tensor, count: int = 4, more: int = 16) -> Figure:
    """The first rank-one terms of a matrix (m, n) of numbers between 0 and 1, and under each their sum so far.

    A term is one column times one row, with the column drawn to its left and the row over it. At the right
    the matrix itself, and under it the sum of `more` terms.
    """
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    each = sum(matrix.shape)  # numbers in one column and one row
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    with styled_figure(2.25 * (count + 1), 5.0) as figure:
        ratios = {"height_ratios": (1, 5, 5), "width_ratios": (1, 5) * (count + 1)}
        grid = figure.add_gridspec(3, 2 * (count + 1), **ratios)
        for i, terms in enumerate([*range(1, count + 1), more]):
            image = figure.add_subplot(grid[1, 2 * i + 1])
            if i < count:
                term = S[i] * torch.outer(U[:, i], Vh[i])
                limit = term.abs().max()
                image.imshow(term, cmap="RdBu", vmin=-limit, vmax=limit)
                row = figure.add_subplot(grid[0, 2 * i + 1], sharex=image)
                row.plot(Vh[i], color=INK, linewidth=1.2)
                row.set_title(f"term {i + 1}: σ = {S[i]:.1f}", fontsize=10, loc="center")
                column = figure.add_subplot(grid[1, 2 * i], sharey=image)
                column.plot(U[:, i], range(len(U)), color=INK, linewidth=1.2)
            else:
                image.imshow(matrix, **grey)
                title = f"the matrix:\n{matrix.numel():,} numbers"
                image.set_title(title, fontsize=10, loc="center")
            total = figure.add_subplot(grid[2, 2 * i + 1])
            total.imshow(((U[:, :terms] * S[:terms]) @ Vh[:terms]).clamp(0, 1), **grey)
            title = f"sum of {terms}" if terms > 1 else "the first"
            total.set_title(f"{title}:\n{terms * each:,} numbers", fontsize=10, loc="center")
        for axes in figure.axes:
            axes.axis("off")
        key = [Patch(color=matplotlib.colormaps["RdBu"](end)) for end in (0.85, 0.15)]
        figure.legend(key, ["adds light", "takes light away"], loc="outside lower left", ncols=2)
    values = ", ".join(f"{value:.1f}" for value in S[:count])
    return with_description(
        figure,
        f"The first {count} rank-one terms of a picture, each one column times one row, with singular values "
        f"{values}; under each, the sum of the terms so far; at the right the picture, of {matrix.numel():,} numbers, and "
        f"the sum of {more} terms, which takes {more * each:,}.",
    )


OWN = {"LoRA": BLUE, "Serial LoRA": VERMILION}
OTHERS = (INK, GREEN, QUIET, PURPLE)
SHADES = matplotlib.colormaps["viridis_r"]
RANKS = (1, 2, 4, 8, 16, 32, 64)


def plot_relative_errors(curves: Mapping[str, Tensor], floor: float | None = None) -> Figure:
    """The relative error at some ranks, on a logarithmic axis, each line named at its end.

    Args:
        curves: what to call it -> the errors at ranks 0, 1, ...; at most four.
        floor: below which no rank brings Serial LoRA.
    """
    with styled_figure(8.2, 3.7) as figure:
        axes, free = figure.subplots(), iter(OTHERS)
        below = 2.0
        for name, curve in sorted(curves.items(), key=lambda item: -float(item[1][RANKS[-1]])):
            colour = OWN.get(name) or next(free)
            values = [float(curve[rank]) for rank in RANKS]
            axes.plot(RANKS, values, color=colour, marker="o", clip_on=False, linewidth=2)
            below = min(values[-1], below - 0.07)  # so that names stay apart
            axes.text(RANKS[-1] * 1.12, below, name, color=colour, va="center")
        axes.set_xscale("log", base=2)
        axes.set_xticks(RANKS, [str(rank) for rank in RANKS])
        axes.minorticks_off()
        axes.set(xlabel="rank r", ylim=(-0.1, 1.02), ylabel="missed at rank r\n(relative error)")
        if floor is not None:
            axes.plot(
                (1, 64), (floor, floor), color=OWN["Serial LoRA"], linestyle="--", linewidth=1
            )
            below = f"out of reach for one pair, at any rank: {floor:.0%}"
            axes.text(64, floor - 0.02, below, color=OWN["Serial LoRA"], va="top", ha="right")
        axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    shares = {n: ", ".join(f"{float(curve[r]):.0%}" for r in RANKS) for n, curve in curves.items()}
    words = "; ".join(f"{name}: {said}" for name, said in shares.items())
    lowest = "" if floor is None else f" No rank brings Serial LoRA below {floor:.0%}."
    return with_description(
        figure, f"Relative error at ranks {', '.join(map(str, RANKS))}. {words}.{lowest}"
    )


def plot_missed(
    missed: Mapping[str, float], losses: Mapping[str, Mapping[float, Sequence[float]]]
) -> Figure:
    """The training loss at the end of each run, over the share of the gradient that its method misses.

    Args:
        missed: what to call a method -> the share; names without losses are left out.
        losses: the same names -> rate -> a loss for each run.
    """
    rates = sorted({rate for runs in losses.values() for rate in runs})
    looks, words = dict(zip(rates, "sD^v", strict=False)), []
    with styled_figure(8.2, 3.7) as figure:
        axes = figure.subplots()
        for name, runs in losses.items():
            share, ends = float(missed[name]), [end for some in runs.values() for end in some]
            colour = PURPLE if name == "LoRA of rank 2" else OWN.get(name.partition(" of ")[0], INK)
            for rate, some in runs.items():
                style = {"color": colour, "marker": looks[rate], "alpha": 0.8}
                axes.scatter([share] * len(some), some, s=60, zorder=3, **style)
            right = name == "all of W" or colour == VERMILION
            beside = {"xytext": (10 if right else -10, 0), "ha": "left" if right else "right"}
            where = {"textcoords": "offset points", "va": "center", "color": colour}
            axes.annotate(name, (share, max(ends)), **beside, **where)
            words.append(f"{name}, which misses {share:.0%}: {min(ends):.2f} to {max(ends):.2f}")
        axes.set(yscale="log", ylim=(None, 6), xlim=(-0.1, 1.1))
        axes.set(
            xlabel="how much of the gradient it misses, at the least",
            ylabel="training loss at the end",
        )
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        dots = [axes.scatter([], [], s=60, color=QUIET, marker=look) for look in looks.values()]
        axes.legend(
            dots,
            [f"{rate:g}" if rate else "untouched" for rate in looks],
            title="rate",
            loc="upper left",
        )
    return with_description(figure, f"Training loss at the end of each run. {'; '.join(words)}.")


def plot_token_moves(rows: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]) -> Figure:
    """Where tokens with two entries are before and after a pair of rank 1, one panel a space.

    Every token keeps its number in all panels. An arrow leads from where it was to where it is; its
    colour says how far that is, of the farthest in the panel; tokens on the dashed line stay.

    Args:
        rows: what is written at the left of a row -> panel title -> where the tokens are before and
            after, each (n, 2); the move is linear.
    """
    columns = max(map(len, rows.values()))
    with styled_figure(2.5 * columns + 1, 2.75 * len(rows)) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (title, panels) in zip(grid, rows.items(), strict=True):
            colour = OWN.get(title.partition("\n")[0], INK)
            for axes, (space, moves) in zip(line, panels.items(), strict=True):
                _draw_moves(axes, *(each.numpy() for each in moves))
                axes.set_title(space, fontsize=10, loc="center")
            line[0].set_ylabel(title, fontsize=10, color=colour)
        scale = matplotlib.cm.ScalarMappable(cmap=SHADES)
        bar = figure.colorbar(scale, ax=grid, shrink=0.7, aspect=30, ticks=(0, 1))
        bar.ax.set_yticklabels(["stays", "farthest"])
        bar.set_label("how far the token moves", labelpad=-25)
        stays = matplotlib.lines.Line2D([], [], color=QUIET, linestyle="--")
        figure.legend([stays], ["tokens on this line stay"], loc="outside lower center")
    words = " and ".join(title.partition("\n")[0] for title in rows)
    return with_description(
        figure,
        f"Ten numbered tokens in a plane, with arrows from before to after, for {words}. With a pair "
        "for each matrix, the line of tokens that stay differs from panel to panel; with one A it is the same, and with "
        "a shared pair the arrows are one move, too.",
    )


def _draw_moves(axes: Axes, before: np.ndarray, after: np.ndarray) -> None:
    far = np.linalg.norm(after - before, axis=1)
    reach = 1.2 * max(abs(before).max(), abs(after).max())
    if far.any():  # move = before @ M: what stays is the direction that M maps to zero
        stays = np.linalg.svd(np.linalg.lstsq(before, after - before)[0])[0][:, -1]
        axes.plot(
            *(np.stack([-stays, stays]) * 2 * reach).T,
            color=QUIET,
            linestyle="--",
            linewidth=1.2,
            zorder=0,
        )
    colours = SHADES(far / max(far.max(), 1e-12))
    for i, colour in enumerate(colours):
        if far[i] > 0.02 * reach:
            style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6}
            axes.annotate("", after[i], before[i], arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
        ink = "white" if colour[:3].mean() < 0.5 else INK
        circle = {"boxstyle": "circle,pad=0.18", "facecolor": colour, "edgecolor": "none"}
        look = {"fontsize": 8, "ha": "center", "va": "center", "weight": "bold", "color": ink}
        axes.text(*before[i], str(i + 1), bbox=circle, **look)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
    axes.grid(False)
