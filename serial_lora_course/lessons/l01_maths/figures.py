"""Low rank, seen: layers of a matrix, what each rank misses, where tokens move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.lowrank import finite_matrix, tail_misses
from serial_lora_course.plots.style import (
    GREEN,
    INK,
    METHOD_LOOKS,
    PURPLE,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)


def plot_layers(matrix: Tensor, count: int = 4) -> Figure:
    """The first layers of a matrix's singular value decomposition, and their sum so far.

    Above: each layer, one column times one row, with the column drawn to its left and the row over
    it. Below: the sum of the layers up to here.

    Args:
        matrix: (m, n) numbers between 0 and 1, such as a grey picture.
        count: how many layers.

    Raises:
        SerialLoRAError: the matrix has not so many layers, or holds values that are not finite.
    """
    grey, U, S, Vh = _decomposed(matrix, count)
    with house_style():
        figure = Figure(figsize=(2.3 * count, 5.0), layout="constrained")
        grid = figure.add_gridspec(
            3, 2 * count, height_ratios=(1, 5, 5), width_ratios=(1, 5) * count
        )
        for i in range(count):
            layer = (S[i] * torch.outer(U[:, i], Vh[i])).numpy()
            image = figure.add_subplot(grid[1, 2 * i + 1])
            limit = abs(layer).max()
            image.imshow(layer, cmap="RdBu", vmin=-limit, vmax=limit)
            row = figure.add_subplot(grid[0, 2 * i + 1], sharex=image)
            row.plot(Vh[i].numpy(), color=INK, linewidth=1.2)
            row.set_title(f"layer {i + 1}: σ = {S[i]:.1f}", fontsize=10, loc="center")
            column = figure.add_subplot(grid[1, 2 * i], sharey=image)
            column.plot(U[:, i].numpy(), np.arange(len(U)), color=INK, linewidth=1.2)
            total = figure.add_subplot(grid[2, 2 * i + 1])
            so_far = (U[:, : i + 1] * S[: i + 1]) @ Vh[: i + 1]
            total.imshow(so_far.clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
            total.set_title("the first" if i == 0 else f"sum of {i + 1}", fontsize=10, loc="center")
            for axes in (image, row, column, total):
                axes.axis("off")
    values = ", ".join(f"{value:.1f}" for value in S[:count])
    return with_description(
        figure,
        f"The first {count} layers of a picture, each one column times one row, with singular values "
        f"{values}; under each, the sum of the layers so far.",
    )


def _decomposed(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A matrix as finite numbers, and its decomposition U, S, Vh, of whose layers so many are shown."""
    numbers = finite_matrix(matrix)
    if not 1 <= count <= min(numbers.shape):
        raise SerialLoRAError(
            f"a matrix of shape {tuple(numbers.shape)} has {min(numbers.shape)} layers, not {count}."
        )
    return numbers, *torch.linalg.svd(numbers, full_matrices=False)


def plot_rank(name: str, matrix: Tensor, rank: int) -> Figure:
    """The spectrum of a matrix with the values that a rank keeps, and the matrix beside what they make.

    Args:
        matrix: (m, n).
        rank: how many of its layers are kept, at least 1.

    Raises:
        SerialLoRAError: the matrix has not so many layers, or holds values that are not finite.
    """
    numbers, U, S, Vh = _decomposed(matrix, rank)
    kept = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    missed = float(tail_misses(numbers)[rank])
    with house_style():
        figure = Figure(figsize=(9, 2.9), layout="constrained")
        spectrum, whole, part = figure.subplots(1, 3, width_ratios=(5, 3, 3))
        index = np.arange(1, len(S) + 1)
        for some, colour in ((index <= rank, VERMILION), (index > rank, QUIET)):
            spectrum.bar(index[some], S.numpy()[some], width=1.0, color=colour)
        floor = 1e-4 * S[0].item()  # of the logarithmic axis
        spectrum.set(xlabel="index", title=f"{name}: singular values", yscale="log")
        spectrum.set_ylim(bottom=floor)
        limits = {"vmin": numbers.min().item(), "vmax": numbers.max().item(), "cmap": "gray"}
        for axes, picture, title in (
            (whole, numbers, "the matrix"),
            (part, kept, f"rank {rank} misses {missed:.0%}"),
        ):
            axes.imshow(picture.numpy(), interpolation="nearest", **limits)
            axes.set_title(title)
            axes.axis("off")
    return with_description(
        figure,
        f"{name}: its singular values with the first {rank} marked, and the matrix beside their sum, "
        f"which misses {missed:.0%}.",
    )


