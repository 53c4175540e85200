"""Low rank, seen: rank-one terms of a matrix, where tokens move, what a rank misses, and where training ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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

Ends = Mapping[float, Sequence[float]]  # rate -> the loss of each seed

SIGNS = [matplotlib.colormaps["RdBu"](end) for end in (0.85, 0.15)]  # plus, minus


def plot_terms(matrix: Tensor, count: int = 4, more: int = 16) -> Figure:
    """Rank-one terms of a matrix (m, n) of numbers from 0 to 1, each with its column, its row, and the sum so far."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    signs = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()  # the largest entry gets a plus
    U, Vh = U * signs, Vh * signs.T
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
                _draw_curve(row.fill_between, row.axhline, Vh[i])
                row.set_title(f"term {i + 1}: σ = {S[i]:.1f}", fontsize=10, loc="center")
                column = figure.add_subplot(grid[1, 2 * i], sharey=image)
                _draw_curve(column.fill_betweenx, column.axvline, U[:, i])
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
        key = ["above zero: adds light", "below zero: takes light away"]
        figure.legend([Patch(color=each) for each in SIGNS], key, loc="outside lower left", ncols=2)
    values = ", ".join(f"{value:.1f}" for value in S[:count])
    return with_description(
        figure,
        f"The first {count} rank-one terms of a picture, each one column times one row, with singular values "
        f"{values}; under each, the sum of the terms so far; at the right the picture, of {matrix.numel():,} numbers, and "
        f"the sum of {more} terms, which takes {more * each:,}.",
    )


def _draw_curve(fill: Callable, line: Callable, values: Tensor) -> None:
    """A column or a row as a filled curve, in the colours of its signs, around a thin line at zero."""
    fill(range(len(values)), values.clamp(min=0), color=SIGNS[0], linewidth=0)
    fill(range(len(values)), values.clamp(max=0), color=SIGNS[1], linewidth=0)
    line(0, color=QUIET, linewidth=0.8)


OWN = {"LoRA": BLUE, "LoRA, rank 3": PURPLE, "Serial LoRA": VERMILION}
OWN |= {"even": GREEN, "square root": "#e69f00", "squared": INK}


