"""What a model makes of each of some pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.pictures import as_array
from serial_lora_course.plots.style import INK, house_style, with_description


def plot_shares(pictures: Sequence[Any], captions: Sequence[str], shares: Any) -> Figure:
    """How a model divides each picture's certainty among the captions: a heat map with pictures.

    Args:
        pictures: n of them, as in :func:`show_pictures`; one row each.
        captions: m short texts; one column each.
        shares: (n, m) numbers between 0 and 1; the largest of each row is printed in bold.
    """
    shares = np.asarray(shares, dtype=float)
    if shares.shape != (len(pictures), len(captions)):
        raise SerialLoRAError(
            f"{len(pictures)} pictures and {len(captions)} captions need shares of shape "
            f"({len(pictures)}, {len(captions)}), not {shares.shape}."
        )
    rows, columns = shares.shape
    with house_style():
        figure = Figure(figsize=(0.9 * (1.5 * columns + 1), 0.9 * (rows + 0.6)))
        left, top = 1 / (1.5 * columns + 1), 1 - 0.6 / (rows + 0.6)
        axes = figure.add_axes((left, 0, 1 - left, top))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.2, aspect="auto")
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set(yticks=[])
        axes.set_xticks(range(columns), captions, fontsize=10)
        axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
        for row, column in np.ndindex(rows, columns):
            weight = "bold" if column == shares[row].argmax() else "normal"
            look = {"weight": weight, "color": "white" if shares[row, column] > 0.6 else INK}
            words = f"{shares[row, column]:.0%}"
            axes.text(column, row, words, ha="center", va="center", fontsize=11, **look)
        for row, picture in enumerate(pictures):
            height = top / rows
            place = (0.05 * left, top - (row + 0.95) * height, 0.9 * left, 0.9 * height)
            inset = figure.add_axes(place)
            inset.imshow(as_array(picture), cmap="gray", interpolation="nearest")
            inset.axis("off")
    best = "; ".join(
        f"picture {row + 1}: {captions[int(line.argmax())]}, {line.max():.0%}"
        for row, line in enumerate(shares)
    )
    return with_description(
        figure, f"Shares of {columns} captions for {rows} pictures. The largest of each: {best}."
    )
