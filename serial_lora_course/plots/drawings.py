"""Figures of drawings: models beside each other, contact sheets, and the path to noise and back.

A drawing of the tiny model is 64 pixels wide. On the screen each of them becomes exactly two by
two, so that pixel art keeps its cells and nobody sees a blur that the model did not draw; larger
pictures are made smaller with care.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.pictures import as_array
from serial_lora_course.plots.style import (
    SCREEN_DPI,
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
CAPTION = {"fontsize": 8.5, "linespacing": 1.15}


@dataclass(frozen=True)
class Row:
    """Pictures from left to right, with a turned title at their left and captions below or over."""

    title: str
    pictures: Sequence[Any]
    below: Sequence[str] = ()
    over: Sequence[str] = ()


def _wrapped(words: str, letters: int = LETTERS) -> str:
    """A caption as wide as a picture, or a row's title as long as one is high."""
    return textwrap.fill(words, letters, max_lines=MOST_LINES, placeholder=" …")


def _height(texts: Sequence[str], gap: int) -> int:
    """Screen pixels that the longest of some wrapped texts needs, and a gap beside it."""
    lines = max((text.count("\n") + 1 for text in texts if text), default=0)
    return LINE * lines + gap if lines else 0


def draw_rows(rows: Sequence[Row], heading: str = "", cell: int = CELL) -> Figure:
    """Every picture ``cell`` screen pixels wide and high, in rows from the top."""
    for row in rows:
        captions = row.over or row.below or row.pictures
        if not len(row.pictures) or len(captions) != len(row.pictures):
            raise SerialLoRAError(
                f"a row {row.title!r} of {len(row.pictures)} pictures came with {len(captions)} "
                "captions; pass at least one picture, and a caption for each."
            )
    if not rows:
        raise SerialLoRAError("there are no pictures to show; pass at least one.")
    titles = [_wrapped(row.title, TITLE_LETTERS) for row in rows]
    left = MARGIN + _height(titles, 0)
    width = left + (cell + GAP) * max(len(row.pictures) for row in rows)
    above = [_height(row.over, 4) for row in rows]
    under = [_height(row.below, 5) for row in rows]
    height = len(rows) * (cell + GAP) + sum(above) + sum(under) + GAP
    height += HEADING if heading else 0
    with house_style():
        figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI))
        if heading:
            style = {"fontsize": 11, "weight": "bold", "va": "top"}
            figure.text(left / width, 1 - 6 / height, heading, **style)
        y = height - (HEADING if heading else 0)
        for i, row in enumerate(rows):
            y -= above[i] + cell + GAP
            for column, picture in enumerate(row.pictures):
                x = left + column * (cell + GAP)
                axes = figure.add_axes((x / width, y / height, cell / width, cell / height))
                _show(axes, picture, cell)
                if row.below:
                    axes.set_xlabel(row.below[column], labelpad=3, **CAPTION)
                if row.over:
                    look = {"weight": "normal", "loc": "center", "pad": 4}
                    axes.set_title(row.over[column], **look, **CAPTION)
                if column == 0:
                    look = {"fontsize": 10, "weight": "bold", "linespacing": 1.1}
                    axes.set_ylabel(titles[i], labelpad=5, **look)
            y -= under[i]
    return figure


def _show(axes: Any, picture: Any, cell: int) -> None:
    array = as_array(picture)
    crisp = max(array.shape[:2]) <= cell
    axes.imshow(array, cmap="gray", interpolation="nearest" if crisp else "antialiased")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _quoted(captions: Sequence[str]) -> str:
    return ", ".join(f"“{caption}”" for caption in captions)


def plot_drawings(
    rows: Mapping[str, Sequence[Any]],
    captions: Sequence[str],
    title: str = "",
    cell: int = CELL,
) -> Figure:
    """What several models draw for the same prompts: one row a model, one column a prompt.

    Args:
        rows: name of a model ("not adapted", "Serial LoRA", "real") to N pictures as in
            :func:`serial_lora_course.plots.pictures.show_pictures`, such as uint8
            (N, height, width, 3).
        captions: N prompts, over the columns.
        title: what all of them have in common, over everything.
        cell: screen pixels of a picture's longer side.

    Raises:
        SerialLoRAError: there is nothing to show, or not one picture a prompt in each row.
    """
    if any(len(pictures) != len(captions) for pictures in rows.values()):
        raise SerialLoRAError(f"pass one picture a caption, {len(captions)}, in every row.")
    letters = LETTERS * cell // CELL
    over = [[_wrapped(caption, letters) for caption in captions], *[()] * len(rows)]
    lines = [
        Row(name, pictures, over=words)
        for (name, pictures), words in zip(rows.items(), over, strict=False)
    ]
    figure = draw_rows(lines, title, cell)
    common = f" {title}." if title else ""
    names = f" Rows: {', '.join(rows)}." if any(rows) else ""
    words = f"A grid of drawings.{common}{names} Columns: {_quoted(captions)}."
    return with_description(figure, words)


def plot_sheet(pictures: Sequence[Any], captions: Sequence[str], columns: int = 8) -> Figure:
    """A contact sheet: every picture with its caption below it.

    Args:
        pictures: N of them, as in :func:`serial_lora_course.plots.pictures.show_pictures`.
        captions: N texts.
        columns: pictures in a row, at least 1.

    Raises:
        SerialLoRAError: there are no pictures, or not one caption a picture.
    """
    below = [_wrapped(caption) for caption in captions]
    rows = [
        Row("", pictures[i : i + columns], below=below[i : i + columns])
        for i in range(0, max(len(pictures), len(captions)), columns)
    ]
    phrases = f"{len(pictures)} drawings, row by row: {_quoted(captions)}."
    return with_description(draw_rows(rows), phrases)


# ------------------------------------------------------------------- noise, and the way back
