"""Every picture's cut-outs and Dice, since an average hides the pictures on which a model fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from PIL import Image
from PIL.ImageColor import getrgb
from segment_anything.modeling import Sam
from torch import Tensor
from torch.nn.functional import interpolate, pad

from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.sam import predict_logits
from serial_lora_course.measures.metrics import dice
from serial_lora_course.plots.masks import COLOURS as MASK_COLOURS
from serial_lora_course.plots.masks import WORDS, draw_box, overlay
from serial_lora_course.plots.pictures import draw_bare
from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = {"not adapted": QUIET, "Serial LoRA": VERMILION}  # BLUE for any other
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # a number
BOX = {"color": QUIET, "linewidth": 1.4, "linestyle": (0, (5, 3))}  # of the box filled
OFFSET = {"textcoords": "offset points", "fontsize": 9}
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


@torch.no_grad()
def plot_trips(
    model: Sam,
    scene: SegmentationExample,
    trips: Mapping[str, tuple[Callable, Callable]],
    perfect: Mapping[str, Tensor],
) -> Figure:
    """Of each trip a row: the square with the boxes asked about, SAM's answer there, and two answers that came back.

    Args:
        trips: name -> a way there and a way back.
        perfect: name -> the masks that a perfect model's answer becomes, (N, H, W).
    """
    side, told = model.image_encoder.img_size, []
    with styled_figure(9.2, 3.2 * len(trips) + 0.3) as figure:
        rows = figure.subplots(len(trips), 4, squeeze=False)
        for axes in rows.flat:
            axes.set_anchor("N")
        titles = "square and boxes", "SAM's answer there", "and back", "a perfect model's, back"
        for axes, title in zip(rows[0], titles, strict=True):
            axes.set_title(title, fontsize=10)
        for row, (name, (there, back)) in zip(rows, trips.items(), strict=True):
            ready = there(scene)
            (logits,) = predict_logits(model, [ready])
            height, width = ready.input_size
            padding = (0, side - width, 0, side - height)
            pixels = pad(ready.picture, padding, value=214).permute(1, 2, 0).cpu().numpy()
            square, truth = Image.fromarray(pixels), pad(ready.truth, padding).cpu()
            answer = interpolate(logits, (side, side), mode="bilinear")[:, 0] > 0
            arrived = (back(logits, ready.input_size, ready.original_size)[:, 0] > 0).cpu()
            draw_bare(row[0], square)
            row[0].set_ylabel(name, fontsize=10, weight="bold")
            for box in ready.boxes.tolist():
                draw_box(row[0], box)
            draw_bare(row[1], overlay(square, truth, answer))
            for axes, masks in ((row[2], arrived), (row[3], perfect[name])):
                draw_bare(axes, overlay(scene.picture, scene.masks, masks))
                score = float(dice(np.asarray(masks), scene.masks).mean())
                axes.set_xlabel(f"Dice {score:.2f}", fontsize=10)
                told.append(f"{score:.2f}")
        handles = [Patch(color=MASK_COLOURS[kind], label=word) for kind, word in WORDS.items()]
        edge = {"markeredgecolor": INK, "markerfacecolor": "white", "color": "none"}
        handles.append(Line2D([], [], marker="s", **edge, label="outline of the truth"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return with_description(
        figure,
        f"A scene in SAM's square and back, by {', '.join(trips)}: Dice of SAM and of a perfect model "
        f"{', '.join(told)}.",
    )


def plot_shares(
    shares: Mapping[str, float],
    tuned: Mapping[str, tuple[float, float]],
    stored: Mapping[str, np.ndarray],
    before: float,
    after: float,
) -> Figure:
    """Mended Dice over the share of the truth that lay in the box in training; mistakes with both their costs.

    Args:
        shares: name of a trip -> the share.
        tuned: name of a mistake -> mean Dice with it, and mended.
        stored: name of a trip -> rows of seeds, in whose second place is the mended Dice; ", uneven" and ", only ..."
            after the name: trained on a part of the scenes or boxes.
        before, after: mean Dice of SAM not adapted, and trained rightly.
    """
    with styled_figure(8.6, 5) as figure:
        axes = figure.subplots()
        for level, word, colour in (
            (before, "not adapted", QUIET),
            (after, "trained rightly", BLUE),
        ):
            axes.axhline(level, color=colour, linewidth=1.4, linestyle=DASHED)
            axes.text(1.04, level, f"{word}\n{level:.2f}", va="center", color=colour, fontsize=10)
        moved = [name for name in stored if name.startswith("moved") and name in shares]
        curve = [name for name in moved if "always" not in name]
        ends = [(shares[name], stored[name][:, 1].mean()) for name in curve]
        axes.plot(*zip((1, after), *ends, strict=True), color=INK, linewidth=1.6, marker="o")
        for name, each in stored.items():
            whole, _, part = name.partition(", only ")
            x, dots = shares.get(whole, 1), each[:, 1]
            if name.endswith(", uneven"):
                axes.scatter(
                    x, dots.mean(), s=45, marker="D", color="white", edgecolors=INK, zorder=4
                )
            elif name.startswith("moved"):
                look = {"marker": "." if name in curve else "x", "color": INK, "s": 45}
                axes.scatter([x] * len(dots), dots, **look)
                words = f"always right,\nonly {part}" if part else name.replace(", ", ",\n")
                axes.annotate(words, (x, dots.mean()), xytext=(9, 0 if part else -5), **OFFSET)
        for mistake, (start, end) in tuned.items():
            x = shares[mistake]
            axes.plot([x, x], [start, end], color=GREEN, linewidth=7, solid_capstyle="butt")
            axes.plot([x, x], [end, after], color=PURPLE, linewidth=7, solid_capstyle="butt")
            axes.scatter(x, end, s=75, color=VERMILION, zorder=3)
            dots = stored[mistake][:, 1]
            axes.scatter([x] * len(dots), dots, s=16, color=VERMILION, zorder=3)
            axes.annotate(mistake, (x, start), ha="center", va="top", xytext=(0, -5), **OFFSET)
        dot = {"color": VERMILION, "marker": "o", "linestyle": ""}
        hollow = {"markerfacecolor": "white", "markeredgecolor": INK, "color": "none"}
        handles = [
            Patch(color=GREEN, label="cost when used"),
            Patch(color=PURPLE, label="cost in the weights"),
            Line2D([], [], label="mended (small: other seeds)", **dot),
            Line2D([], [], color=INK, marker="o", label="the line: boxes moved (small: seeds)"),
            Line2D([], [], color=INK, marker="x", linestyle="", label="always right (seeds)"),
            Line2D([], [], marker="D", label="without nearly square scenes", **hollow),
        ]
        axes.legend(handles=handles, loc="lower right", fontsize=9)
        axes.set(xlim=(-0.03, 1.03), xlabel="share of the truth in the box, in training")
        axes.set_ylabel("mean Dice")
        axes.set_ylim(bottom=axes.get_ylim()[0] - 0.03)  # room for words
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    points = [f"{name}: {shares[name]:.0%}, {stored[name][:, 1].mean():.2f}" for name in moved]
    points += [f"{name}: {shares[name]:.0%}, {end:.2f}" for name, (_, end) in tuned.items()]
    return with_description(
        figure,
        f"Share of the truth in the box in training, and Dice after mending: {'; '.join(points)}. "
        f"Not adapted {before:.2f}, trained rightly {after:.2f}.",
    )


def plot_cut_outs(
    scenes: Sequence[SegmentationExample],
    answers: Mapping[str, Sequence[Any]],
    order: Sequence[int],
    ends: tuple[str, str] = ("", ""),
) -> Figure:
    """The pictures, and a row for each model: all that it marked in a scene, on grey, cut at the scene's boxes.

    Args:
        scenes: with pictures and boxes.
        answers: name of a model -> its masks (N, height, width) of each scene.
        order: of the scenes, from left to right; true masks are numbered, others have their Dice.
        ends: words for the first and the last of the order.
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
                if title == "the pictures" and column in (0, len(order) - 1):
                    words += f": {ends[column > 0]}".rstrip(": ")
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
