"""Pictures of masks: where a prediction agrees with the truth and where not, picture by picture.

Three colours: blue where prediction and truth agree, yellow where a part of the object is missed,
vermilion where the prediction invents object that is not there. They differ in lightness as well as in
hue, so that nobody has to tell red from green; the picture below them is grey.
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
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.measures.metrics import dice
from serial_lora_course.plots.pictures import draw_bare
from serial_lora_course.plots.style import BLUE, INK, VERMILION, house_style, with_description

NOTHING, AGREED, MISSED, FALSE_POSITIVE = range(4)
COLOURS: dict[int, str] = {AGREED: BLUE, MISSED: "#f0e442", FALSE_POSITIVE: VERMILION}
"""The house colour of each kind of pixel that is not `NOTHING`."""
WORDS = {AGREED: "found", MISSED: "missed", FALSE_POSITIVE: "false positive"}
STRENGTH = 0.65
"""How much of a coloured pixel is colour; the rest is the grey picture."""
BOX_COLOUR = VERMILION


def _masks(mask: Any) -> np.ndarray:
    """A mask, or several, as bool (N, height, width)."""
    array = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask, bool)
    return array[None] if array.ndim == 2 else array


def compare_masks(truth: Any, found: Any) -> np.ndarray:
    """What each pixel is: `NOTHING`, `AGREED`, `MISSED` or `FALSE_POSITIVE`; uint8, (height, width).

    Args:
        truth, found: bool, (height, width), or (N, height, width) for N objects in one order. With
            several objects a mistake about one is never hidden by another.
    """
    truth, found = _masks(truth), _masks(found)
    if len(truth) != len(found):
        raise SerialLoRAError(
            f"{len(truth)} true masks came with {len(found)} predicted ones; pass as many of each."
        )
    kinds = np.zeros(truth.shape[1:], np.uint8)
    kinds[(truth & found).any(0)] = AGREED
    kinds[(truth & ~found).any(0)] = MISSED
    kinds[(found & ~truth).any(0)] = FALSE_POSITIVE
    return kinds


def overlay(picture: Image.Image, truth: Any | None, found: Any) -> np.ndarray:
    """The picture in grey with agreement, missed and false positive pixels coloured.

    Args:
        truth: bool, (height, width) or (N, height, width), whose outermost pixels are drawn white; None
            when it is not known: what was found is then all blue.
        found: the prediction, as many masks as in ``truth``.

    Returns:
        uint8, (height, width, 3).
    """
    grey = np.asarray(picture.convert("L"), float)[..., None]
    known = _masks(found if truth is None else truth)
    kinds = compare_masks(known, found)
    sheet = np.repeat(grey, 3, axis=2)
    for kind, colour in COLOURS.items():
        paint = 255 * np.asarray(to_rgb(colour))
        sheet[kinds == kind] = STRENGTH * paint + (1 - STRENGTH) * grey[kinds == kind]
    if truth is not None:
        wide = max(1, round(min(grey.shape[:2]) / 160))
        inside = [binary_erosion(mask, iterations=wide) for mask in known]
        sheet[(known & ~np.asarray(inside)).any(0)] = 255
    return np.rint(sheet).astype(np.uint8)


@dataclass(frozen=True)
class OverlayRow:
    """One row of :func:`plot_overlays`.

    Attributes:
        title: what the row is, such as "best".
        picture: what was looked at.
        found: name of a prediction to its mask or masks; every row has the same names.
        truth: bool, (height, width) or (N, height, width).
        boxes: (4,) or (N, 4), x0, y0, x1, y1 at pixel edges, or None.
    """

    title: str
    picture: Image.Image
    found: Mapping[str, Any]
    truth: Any
    boxes: Any | None = None

    def dice(self, name: str) -> float:
        """The mean Dice of a prediction over the row's objects."""
        return float(dice(_masks(self.found[name]), _masks(self.truth)).mean())


def plot_overlays(rows: Sequence[OverlayRow], size: float = 1.9) -> Figure:
    """Predictions over pictures, one picture per row: the picture with its boxes, then each prediction as
    an :func:`overlay`, in which the truth is outlined, with its Dice below.

    Args:
        rows: such as the best, the median and the worst picture of a test set.
        size: inches each.
    """
    names = list(rows[0].found)
    columns = ["picture", *names]
    widest, tallest = np.max([row.picture.size for row in rows], axis=0)
    height = size * min(1.6, max(0.6, tallest / widest)) + 0.25
    with house_style():
        figure = Figure(
            figsize=(size * len(columns) + 0.4, height * len(rows) + 0.65), layout="constrained"
        )
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for axes, name in zip(grid[0], columns, strict=True):
            axes.set_title(name, fontsize=10, loc="center")
        for line, row in zip(grid, rows, strict=True):
            sheets = [row.picture]
            sheets += [overlay(row.picture, row.truth, row.found[name]) for name in names]
            for axes, sheet in zip(line, sheets, strict=True):
                draw_bare(axes, sheet)
            line[0].set_ylabel(row.title, fontsize=10, weight="bold")
            for box in np.reshape([] if row.boxes is None else row.boxes, (-1, 4)):
                _draw_box(line[0], box)
            for axes, name in zip(line[1:], names, strict=True):
                axes.set_xlabel(f"Dice {row.dice(name):.2f}", fontsize=10)
        handles = [Patch(color=COLOURS[kind], label=word) for kind, word in WORDS.items()]
        edge = {"markeredgecolor": INK, "markerfacecolor": "white", "color": "none"}
        handles.append(Line2D([], [], marker="s", **edge, label="outline of the truth"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    words = "; ".join(
        f"{row.title} ({', '.join(f'{name}: {row.dice(name):.2f}' for name in names)})"
        for row in rows
    )
    return with_description(
        figure, f"Masks over pictures: blue found, yellow missed, vermilion false. Dice: {words}."
    )


def _draw_box(axes: Any, box: Sequence[float]) -> None:
    """A box at pixel edges, on axes whose integers are the centres of pixels."""
    x0, y0, x1, y1 = (float(edge) - 0.5 for edge in box)
    for colour, width in (("white", 3.2), (BOX_COLOUR, 1.6)):
        outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False)
        outline.set(edgecolor=colour, linewidth=width, clip_on=False)
        axes.add_patch(outline)


def plot_masks(
    examples: Mapping[str, SegmentationExample], answers: Mapping[str, Sequence[Any]]
) -> Figure:
    """Pictures with their boxes, and answers of one model or more beside each other.

    Args:
        examples: title of a row -> its picture and true masks.
        answers: name of a model -> its masks (N, height, width) of each picture, in that order.
    """
    rows = []
    for number, (title, each) in enumerate(examples.items()):
        found = {name: masks[number] for name, masks in answers.items()}
        rows.append(OverlayRow(title.strip(), each.picture, found, each.masks, each.boxes))
    return plot_overlays(rows, size=max(1.9, 8.4 / (1 + len(answers))))
