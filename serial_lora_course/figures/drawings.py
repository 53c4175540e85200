"""Figures of drawings: models beside each other, contact sheets, and the path to noise and back.

A drawing of the tiny model is 64 pixels wide. On the screen each of them becomes exactly two by
two, so that pixel art keeps its cells and nobody sees a blur that the model did not draw; larger
pictures are made smaller with care.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.base import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    QUIET,
    SCREEN_DPI,
    VERMILION,
    as_array,
    house_style,
    with_description,
)

CELL = 128
"""Screen pixels of a picture's longer side."""
GAP = 8
MARGIN = 16
LINE = 15  # of a caption's height, or of the width of a row's title, which is turned
HEADING = 28
LETTERS = 17  # in a line of a caption
TITLE_LETTERS = 13  # in a line of a row's title
MOST_LINES = 4  # what goes beyond stands in the description only
CAPTION_SIZE = 8.5

# ------------------------------------------------------------------------- grids of drawings


def _wrapped(words: str, letters: int = LETTERS) -> str:
    """A caption as wide as a picture, or a row's title as long as one is high."""
    return textwrap.fill(words, letters, max_lines=MOST_LINES, placeholder=" …")


def _height(texts: Sequence[str]) -> int:
    """Screen pixels that the longest of some wrapped texts needs."""
    return LINE * max((text.count("\n") + 1 for text in texts if text), default=0)


