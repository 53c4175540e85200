"""Pictures side by side, and what a model makes of each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.figures.style import INK, house_style, with_description


def as_array(picture: Any) -> np.ndarray:
    """A picture as an array to draw: PIL image, (H, W), (H, W, C) or (C, H, W) array or tensor."""
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGBA" if "A" in picture.getbands() else "RGB"))
    channels = (1, 3, 4)
    is_tensor = hasattr(picture, "detach")
    if is_tensor:
        picture = picture.detach().cpu()
        picture = picture.float() if picture.is_floating_point() else picture
    array = np.asarray(picture)
    # A shape such as (4, 4, 4) can be read both ways: tensors keep channels first, arrays last.
    if array.ndim == 3 and array.shape[0] in channels:
        if is_tensor or array.shape[2] not in channels:
            array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3):
        raise SerialLoRAError(
            f"a picture has 2 or 3 dimensions, not {array.ndim}; pass a list of pictures."
        )
    return np.clip(array, 0, 1) if np.issubdtype(array.dtype, np.floating) else array


def show_pictures(
    pictures: Sequence[Any],
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    size: float = 1.5,
) -> Figure:
    """A grid of pictures, each with a short title above it.

    Args:
        pictures: PIL images, or arrays or tensors of shape (H, W), (H, W, C) or (C, H, W); floats
            are between 0 and 1.
        titles: as many as there are pictures.
        columns: pictures in a row; eight at most when left out.
        size: inches each.
    """
    if not len(pictures):
        raise SerialLoRAError("there are no pictures to show; pass at least one.")
    if titles is not None and len(titles) != len(pictures):
        raise SerialLoRAError(
            f"{len(pictures)} pictures came with {len(titles)} titles; pass one title a picture."
        )
    columns = columns or min(8, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    height = size + (0.25 if titles else 0.05)
    with house_style():
        figure = Figure(figsize=(size * columns, height * rows), layout="constrained")
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


def show_handled(folder: Path, facts: pd.DataFrame) -> Figure:
    """The unusual files of a folder as a model will see them.

    Args:
        facts: what `serial_lora_course.data.folder.examine_folder` says of each file.

    Raises:
        SerialLoRAError: no file is unusual.
    """
    unusual = facts["mode"].ne("RGB") | facts["file"].str.endswith(".jpg")
    handled = facts[facts["usable"] & unusual]
    seen = [read_picture(folder / name, upright=True) for name in handled["file"]]
    titles = [
        f"{Path(row.file).stem.replace('_', ' ')}\n{row.remark.partition(':')[0]}\n"
        f"{row.mode} -> {picture.mode}"
        for row, picture in zip(handled.itertuples(), seen, strict=True)
    ]
    words = "; ".join(title.replace("\n", ", ") for title in titles)
    figure = show_pictures(seen, titles, size=2.0)
    return with_description(figure, f"Pictures of unusual files, all read as RGB: {words}.")
