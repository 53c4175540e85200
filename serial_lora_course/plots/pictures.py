"""Pictures side by side, and what a model makes of each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.style import styled_figure, with_description


def as_array(picture: Any) -> np.ndarray:
    """A picture as an array to draw: PIL's, or numbers of shape (H, W) or (H, W, C)."""
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGBA" if "A" in picture.getbands() else "RGB"))
    return np.asarray(picture)


def draw_bare(axes: Axes, picture: Any, interpolation: str = "nearest") -> None:
    """A picture without ticks, grid and frame, on axes that may still be labelled."""
    axes.imshow(as_array(picture), cmap="gray", interpolation=interpolation)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def show_pictures(
    pictures: Sequence[Any],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    size: float = 1.5,
) -> Figure:
    """A grid of pictures, each with a short title above it.

    Args:
        pictures: PIL images, or arrays of shape (H, W) or (H, W, C); floats are between 0 and 1.
        columns: pictures in a row; eight at most when left out.
        size: inches each.
    """
    if not len(pictures):
        raise SerialLoRAError("there are no pictures to show; pass at least one.")
    if titles is not None and len(titles) != len(pictures):
        raise SerialLoRAError(
            f"{len(pictures)} pictures came with {len(titles)} titles; pass one title per picture."
        )
    columns = columns or min(8, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = size + (0.25 if titles else 0.05)
    with styled_figure(size * columns, height * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for i, (axes, picture) in enumerate(zip(grid.flat, pictures, strict=False)):
            array = as_array(picture)
            axes.imshow(array, cmap="gray", interpolation="nearest")
            if titles is not None:
                axes.set_title(titles[i], fontsize=9, weight="normal", loc="center")
    names = f": {'; '.join(titles)}" if titles else ""
    return with_description(figure, f"{len(pictures)} pictures in {rows} row(s){names}.")