def _cells(
    titles: Sequence[str], columns: int, top: int = 0, below: Sequence[int] | None = None
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns), each `CELL` screen pixels wide and high.

    Args:
        titles: one a row, turned, at its left; may all be empty.
        top: screen pixels kept free over everything.
        below: screen pixels kept free below each row.
    """
    titles = [_wrapped(title, TITLE_LETTERS) for title in titles]
    below = below or [0] * len(titles)
    left = MARGIN + _height(titles)
    width = left + columns * (CELL + GAP)
    height = top + len(titles) * (CELL + GAP) + sum(below) + GAP
    figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI))
    grid = np.empty((len(titles), columns), object)
    for row, column in np.ndindex(grid.shape):
        x = left + column * (CELL + GAP)
        y = height - top - (row + 1) * (CELL + GAP) - sum(below[:row])
        axes = figure.add_axes((x / width, y / height, CELL / width, CELL / height))
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        grid[row, column] = axes
    for axes, title in zip(grid[:, 0], titles, strict=True):
        axes.set_ylabel(title, fontsize=10, weight="bold", labelpad=5, linespacing=1.1)
    return figure, grid


def _show(axes: Any, picture: Any) -> None:
    array = as_array(picture)
    crisp = max(array.shape[:2]) <= CELL
    axes.imshow(
        array,
        cmap="gray" if array.ndim == 2 else None,
        interpolation="nearest" if crisp else "antialiased",
    )


def _write_below(axes: Any, caption: str) -> None:
    axes.set_xlabel(caption, fontsize=CAPTION_SIZE, labelpad=3, linespacing=1.15)


def _quoted(captions: Sequence[str]) -> str:
    return ", ".join(f"“{caption}”" for caption in captions)


def plot_drawings(
    rows: Mapping[str, Sequence[Any]], captions: Sequence[str], title: str | None = None
) -> Figure:
    """What several models draw for the same prompts: one row a model, one column a prompt.

    Args:
        rows: name of a model ("not adapted", "Serial LoRA", "real") to N pictures as in
            :func:`serial_lora_course.figures.base.show_pictures`, such as uint8 (N, height, width, 3).
        captions: N prompts, over the columns.
        title: what all of them have in common, over everything.

    Raises:
        SerialLoRAError: there is nothing to show, or not one picture a prompt in each row.
    """
    if not rows or not len(captions):
        raise SerialLoRAError("there are no drawings to show; pass at least one row and column.")
    for name, pictures in rows.items():
        if len(pictures) != len(captions):
            raise SerialLoRAError(
                f"row {name!r} has {len(pictures)} pictures for {len(captions)} captions; pass one "
                "picture a caption."
            )
    over = [_wrapped(caption) for caption in captions]
    with house_style():
        top = _height(over) + 4 + (HEADING if title else 0)
        figure, grid = _cells(list(rows), len(captions), top)
        if title:
            style = {"fontsize": 11, "weight": "bold", "va": "top"}
            left = grid[0, 0].get_position().x0
            figure.text(left, 1 - 6 / SCREEN_DPI / figure.get_figheight(), title, **style)
        for axes, words in zip(grid[0], over, strict=True):
            axes.set_title(
                words, fontsize=CAPTION_SIZE, weight="normal", loc="center", pad=4, linespacing=1.15
            )
        for line, pictures in zip(grid, rows.values(), strict=True):
            for axes, picture in zip(line, pictures, strict=True):
                _show(axes, picture)
    common = f" {title}." if title else ""
    return with_description(
        figure,
        f"A grid of drawings.{common} Rows: {', '.join(rows)}. Columns: {_quoted(captions)}.",
    )


def plot_sheet(pictures: Sequence[Any], captions: Sequence[str], columns: int = 8) -> Figure:
    """A contact sheet: every picture with its caption below it.

    Args:
        pictures: N of them, as in :func:`serial_lora_course.figures.base.show_pictures`.
        captions: N texts.
        columns: pictures in a row.

    Raises:
        SerialLoRAError: there are no pictures, or not one caption a picture.
    """
    if not len(pictures) or columns < 1:
        raise SerialLoRAError("there are no pictures to show; pass at least one, in a column.")
    if len(captions) != len(pictures):
        raise SerialLoRAError(
            f"{len(pictures)} pictures came with {len(captions)} captions; pass one a picture."
        )
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    words = [_wrapped(caption) for caption in captions]
    below = [_height(words[row * columns : (row + 1) * columns]) + 5 for row in range(rows)]
    with house_style():
        figure, grid = _cells([""] * rows, columns, below=below)
        for axes in grid.flat[len(pictures) :]:
            axes.set_visible(False)
        for axes, picture, caption in zip(grid.flat, pictures, words, strict=False):
            _show(axes, picture)
            _write_below(axes, caption)
    return with_description(figure, f"{len(pictures)} drawings, row by row: {_quoted(captions)}.")


# ------------------------------------------------------------------- noise, and the way back


@dataclass(frozen=True)
class PathRow:
    """One row of :func:`plot_flow_path`.

    Attributes:
        title: what happens from left to right, such as "picture to noise".
        pictures: M latents of the path, decoded: pictures as in
            :func:`serial_lora_course.figures.base.show_pictures`.
        sigmas: (M,), the share of noise in each, from 0 to 1.
        steps: how many steps of the sampler lie behind each; None where nothing was sampled.
    """

    title: str
    pictures: Sequence[Any]
    sigmas: Sequence[float]
    steps: Sequence[int] | None = None

    @property
    def captions(self) -> list[str]:
        """How much noise each picture has, and after how many steps."""
        noise = [f"σ = {float(sigma):.2f}" for sigma in self.sigmas]
        if self.steps is None:
            return noise
        return [f"after {step}: {words}" for step, words in zip(self.steps, noise, strict=True)]


def plot_flow_path(rows: Sequence[PathRow]) -> Figure:
    """A picture on its straight path to noise, and a sampler's way from noise to a drawing.

    Args:
        rows: such as the path of one picture, and the steps of one drawing.

    Raises:
        SerialLoRAError: there is nothing to show, or not one sigma (and step) a picture.
    """
    if not rows or not all(len(row.pictures) for row in rows):
        raise SerialLoRAError("there is no path to show; pass rows with at least one picture.")
    for row in rows:
        steps = row.sigmas if row.steps is None else row.steps
        if not len(row.pictures) == len(row.sigmas) == len(steps):
            raise SerialLoRAError(
                f"{row.title!r} has {len(row.pictures)} pictures, {len(row.sigmas)} sigmas and "
                f"{len(steps)} steps; pass as many of each."
            )
    columns = max(len(row.pictures) for row in rows)
    with house_style():
        titles = [row.title for row in rows]
        figure, grid = _cells(titles, columns, below=[LINE + 5] * len(rows))
        for line, row in zip(grid, rows, strict=True):
            for axes in line[len(row.pictures) :]:
                axes.set_visible(False)
            for axes, picture, words in zip(line, row.pictures, row.captions, strict=False):
                _show(axes, picture)
                _write_below(axes, words)
    said = "; ".join(f"{row.title} ({', '.join(row.captions)})" for row in rows)
    return with_description(
        figure, f"Latents between picture (σ = 0) and noise (σ = 1), decoded. Rows: {said}."
    )


def plot_sigmas(levels: Mapping[str, Any], bins: int = 40) -> Figure:
    """How often each noise level comes up in training, as a histogram of those that were drawn.

    Args:
        levels: name ("plain", "shift 3") to noise levels (count,) between 0 and 1, as
            :func:`serial_lora.flow.sample_sigmas` draws them.
        bins: of equal width.

    Raises:
        SerialLoRAError: there are no levels, or one is outside 0 to 1.
    """
    columns = {name: np.asarray(values, float).ravel() for name, values in levels.items()}
    if not columns or not all(len(values) for values in columns.values()):
        raise SerialLoRAError("there are no noise levels to count; pass some under a name.")
    for name, values in columns.items():
        if not ((values >= 0) & (values <= 1)).all():
            raise SerialLoRAError(
                f"{name!r} holds a noise level outside 0 to 1; divide timesteps by a thousand."
            )
    with house_style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for place, (name, values) in enumerate(columns.items()):
            axes.hist(
                values,
                bins=bins,
                range=(0, 1),
                density=True,
                histtype="stepfilled",
                label=f"{name}: half are below {np.median(values):.2f}",
                **_hist_look(place),
            )
        axes.axhline(1, color=QUIET, linestyle=DASHED, label="all levels equally often")
        axes.set(
            xlim=(0, 1),
            xlabel="noise level σ (0: the picture, 1: noise alone)",
            ylabel="how often (density)",
        )
        figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    said = "; ".join(f"{name}: median {np.median(v):.2f}" for name, v in columns.items())
    return with_description(
        figure, f"Histogram of the noise levels that training draws, between 0 and 1. {said}."
    )


def _hist_look(place: int) -> dict[str, Any]:
    """Outlines that differ in line as well as in colour, and shine through one another."""
    colours, lines = (BLUE, VERMILION, GREEN, INK), ("-", "--", ":", "-.")
    colour = colours[place % 4]
    return {
        "edgecolor": colour,
        "facecolor": to_rgba(colour, 0.15),
        "linestyle": lines[place % 4],
        "linewidth": 1.8,
    }
