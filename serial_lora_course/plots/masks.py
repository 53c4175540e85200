"""Pictures of masks: where a prediction agrees with the truth and where not, picture by picture.

Three colours, here and in the panel of lesson 06: blue where prediction and truth agree, yellow
where a part of the object is missed, vermilion where the prediction invents object that is not
there. They are Okabe and Ito's and differ in lightness as well as in hue, so that nobody has to
tell red from green; the picture below them is grey, so that no colour of its own is in the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from scipy.ndimage import binary_erosion

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.metrics import dice
from serial_lora_course.plots.pictures import as_array
from serial_lora_course.plots.style import BLUE, INK, VERMILION, house_style, with_description

NOTHING, AGREED, MISSED, FALSE_POSITIVE = range(4)
COLOURS: dict[int, str] = {AGREED: BLUE, MISSED: "#f0e442", FALSE_POSITIVE: VERMILION}
"""The house colour of each kind of pixel that is not `NOTHING`."""
WORDS = {AGREED: "found", MISSED: "missed", FALSE_POSITIVE: "false positive"}
STRENGTH = 0.65
"""How much of a coloured pixel is colour; the rest is the grey picture."""
BOX_COLOUR = VERMILION


def _mask(mask: Any, what: str, size: tuple[int, ...]) -> np.ndarray:
    """A mask, or several, as bool (N, height, width) of the picture's size."""
    if hasattr(mask, "detach"):
        mask = mask.detach().cpu()
    array = np.asarray(mask)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1:] != size:
        raise SerialLoRAError(
            f"the {what} mask has shape {np.shape(mask)} and the picture's height and width are "
            f"{size}; pass a mask of the picture's own size."
        )
    if np.issubdtype(array.dtype, np.floating) and not np.isin(array, (0, 1)).all():
        raise SerialLoRAError(
            f"the {what} mask holds other numbers than 0 and 1, as logits do; compare them with a "
            "threshold first."
        )
    return array.astype(bool)


def compare_masks(truth: Any, found: Any) -> np.ndarray:
    """What each pixel is: `NOTHING`, `AGREED`, `MISSED` or `FALSE_POSITIVE`; uint8, (height, width).

    Args:
        truth, found: bool, (height, width), or (N, height, width) for N objects in one order. With
            several objects a mistake about one is never hidden by another: a pixel is `AGREED` only
            if it is no false positive and no miss, and `FALSE_POSITIVE` comes before `MISSED`.

    Raises:
        SerialLoRAError: if the two differ in size or in number, or are logits.
    """
    size = np.shape(truth)[-2:]
    truth, found = _mask(truth, "true", size), _mask(found, "predicted", size)
    if len(truth) != len(found):
        raise SerialLoRAError(
            f"{len(truth)} true masks came with {len(found)} predicted ones; pass as many of each."
        )
    kinds = np.zeros(size, np.uint8)
    for kind, pixels in (
        (AGREED, truth & found),
        (MISSED, truth & ~found),
        (FALSE_POSITIVE, found & ~truth),
    ):
        kinds[pixels.any(0)] = kind
    return kinds


def _grey(picture: Any) -> np.ndarray:
    """A picture as float64 (height, width, 1), from 0 to 255."""
    array = as_array(picture)
    if np.issubdtype(array.dtype, np.floating) or array.dtype == bool:
        array = np.rint(255 * array.astype(float))
    return np.asarray(Image.fromarray(array.astype(np.uint8)).convert("L"), float)[..., None]


def _rim(masks: np.ndarray) -> np.ndarray:
    """The outermost pixels of each mask, a hundred-and-sixtieth of the shorter side wide."""
    wide = max(1, round(min(masks.shape[1:]) / 160))
    inside = [binary_erosion(mask, iterations=wide) for mask in masks]
    return (masks & ~np.asarray(inside)).any(0)


def overlay(picture: Any, truth: Any | None, found: Any, contour: bool = True) -> np.ndarray:
    """The picture in grey with agreement, missed and false positive pixels coloured.

    Args:
        picture: as in :func:`serial_lora_course.plots.pictures.show_pictures`, of the masks' height and width.
        truth: bool, (height, width) or (N, height, width); None when it is not known: what was
            found is then all blue.
        found: the prediction, as many masks as in ``truth``.
        contour: whether the true objects' outermost pixels are drawn white.

    Returns:
        uint8, (height, width, 3).

    Raises:
        SerialLoRAError: if sizes or numbers of masks differ.
    """
    grey = _grey(picture)
    size = grey.shape[:2]
    found = _mask(found, "predicted", size)
    known = found if truth is None else _mask(truth, "true", size)
    kinds = compare_masks(known, found)
    sheet = np.repeat(grey, 3, axis=2)
    for kind, colour in COLOURS.items():
        paint = 255 * np.asarray(to_rgb(colour))
        pixels = kinds == kind
        sheet[pixels] = STRENGTH * paint + (1 - STRENGTH) * grey[pixels]
    if contour and truth is not None:
        sheet[_rim(known)] = 255
    return np.rint(sheet).astype(np.uint8)


