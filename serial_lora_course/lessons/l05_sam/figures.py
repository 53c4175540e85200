"""Every picture's cut-outs and Dice, since an average hides the pictures on which a model fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.ImageColor import getrgb

from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.plots.pictures import draw_bare
from serial_lora_course.plots.style import (
    BLUE,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = {"not adapted": QUIET, "Serial LoRA": VERMILION}  # BLUE for any other
TILE = 96  # pixels of a cut-out
PAPER = "#d6dbe0"  # where nothing is marked, so that white things show


def plot_dice_per_picture(
    scores: Mapping[str, Sequence[float]], filled_box: Sequence[float]
) -> Figure:
    """Left, every picture's Dice minus that of its filled box; right, one model against the other.

    Args:
        scores: two models, name -> one Dice per picture, between 0 and 1, in one order.
        filled_box: the Dice of filling the boxes of each picture, in that order.
    """
    (one, before), (other, after) = ((name, np.asarray(dice)) for name, dice in scores.items())
    worse, low = after < before, max(0, np.floor(10 * min(before.min(), after.min())) / 10 - 0.1)
    jitter = np.random.default_rng(0)  # sideways places only: they mean nothing
    lost = []
    with styled_figure(8, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        for place, (name, values) in enumerate({one: before, other: after}.items()):
            above = values - filled_box
            lost.append(int((above < 0).sum()))
            sideways = place + jitter.uniform(-0.24, 0.24, len(above))
            left.scatter(
                sideways, above, s=16, color=COLOURS.get(name, BLUE), alpha=0.6, linewidths=0
            )
            left.plot([place - 0.36, place + 0.36], [above.mean()] * 2, color=INK, linewidth=2)
            words = {"ha": "center", "va": "bottom", "transform": left.get_xaxis_transform()}
            left.text(place, 0.02, f"below the box: {lost[-1]}", fontsize=10, **words)
        left.axhline(0, color=QUIET, linewidth=1.4, linestyle=(0, (5, 3)))
        left.set_xticks(range(2), [one, other])
        left.grid(axis="x", visible=False)
        left.margins(y=0.12)
        left.set_box_aspect(1)  # as tall as the right one
        left.set(title="Against the filled box", xlim=(-0.5, 1.5))
        left.set(
            ylabel="Dice minus the filled box's", xlabel="bar: the mean; places sideways are random"
        )
        right.plot([low, 1], [low, 1], color=QUIET, linewidth=1)
        right.scatter(
            before[~worse], after[~worse], s=20, color=COLOURS.get(other, BLUE), alpha=0.75
        )
        right.scatter(before[worse], after[worse], s=24, marker="x", color=INK, linewidths=1.4)
        right.set(xlim=(low, 1.02), ylim=(low, 1.02), aspect="equal", xlabel=one)
        right.set(ylabel=other, title="Dice, picture by picture")
        counts = f"better: {(after > before).sum()}\nworse (×): {worse.sum()}"
        place = {"ha": "right", "va": "bottom", "transform": right.transAxes}
        right.text(0.98, 0.03, counts, fontsize=10, **place)
    return with_description(
        figure,
        f"Dice of {len(before)} pictures, {one} and {other}: mean {before.mean():.2f} and {after.mean():.2f}; "
        f"with {other} {(after > before).sum()} are better and {worse.sum()} worse. Below their filled boxes "
        f"are {lost[0]} and {lost[1]}.",
    )


def plot_from_to(dice: Mapping[str, np.ndarray], filled_box: float) -> Figure:
    """An arrow for each model, from its mean Dice when asked with the padding on to the one when asked right.

    Args:
        dice: name -> (2, pictures), asked with the padding on and asked right.
        filled_box: the mean Dice of filling the boxes.
    """
    ends = {name: tuple(float(np.mean(some)) for some in pair) for name, pair in dice.items()}
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    words = {"va": "center", "fontsize": 10, "bbox": behind}
    with styled_figure(8.4, 0.9 + 0.5 * len(ends)) as figure:
        axes = figure.subplots()
        axes.axvline(filled_box, color=QUIET, linewidth=1.4, linestyle=(0, (5, 3)))
        axes.text(filled_box, -0.62, "the box filled", ha="center", va="bottom", fontsize=10)
        for row, (name, (begins, reaches)) in enumerate(ends.items()):
            colour = COLOURS.get(name.split(",")[0], BLUE)
            look = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.5, "shrinkA": 0}
            axes.annotate("", (reaches, row), (begins, row), arrowprops=look)
            axes.scatter([begins, reaches], [row] * 2, s=[36, 0], color=colour)
            axes.text(begins - 0.008, row, f"{begins:.2f}", ha="right", **words)
            axes.text(reaches + 0.006, row, f"{reaches:.2f}", ha="left", **words)
        axes.set_yticks(range(len(ends)), list(ends))
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.15)
        axes.set(
            title="The same weights, asked in two ways",
            xlabel="mean Dice: with the padding on (dot), with it cut off (head)",
            ylim=(len(ends) - 0.5, -0.95),
        )
    told = "; ".join(f"{name} from {a:.2f} to {b:.2f}" for name, (a, b) in ends.items())
    return with_description(
        figure,
        f"Mean Dice with the padding on and asked right: {told}. The box filled reaches {filled_box:.2f}.",
    )


def plot_cut_outs(
    scenes: Sequence[SegmentationExample],
    answers: Mapping[str, Sequence[Any]],
    order: Sequence[int],
) -> Figure:
    """A row for each model: all that it marked in a scene, on grey, cut at the scene's boxes.

    Args:
        scenes: with pictures and boxes.
        answers: name of a model -> its masks (N, height, width) of each scene.
        order: of the scenes, from left to right; they are numbered.
    """
    columns = max(len(order), 6)
    with styled_figure(10.4, len(answers) * (9.9 / columns + 0.42)) as figure:
        panels = figure.subplots(len(answers), 1, squeeze=False)[:, 0]
        for axes, (title, masks) in zip(panels, answers.items(), strict=True):
            sheet = Image.new("RGB", (columns * TILE, TILE), PAPER)
            for column, number in enumerate(order):
                tile = cut_out(scenes[number], masks[number])
                left, top = (TILE - tile.width) // 2, (TILE - tile.height) // 2
                sheet.paste(tile, (TILE * column + left, top))
            draw_bare(axes, sheet, interpolation="antialiased")
            axes.set_title(title)
            for column in range(columns):
                axes.axvline(column * TILE - 0.5, color="white", linewidth=2)
                number = axes.text(TILE * column + 4, 5, column + 1, va="top", fontsize=8)
                number.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.6})
    return with_description(
        figure, f"{len(order)} scenes cut out on grey, by each of: {', '.join(answers)}."
    )


def cut_out(scene: SegmentationExample, masks: Any) -> Image.Image:
    """What the masks mark of a scene, cut at the edges of its boxes, to fit a tile."""
    marked = np.asarray(masks).any(0)[..., None]  # (height, width, 1)
    cut = np.where(marked, np.asarray(scene.picture.convert("RGB")), getrgb(PAPER)).astype(np.uint8)
    (x0, y0), (x1, y1) = (
        scene.boxes[:, :2].min(0).astype(int),
        scene.boxes[:, 2:].max(0).astype(int),
    )
    picture = Image.fromarray(cut[y0:y1, x0:x1])
    factor = 0.92 * TILE / max(picture.size)
    return picture.resize([max(1, round(factor * side)) for side in picture.size])
