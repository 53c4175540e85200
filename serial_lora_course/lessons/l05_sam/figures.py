"""Every picture's cut-outs and Dice, since an average hides the pictures on which a model fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from PIL.ImageColor import getrgb

from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.lessons.l05_sam.runs import OTHER_SEEDS
from serial_lora_course.measures.metrics import dice
from serial_lora_course.plots.pictures import draw_bare
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = {"not adapted": QUIET, "Serial LoRA": VERMILION}  # BLUE for any other
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # a number
BOX = {"color": QUIET, "linewidth": 1.4, "linestyle": (0, (5, 3))}  # of the box filled
Dices = Mapping[str, np.ndarray]  # asked how -> the Dice of each scene
RIGHT, WRONG = "trained rightly", "trained with it"
TILE = 150  # pixels of a cut-out
PAPER = "#d6dbe0"  # where nothing is marked, so that white things show


def plot_gains(
    scores: Mapping[str, np.ndarray],
    curves: Mapping[str, Sequence[float]],
    thresholds: Sequence[float],
    filled: float,
) -> Figure:
    """Left, one model's Dice against the other's; right, mean Dice over the threshold.

    Args:
        scores: two models, name -> one Dice per scene, in one order.
        curves: name of a model -> mean Dice at each threshold.
    """
    (one, before), (other, after) = scores.items()
    worse, low = after < before, max(0, np.floor(10 * min(before.min(), after.min())) / 10 - 0.1)
    with styled_figure(8.6, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        left.plot([low, 1], [low, 1], color=QUIET, linewidth=1)
        left.scatter(before[~worse], after[~worse], s=20, color=VERMILION, alpha=0.75)
        left.scatter(before[worse], after[worse], s=24, marker="x", color=INK, linewidths=1.4)
        left.set(xlim=(low, 1.02), ylim=(low, 1.02), aspect="equal", xlabel=f"Dice, {one}")
        left.set(ylabel=f"Dice, {other}", title="Scene by scene")
        counts = f"better: {(after > before).sum()}\nworse (×): {worse.sum()}"
        place = {"ha": "right", "va": "bottom", "transform": left.transAxes}
        left.text(0.98, 0.03, counts, fontsize=10, **place)
        for name, curve in curves.items():
            right.plot(thresholds, curve, color=COLOURS.get(name, BLUE), linewidth=2.5, label=name)
        top = max(zip(curves[one], thresholds, strict=True))[::-1]
        right.scatter(*top, color=QUIET, s=70, zorder=3, label="best threshold")
        right.axhline(filled, **BOX, label="the box filled")
        right.set(title="All scenes", xlabel="threshold of the logit", ylabel="mean Dice")
        right.set_box_aspect(1)
        right.legend(fontsize=9, loc="lower center")
    return with_description(
        figure,
        f"Dice of {len(before)} scenes, {one} and {other}, {counts}. Best mean over all thresholds: "
        + ", ".join(f"{max(curve):.3f} ({name})" for name, curve in curves.items()),
    )


def plot_costs(raw: Dices, right: Dices, wrong: Mapping[str, Dices], filled: float) -> Figure:
    """Arrows from the mean Dice when asked with a mistake to the one when asked rightly; of other seeds, thin.

    Args:
        raw, right: of the unadapted model, and of one that was trained rightly.
        wrong: mistake -> of a model that was trained with it.
        filled: the mean Dice of filling the boxes.
    """
    with styled_figure(8.6, 4.4) as figure:
        panels, told, drawn = figure.subplots(2, 1, sharex=True), [], []
        for axes, (mistake, dices) in zip(panels, wrong.items(), strict=True):
            rows = {"not adapted": raw, WRONG: dices, RIGHT: right}
            others = dict(zip((WRONG, RIGHT), OTHER_SEEDS[mistake], strict=True))
            for row, (name, dice_of) in enumerate(rows.items()):
                ends = np.array([[dice_of[how].mean()] for how in (mistake, "right")])
                ends = np.hstack([ends, others.get(name, np.empty((2, 0)))])  # (2, runs)
                drawn += [ends.min(), ends.max()]
                colour = {WRONG: VERMILION, RIGHT: BLUE}.get(name, QUIET)
                for run, (start, end) in enumerate(ends.T):
                    look = {"linewidth": 1, "alpha": 0.6} if run else {"linewidth": 2.5}
                    look |= {"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0}
                    height = row + (0, -0.22, 0.22)[run]
                    axes.annotate("", (end, height), (start, height), arrowprops=look)
                words = {"va": "center", "fontsize": 10, "bbox": BEHIND}
                axes.text(ends.min() - 0.012, row, f"{ends[0, 0]:.2f}", ha="right", **words)
                axes.text(ends.max() + 0.012, row, f"{ends[1, 0]:.2f}", ha="left", **words)
                told.append(f"{name}, {mistake}: from {ends[0, 0]:.2f} to {ends[1, 0]:.2f}")
            marks = [each.mean() for each in (dices[mistake], dices["right"], right["right"])]
            for part, colour in ((marks[:2], GREEN), (marks[1:], INK)):
                axes.plot(part, [1.5] * 2, color=colour, linewidth=11, solid_capstyle="butt")
            inside = {"color": "white", "fontsize": 9, "ha": "center", "va": "center_baseline"}
            axes.text(np.mean(marks[:2]), 1.5, "cost when used", **inside)
            axes.text(max(marks) + 0.008, 1.5, "cost in the weights", ha="left", **words)
            axes.axvline(filled, **BOX)
            axes.set_yticks(range(len(rows)), list(rows))
            axes.grid(axis="y", visible=False)
            axes.set(title=mistake, ylim=(2.6, -0.6))
        panels[1].set_xlim(min(drawn) - 0.06, max(drawn) + 0.14)  # room for the words at the ends
        panels[1].set_xlabel("mean Dice with the mistake → after mending (thin: seeds 2 and 3)")
        panels[0].text(filled, -0.66, "the box filled", ha="center", va="bottom", fontsize=9)
    return with_description(figure, f"Mean Dice: {'; '.join(told)}; the box filled {filled:.2f}.")


def plot_cut_outs(
    scenes: Sequence[SegmentationExample],
    answers: Mapping[str, Sequence[Any]],
    order: Sequence[int],
) -> Figure:
    """The pictures, and a row for each model: all that it marked in a scene, on grey, cut at the scene's boxes.

    Args:
        scenes: with pictures and boxes.
        answers: name of a model -> its masks (N, height, width) of each scene.
        order: of the scenes, from left to right; true masks are numbered, others have their Dice.
    """
    columns, told = max(len(order), 6), []
    answers = {"the pictures": [each.masks | True for each in scenes]} | dict(answers)
    with styled_figure(10.4, len(answers) * (9.9 / columns + 0.42)) as figure:
        panels = figure.subplots(len(answers), 1, squeeze=False)[:, 0]
        for axes, (title, masks) in zip(panels, answers.items(), strict=True):
            sheet = Image.new("RGB", (columns * TILE, TILE), PAPER)
            for column, number in enumerate(order):
                tile = cut_out(scenes[number], masks[number])
                score = float(dice(np.asarray(masks[number]), scenes[number].masks).mean())
                left, top = (TILE - tile.width) // 2, (TILE - tile.height) // 2
                sheet.paste(tile, (TILE * column + left, top))
                untold = score == 1 or title == "the pictures"
                words = f"{column + 1}" if untold else f"Dice {score:.2f}"
                label = axes.text(TILE * column + 5, 6, words, va="top", fontsize=9)
                label.set_bbox(BEHIND | {"facecolor": PAPER})
                told += [] if untold else [f"{title} {column + 1}: {score:.2f}"]
            draw_bare(axes, sheet, interpolation="antialiased")
            axes.set_title(title)
            for column in range(columns):
                axes.axvline(column * TILE - 0.5, color="white", linewidth=2)
    return with_description(
        figure, f"{len(order)} scenes cut out on grey, with their Dice. {'; '.join(told)}."
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
