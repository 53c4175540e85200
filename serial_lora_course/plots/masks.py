"""Pictures of masks: where a prediction agrees with the truth and where not, picture by picture.

Three colours: blue where prediction and truth agree, yellow where a part of the object is missed,
vermilion where the prediction invents object that is not there. They differ in lightness as well as in
hue, so that nobody has to tell red from green; the picture below them is grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from serial_lora_course.plots.pictures import draw_bare
from serial_lora_course.plots.style import BLUE, INK, VERMILION, styled_figure, with_description

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


def overlay(picture: Image.Image, truth: Any, found: Any) -> np.ndarray:
    """The picture in grey with agreement, missed and false positive pixels coloured.

    Args:
        truth: bool, (height, width) or (N, height, width), whose outermost pixels are drawn white.
        found: the prediction, as many masks as in ``truth``.

    Returns:
        uint8, (height, width, 3).
    """
    grey = np.asarray(picture.convert("L"), float)[..., None]
    truth = _masks(truth)
    kinds = compare_masks(truth, found)
    sheet = np.repeat(grey, 3, axis=2)
    for kind, colour in COLOURS.items():
        paint = 255 * np.asarray(to_rgb(colour))
        sheet[kinds == kind] = STRENGTH * paint + (1 - STRENGTH) * grey[kinds == kind]
    wide = max(1, round(min(grey.shape[:2]) / 160))
    inside = [binary_erosion(mask, iterations=wide) for mask in truth]
    sheet[(truth & ~np.asarray(inside)).any(0)] = 255
    return np.rint(sheet).astype(np.uint8)


def plot_masks(examples: Mapping[str, Any], answers: Mapping[str, Sequence[Any]]) -> Figure:
    """Pictures with their boxes, and answers of one model or more beside each other.

    A row has the picture first, then each answer as an :func:`overlay`, in which the truth is outlined, with
    its Dice below, the mean over the picture's objects.

    Args:
        examples: title of a row, such as "best" -> what has its picture, boxes and true masks.
        answers: name of a model -> its masks (N, height, width) of each picture, in that order.
    """
    columns, told = ["picture", *answers], []
    size = max(1.9, 8.4 / len(columns))  # inches each
    widest, tallest = np.max([each.picture.size for each in examples.values()], axis=0)
    height = size * min(1.6, max(0.6, tallest / widest)) + 0.25
    with styled_figure(size * len(columns) + 0.4, height * len(examples) + 0.65) as figure:
        grid = figure.subplots(len(examples), len(columns), squeeze=False)
        for axes, name in zip(grid[0], columns, strict=True):
            axes.set_title(name, fontsize=10, loc="center")
        for number, (title, example) in enumerate(examples.items()):
            first, *others = grid[number]
            draw_bare(first, example.picture)
            first.set_ylabel(title.strip(), fontsize=10, weight="bold")
            for box in example.boxes:
                draw_box(first, box)
            scores = []
            for axes, (name, masks) in zip(others, answers.items(), strict=True):
                draw_bare(axes, overlay(example.picture, example.masks, masks[number]))
                score = float(dice(_masks(masks[number]), _masks(example.masks)).mean())
                asked = example.masks.any()  # else a Dice says nothing
                axes.set_xlabel(f"Dice {score:.2f}" if asked else "no thing to find", fontsize=10)
                scores.append(f"{name}: {score:.2f}")
            told.append(f"{title.strip()} ({', '.join(scores)})")
        handles = [Patch(color=COLOURS[kind], label=word) for kind, word in WORDS.items()]
        edge = {"markeredgecolor": INK, "markerfacecolor": "white", "color": "none"}
        handles.append(Line2D([], [], marker="s", **edge, label="outline of the truth"))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
    return with_description(
        figure,
        f"Masks over pictures: blue found, yellow missed, vermilion false. Dice: {'; '.join(told)}.",
    )


def draw_box(axes: Any, box: Sequence[float]) -> None:
    """A box at pixel edges, on axes whose integers are the centres of pixels."""
    x0, y0, x1, y1 = (float(edge) - 0.5 for edge in box)
    for colour, width in (("white", 3.2), (BOX_COLOUR, 1.6)):
        outline = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False)
        outline.set(edgecolor=colour, linewidth=width, clip_on=False)
        axes.add_patch(outline)
