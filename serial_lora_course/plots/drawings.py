"""Drawings in rows: models beside each other, and the path to noise and back.

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
from serial_lora_course.plots.pictures import as_array, draw_bare
from serial_lora_course.plots.style import SCREEN_DPI, house_style, with_description

CELL = 128
"""Screen pixels of a picture's longer side."""
GAP, MARGIN, LINE = 8, 16, 15  # pixels; a line of a caption is so high
LETTERS = 17  # in a line of a caption
CAPTION = {"fontsize": 8.5, "linespacing": 1.15, "weight": "normal", "loc": "center", "pad": 4}
TITLE = {"fontsize": 10, "weight": "bold", "linespacing": 1.1, "labelpad": 5}


@dataclass(frozen=True)
class Row:
    """Pictures from left to right, with a turned title at their left and captions over them, if any."""

    title: str
    pictures: Sequence[Any]
    captions: Sequence[str] = ()


def _wrapped(words: str, letters: int) -> str:
    return textwrap.fill(words, letters, max_lines=4, placeholder=" …")


def draw_rows(rows: Sequence[Row]) -> Figure:
    """Every picture `CELL` screen pixels wide and high, in rows from the top."""
    captions = [[_wrapped(words, LETTERS) for words in row.captions] for row in rows]
    titles = [_wrapped(row.title, 13) for row in rows]
    lines = [max((text.count("\n") + 1 for text in some), default=0) for some in captions]
    left = MARGIN + LINE * max(text.count("\n") + bool(text) for text in titles)
    width = left + (CELL + GAP) * max(len(row.pictures) for row in rows)
    height = len(rows) * (CELL + 2 * GAP) + LINE * sum(lines)
    with house_style():
        figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI))
        y = height
        for i, row in enumerate(rows):
            y -= LINE * lines[i] + GAP + CELL
            for column, picture in enumerate(row.pictures):
                x = left + column * (CELL + GAP)
                axes = figure.add_axes((x / width, y / height, CELL / width, CELL / height))
                crisp = max(as_array(picture).shape[:2]) <= CELL
                draw_bare(axes, picture, "nearest" if crisp else "antialiased")
                if row.captions:
                    axes.set_title(captions[i][column], **CAPTION)
                if column == 0:
                    axes.set_ylabel(titles[i], **TITLE)
            y -= GAP
    words = "; ".join(
        f"{row.title} {', '.join(f'“{words}”' for words in row.captions)}".strip() for row in rows
    )
    return with_description(figure, f"Drawings in rows. {words}.")


def plot_drawings(rows: Mapping[str, Sequence[Any]], captions: Sequence[str]) -> Figure:
    """What several models draw for the same prompts: one row per model, one column per prompt.

    Args:
        rows: name of a model ("not adapted", "Serial LoRA", "real") to N pictures as in
            :func:`serial_lora_course.plots.pictures.show_pictures`.
        captions: N prompts, over the columns.
    """
    if any(len(pictures) != len(captions) for pictures in rows.values()):
        raise SerialLoRAError(f"pass one picture per caption, {len(captions)}, in every row.")
    over = [captions, *[()] * len(rows)]
    drawn = [Row(name, rows[name], words) for name, words in zip(rows, over, strict=False)]
    return draw_rows(drawn)