def pick_best_median_worst(scores: Sequence[float]) -> dict[str, int]:
    """Which pictures to look at: the positions of the best, the median and the worst score.

    Of equal scores the first counts; of an even number the better of the two in the middle is the
    median. With fewer than three scores the same picture may be named twice.

    Raises:
        SerialLoRAError: if there are no scores, or one of them is not a number.
    """
    if not len(scores) or np.isnan(scores).any():
        raise SerialLoRAError("there are no scores to choose from; pass one number a picture.")
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}


@dataclass(frozen=True)
class OverlayRow:
    """One row of :func:`plot_overlays`.

    Attributes:
        title: what the row is, such as "best".
        picture: as in :func:`serial_lora_course.plots.pictures.show_pictures`.
        found: name of a prediction to its mask or masks; every row has the same names.
        truth: bool, (height, width) or (N, height, width).
        boxes: (4,) or (N, 4), x0, y0, x1, y1 at pixel edges, or None.
    """

    title: str
    picture: Any
    found: Mapping[str, Any]
    truth: Any
    boxes: Any | None = None

    def dice(self, name: str) -> float:
        """The mean Dice of a prediction over the row's objects."""
        size = np.shape(self.truth)[-2:]
        masks = (_mask(self.found[name], "predicted", size), _mask(self.truth, "true", size))
        return float(dice(*masks).mean())


def plot_overlays(rows: Sequence[OverlayRow], size: float = 1.9) -> Figure:
    """Predictions beside the truth, one picture a row.

    Columns: the picture with its box or boxes, the truth, then each named
    prediction as an :func:`overlay` with its Dice below.

    Args:
        rows: such as the best, the median and the worst picture of a test set.
        size: inches each.
    """
    names = list(rows[0].found)
    columns = ["picture", "truth", *names]
    tallest = max(np.shape(as_array(row.picture))[0] for row in rows)
    widest = max(np.shape(as_array(row.picture))[1] for row in rows)
    height = size * min(1.6, max(0.6, tallest / widest)) + 0.25
    with house_style():
        figure = Figure(
            figsize=(size * len(columns) + 0.4, height * len(rows) + 0.65), layout="constrained"
        )
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for axes, name in zip(grid[0], columns, strict=True):
            axes.set_title(name, fontsize=10, loc="center")
        for line, row in zip(grid, rows, strict=True):
            _draw_row(line, row, columns)
        handles = [Patch(color=COLOURS[kind], label=word) for kind, word in WORDS.items()]
        edge = {"markeredgecolor": INK, "markerfacecolor": "white", "color": "none"}
        handles.append(Line2D([], [], marker="s", **edge, label="outline of the truth"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    return with_description(figure, _overlay_words(rows, names))


def _draw_row(line: Sequence[Any], row: OverlayRow, columns: Sequence[str]) -> None:
    for axes, name in zip(line, columns, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(False)
        if name == "picture":
            axes.imshow(as_array(row.picture), cmap="gray", interpolation="nearest")
            axes.set_ylabel(row.title, fontsize=10, weight="bold")
            for box in np.reshape([] if row.boxes is None else row.boxes, (-1, 4)):
                _draw_box(axes, box)
        elif name != "truth":
            sheet = overlay(row.picture, row.truth, row.found[name])
            axes.imshow(sheet, interpolation="nearest")
            axes.set_xlabel(f"Dice {row.dice(name):.2f}", fontsize=10)
        else:
            axes.imshow(overlay(row.picture, row.truth, row.truth), interpolation="nearest")


def _draw_box(axes: Any, box: Sequence[float]) -> None:
    """A box at pixel edges, on axes whose integers are the centres of pixels."""
    x0, y0, x1, y1 = (float(edge) - 0.5 for edge in box)
    for colour, width in (("white", 3.2), (BOX_COLOUR, 1.6)):
        outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False)
        outline.set(edgecolor=colour, linewidth=width, clip_on=False)
        axes.add_patch(outline)


def _overlay_words(rows: Sequence[OverlayRow], names: Sequence[str]) -> str:
    phrases = []
    for row in rows:
        words = (f"{name}: {row.dice(name):.2f}" for name in names)
        phrases.append(f"{row.title} ({', '.join(words)})")
    return (
        f"Pictures with predicted masks laid over them, found pixels blue, missed yellow, false "
        f"positives vermilion. Dice of each row: {'; '.join(phrases)}."
    )


# --------------------------------------------------------------------------------------- windows