def plot_over_rank(
    ranks: Sequence[int],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    levels: Mapping[str, Mapping[str, float]],
    stars: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """A panel for each measure: its name -> a curve's name -> its values over the rank.

    The measure "Loss" is on a logarithmic axis, a share from 0 to 1; levels have no rank, and are dashed. Stars stand
    in the last panel: the rank and the loss of what was trained.
    """
    words = []
    with styled_figure(4.6 * len(panels) + 0.8, 3.9) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (measure, curves) in zip(grid, panels.items(), strict=True):
            for name, values in curves.items():
                axes.plot(ranks, values, "o-", label=name, color=OWN[name], markersize=4)
                words.append(f"{measure}, {name}: {', '.join(f'{y:.2f}' for y in values)}")
            for name, level in levels.get(measure, {}).items():
                axes.axhline(level, color=QUIET, linestyle=DASHED, linewidth=1)
                look = {"ha": "left", "va": "bottom", "color": QUIET, "fontsize": 10}
                axes.annotate(name, (0.02, level), xycoords=("axes fraction", "data"), **look)
                words.append(f"{measure}, {name}: {level:.2f}")
            axes.set_xscale("log", base=2)
            axes.set_xticks(ranks, map(str, ranks), minor=False)
            share = measure != "Loss"
            look = {"ylim": (0, 1)} if share else {"yscale": "log", "ylim": (None, 4)}
            axes.set(xlabel="rank r", title=measure, **look)
            ticker = matplotlib.ticker
            shown = ticker.PercentFormatter(1.0) if share else ticker.FormatStrFormatter("%g")
            axes.yaxis.set_major_formatter(shown)
            axes.minorticks_off()
        for name, (rank, value) in (stars or {}).items():
            look = {"color": OWN[name], "edgecolors": INK, "zorder": 3}
            grid[-1].scatter(rank, value, 220, marker="*", label=f"{name}, trained", **look)
            words.append(f"a star at rank {rank}, {name} trained: {value:.2f}")
        figure.legend(*grid[-1].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return with_description(figure, f"At ranks {', '.join(map(str, ranks))}. {'; '.join(words)}.")


def plot_ends(ends: Mapping[str, Ends]) -> Figure:
    """Over the rate, the loss at the end of each run; a line through the medians, with its name and a ring at its best."""
    with styled_figure(7.4, 4.2) as figure:
        axes = figure.subplots()
        told = _draw_ends(axes, ends)
        look = {"textcoords": "offset points", "xytext": (16, 0), "va": "center"}
        for name, losses in ends.items():
            end = max(losses), np.median(losses[max(losses)])
            axes.annotate(name, end, color=OWN[name], **look)
        axes.set_xlim(None, 1.5 * axes.get_xlim()[1])
    return with_description(figure, f"Median training losses. {told}.")


def plot_spreads(spreads: Mapping[str, float], ends: Mapping[str, Ends]) -> Figure:
    """Left, as `plot_ends`, the ways that have a spread; right, their best over it; a way without one is dashed."""
    with styled_figure(10.4, 4.2) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        told = _draw_ends(left, {name: ends[name] for name in spreads})
        best = {name: ends[name][_best(ends[name])] for name in ends}
        right.plot([*spreads.values()], [np.median(best[name]) for name in spreads], color=QUIET)
        for name, spread in spreads.items():
            right.scatter([spread] * len(best[name]), best[name], s=36, color=OWN[name], zorder=3)
        for name in ends.keys() - spreads:
            level = np.median(best[name])
            right.axhline(level, color=OWN[name], linestyle=DASHED, linewidth=1.5)
            look = {"ha": "right", "va": "bottom", "color": OWN[name]}
            right.annotate(name, (0.98, level), xycoords=("axes fraction", "data"), **look)
        right.set(title="… at the best rate, over M's spread", xscale="log")
        ticks = [f"{spread:.0f}\n{name}" for name, spread in spreads.items()]
        right.set_xticks([*spreads.values()], ticks, minor=False)
        for label, name in zip(right.get_xticklabels(), spreads, strict=True):
            label.set_color(OWN[name])
        right.minorticks_off()
        right.margins(x=0.12)
    wide = ", ".join(f"{name} {spread:.1f}" for name, spread in spreads.items())
    return with_description(figure, f"Spreads: {wide}. Median training losses. {told}.")


def _best(losses: Ends) -> float:
    return min(losses, key=lambda rate: np.median(losses[rate]))


def _draw_ends(axes: Axes, ends: Mapping[str, Ends]) -> str:
    """The dots, lines and rings of both figures, and in words their medians."""
    words = []
    for i, (name, losses) in enumerate(ends.items()):
        middles = {rate: np.median(each) for rate, each in losses.items()}
        aside = 1.02 ** (i - (len(ends) - 1) / 2)  # so that no way's dots hide another's
        line = [rate * aside for rate in middles], [*middles.values()]
        axes.plot(*line, color=OWN[name], linewidth=2)
        for rate, each in losses.items():
            look = {"s": 30, "color": OWN[name], "alpha": 0.75, "zorder": 3}
            axes.scatter([rate * aside] * len(each), each, **look)
        ring = {"s": 170, "facecolors": "none", "edgecolors": OWN[name], "linewidths": 2}
        axes.scatter([_best(losses) * aside], [middles[_best(losses)]], **ring)
        words.append(f"{name}: {', '.join(f'{m:.2f} at {r:g}' for r, m in middles.items())}")
    rates = sorted({rate for losses in ends.values() for rate in losses})
    axes.set(title="Loss after training", xscale="log", yscale="log")
    axes.set_xlabel("rate (dots: seeds; line: medians; ring: the best)")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    return "; ".join(words)


def plot_token_moves(rows: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]) -> Figure:
    """Where tokens with two entries are before and after a pair of rank 1, one panel a space.

    An arrow leads from where a token was to where it is. Tokens on the dashed line stay. `rows` is what is written
    at the left of a row -> panel title -> where the tokens are before and after, each (n, 2); the move is linear.
    """
    columns = max(map(len, rows.values()))
    pairs = [pair for panels in rows.values() for pair in panels.values()]
    reach = 1.1 * max(each.abs().max().item() for pair in pairs for each in pair)
    with styled_figure(2.5 * columns + 1, 2.6 * len(rows) + 0.3) as figure:
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (title, panels) in zip(grid, rows.items(), strict=True):
            colour = OWN[title.partition("\n")[0]]
            for axes, (space, moves) in zip(line, panels.items(), strict=True):
                _draw_moves(axes, *(each.numpy() for each in moves), reach, colour)
                axes.set_title(space, loc="center")
            line[0].set_ylabel(title, color=colour)
        stays = matplotlib.lines.Line2D([], [], color=QUIET, linestyle="--")
        figure.legend([stays], ["tokens on this line stay"], loc="outside lower center")
    return with_description(
        figure,
        "Ten numbered tokens in a plane, with arrows from before to after. With a pair for each matrix, arrows and the "
        "line of tokens that stay differ from panel to panel; with a shared pair all panels are the same.",
    )


def _draw_moves(
    axes: Axes, before: np.ndarray, after: np.ndarray, reach: float, colour: str
) -> None:
    # move = before @ M: what stays is the direction that M maps to zero
    stays = np.linalg.svd(np.linalg.lstsq(before, after - before)[0])[0][:, -1]
    axes.plot(*(np.stack([-stays, stays]) * 2 * reach).T, color=QUIET, linestyle="--", zorder=0)
    for i, (start, end) in enumerate(zip(before, after, strict=True)):
        if np.linalg.norm(end - start) > 0.02 * reach:
            style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8, "shrinkA": 0}
            axes.annotate("", end, start, arrowprops=style | {"shrinkB": 0})
        circle = {"boxstyle": "circle,pad=0.18", "facecolor": "white", "edgecolor": QUIET}
        look = {"fontsize": 8, "ha": "center", "va": "center", "color": INK}
        axes.text(*start, str(i + 1), bbox=circle, **look)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
    axes.grid(False)