_OTHERS = (
    {"color": INK, "linestyle": "-"},
    {"color": QUIET, "linestyle": "--"},
    {"color": GREEN, "linestyle": "-."},
    {"color": PURPLE, "linestyle": ":"},
)


def plot_misses(
    panels: Mapping[str, Mapping[str, Tensor]],
    ranks: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
) -> Figure:
    """What is missed at each rank, one small picture a target, one line a family.

    Args:
        panels: title to family (a method's name, or any other words) to misses at ranks 0, 1, ...,
            as :func:`tail_misses` and :func:`misses_by_method` give them.
        ranks: which of them to draw; on a logarithmic axis.
    """
    ranks = list(ranks)
    with house_style():
        width = max(5.6, 3.5 * len(panels))
        figure = Figure(figsize=(width, 3.7), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, curves) in zip(grid, panels.items(), strict=True):
            others = iter(_OTHERS * len(curves))
            for name, curve in curves.items():
                look = method_look(name) if name in METHOD_LOOKS else next(others)
                values = [float(curve[rank]) for rank in ranks]
                style = {"markersize": 5, "linewidth": 2, "clip_on": False, "label": name}
                axes.plot(ranks, values, **style | look)
            axes.set_xscale("log", base=2)
            axes.set_xticks(ranks, [str(rank) for rank in ranks])
            axes.minorticks_off()
            axes.set_title(title, fontsize=11)
            axes.set_xlabel("rank r")
        grid[0].set(ylim=(0, 1.02), ylabel="missed")
        grid[0].yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)))
    words = "; ".join(
        f"{title}, {method_look(name)['label']}: {float(curve[ranks[-1]]):.0%}"
        for title, curves in panels.items()
        for name, curve in curves.items()
    )
    return with_description(figure, f"Share missed by rank. At rank {ranks[-1]}: {words}.")


def plot_token_moves(
    rows: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]], formulas: Mapping[str, str]
) -> Figure:
    """Where tokens with two entries are before and after an adapter, one panel a space.

    Every token keeps its number in all panels. An arrow leads from where it was to where it is; its
    colour, like its length, says how far the token moved within its panel.

    Args:
        rows: method to panel title to (before, after), each (n, 2).
        formulas: method to what is written at the left of its row.
    """
    columns = max(map(len, rows.values()))
    with house_style():
        figure = Figure(figsize=(2.6 * columns + 0.3, 2.75 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for line, (method, panels) in zip(grid, rows.items(), strict=True):
            for axes, (title, (before, after)) in zip(line, panels.items(), strict=True):
                _draw_moves(axes, before.detach().numpy(), after.detach().numpy())
                axes.set_title(title, fontsize=10, loc="center")
            line[0].set_ylabel(formulas[method], fontsize=10, color=method_look(method)["color"])
    words = "; ".join(method_look(method)["label"] for method in rows)
    return with_description(
        figure, f"Numbered tokens in a plane, with arrows from before to after, for {words}."
    )


def _draw_moves(axes: Any, before: np.ndarray, after: np.ndarray) -> None:
    far = np.linalg.norm(after - before, axis=1)
    shades = matplotlib.colormaps["viridis_r"](0.1 + 0.9 * far / max(far.max(), 1e-12))
    for i, (start, end) in enumerate(zip(before, after, strict=True)):
        if far[i] > 0.02 * max(abs(before).max(), 1e-12):
            style = {"arrowstyle": "-|>", "color": shades[i], "linewidth": 1.6}
            axes.annotate("", end, start, arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
        axes.text(
            *start,
            str(i + 1),
            fontsize=8,
            ha="center",
            va="center",
            color="white" if shades[i, :3].mean() < 0.5 else INK,
            weight="bold",
            bbox={"boxstyle": "circle,pad=0.18", "facecolor": shades[i], "edgecolor": "none"},
        )
    reach = 1.15 * max(abs(before).max(), abs(after).max())
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
