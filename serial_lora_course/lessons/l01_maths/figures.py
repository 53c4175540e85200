"""Low rank, seen: rank-one terms of a matrix, where tokens move, what a rank misses, and where training ends."""

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
    DASHED,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)


def plot_terms(matrix: Tensor, count: int = 4, more: int = 16) -> Figure:
    """Rank-one terms of a matrix (m, n) of numbers from 0 to 1, each with its column, its row, and the sum so far."""
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


def plot_over_rank(
    ranks: Sequence[int],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    levels: Mapping[str, Mapping[str, float]],
) -> Figure:
    """A panel for each measure: its name -> a curve's name -> its values over the rank.

    The measure "loss" is on a logarithmic axis, a share from 0 to 1; levels have no rank, and are dashed.
    """
    words = []
    with styled_figure(4.6 * len(panels) + 0.8, 3.9) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (measure, curves) in zip(grid, panels.items(), strict=True):
            others = iter(OTHERS)
            for name, values in curves.items():
                colour = OWN.get(name) or next(others)
                axes.plot(ranks, values, "o-", label=name, color=colour, markersize=4)
                words.append(f"{measure}, {name}: {', '.join(f'{y:.2f}' for y in values)}")
            share = measure != "loss"
            for name, level in levels.get(measure, {}).items():
                axes.axhline(level, color=QUIET, linestyle=DASHED, linewidth=1)
                where = {"ha": "right", "va": "top"} if share else {"ha": "left", "va": "bottom"}
                where |= {"xycoords": ("axes fraction", "data"), "color": QUIET, "fontsize": 9}
                axes.annotate(name, (0.98 if share else 0.02, level), **where)
                words.append(f"{measure}, {name}: {level:.2f}")
            axes.set_xscale("log", base=2)
            axes.set_xticks(ranks, map(str, ranks), minor=False)
            look = {"ylim": (0, 1)} if share else {"yscale": "log", "ylim": (None, 4)}
            axes.set(xlabel="rank r", ylabel=measure, **look)
            ticker = matplotlib.ticker
            shown = ticker.PercentFormatter(1.0) if share else ticker.FormatStrFormatter("%g")
            axes.yaxis.set_major_formatter(shown)
            axes.minorticks_off()
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return with_description(figure, f"At ranks {', '.join(map(str, ranks))}. {'; '.join(words)}.")


def plot_ends(ends: Mapping[str, Mapping[float, Sequence[float]]]) -> Figure:
    """For each way, over the rate, the loss at the end of each run, and a line through the medians."""
    words, others = [], iter((GREEN, PURPLE))
    rates = sorted({rate for losses in ends.values() for rate in losses})
    with styled_figure(9.2, 4.2) as figure:
        axes = figure.subplots()
        for shift, (name, losses) in enumerate(ends.items()):
            colour = OWN.get(name) or next(others)
            places = [rate * 1.015 ** (shift - 1.5) for rate in losses]  # no dot hides another
            middles = [np.median(each) for each in losses.values()]
            axes.plot(places, middles, color=colour, linewidth=2)
            axes.plot([], [], "o-", color=colour, label=name)
            for place, each in zip(places, losses.values(), strict=True):
                axes.scatter([place] * len(each), each, s=36, color=colour, alpha=0.75, zorder=3)
            told = ", ".join(f"{m:.2f} at {r:g}" for r, m in zip(losses, middles, strict=True))
            words.append(f"{name}: {told}")
        axes.set(xscale="log", yscale="log", ylabel="training loss after 20 steps")
        axes.set_xlabel("rate (each dot is a seed, the lines join the medians)")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
        figure.legend(loc="outside upper center", ncols=len(ends))
    return with_description(figure, f"Median training losses. {'; '.join(words)}.")


def plot_token_moves(rows: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]) -> Figure:
    """Where tokens with two entries are before and after a pair of rank 1, one panel a space.

    An arrow leads from where a token was to where it is; its colour says how far that is; one scale holds for all
    panels. Tokens on the dashed line stay. `rows` is what is written at the left of a row -> panel title -> where
    the tokens are before and after, each (n, 2); the move is linear.
    """
    columns = max(map(len, rows.values()))
    ends = [ends for panels in rows.values() for ends in panels.values()]
    reach = 1.1 * max(each.abs().max().item() for pair in ends for each in pair)
    farthest = max((after - before).norm(dim=1).max().item() for before, after in ends)
    with styled_figure(2.5 * columns + 1, 2.75 * len(rows)) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (title, panels) in zip(grid, rows.items(), strict=True):
            colour = OWN.get(title.partition("\n")[0], INK)
            for axes, (space, moves) in zip(line, panels.items(), strict=True):
                _draw_moves(axes, *(each.numpy() for each in moves), reach, farthest)
                axes.set_title(space, fontsize=10, loc="center")
            line[0].set_ylabel(title, fontsize=10, color=colour)
        scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, farthest), SHADES)
        bar = figure.colorbar(scale, ax=grid, shrink=0.7, aspect=30)
        bar.set_label("how far the token moves")
        stays = matplotlib.lines.Line2D([], [], color=QUIET, linestyle="--")
        figure.legend([stays], ["tokens on this line stay"], loc="outside lower center")
    words = " and ".join(title.partition("\n")[0] for title in rows)
    return with_description(
        figure,
        f"Ten numbered tokens in a plane, with arrows from before to after, for {words}. With a pair "
        "for each matrix, the line of tokens that stay differs from panel to panel; with one A it is the same, and with "
        "a shared pair all arrows are the same.",
    )


def _draw_moves(
    axes: Axes, before: np.ndarray, after: np.ndarray, reach: float, farthest: float
) -> None:
    far = np.linalg.norm(after - before, axis=1)
    if far.any():  # move = before @ M: what stays is the direction that M maps to zero
        stays = np.linalg.svd(np.linalg.lstsq(before, after - before)[0])[0][:, -1]
        line = np.stack([-stays, stays]) * 2 * reach
        axes.plot(*line.T, color=QUIET, linestyle="--", linewidth=1.2, zorder=0)
    colours = SHADES(far / farthest)
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
