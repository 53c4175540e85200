"""Every picture's Dice, since an average hides the pictures on which a model fails; and wrong tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from serial_lora_course.plots.style import (
    BLUE,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = {"not adapted": QUIET, "Serial LoRA": VERMILION}  # BLUE for any other
RED = LinearSegmentedColormap.from_list("wrong", ["white", VERMILION, "#5c1f00"])


def plot_dice_per_picture(
    scores: Mapping[str, Sequence[float]], filled_box: Sequence[float]
) -> Figure:
    """Left, every picture's Dice minus that of its filled box; right, one model against the other.

    Args:
        scores: two models, name -> one Dice per picture, between 0 and 1, in one order.
        filled_box: the Dice of filling the boxes of each picture, in that order.
    """
    (one, before), (other, after) = ((name, np.asarray(dice)) for name, dice in scores.items())
    worse, low = after < before, np.floor(10 * min(before.min(), after.min())) / 10 - 0.1
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
        left.set(
            title="against the filled box", xlim=(-0.5, 1.5), ylabel="Dice minus the filled box's"
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


def plot_token_errors(errors: Mapping[str, np.ndarray], window: int) -> Figure:
    """How wrong each token is, with the windows' borders, and the padding hatched.

    Args:
        errors: title -> (height, width), of the tokens of a picture.
        window: side of a window, in tokens.
    """
    most = max(np.max(error) for error in errors.values())
    with styled_figure(3.1 * len(errors) + 0.5, 3.2) as figure:
        panels = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
        for axes, (title, error) in zip(panels, errors.items(), strict=True):
            height, width = error.shape
            tall, wide = (math.ceil(side / window) * window for side in (height, width))
            shown = axes.imshow(error, RED, vmin=0, vmax=most, extent=(0, width, height, 0))
            look = {"hatch": "////", "facecolor": "#f2f2f2", "edgecolor": "#c4c4c4", "linewidth": 0}
            for corner, *sides in (
                ((width, 0), wide - width, tall),
                ((0, height), width, tall - height),
            ):
                axes.add_patch(Rectangle(corner, *sides, **look))
            axes.set(xlim=(0, wide), ylim=(tall, 0), title=title)
            axes.set(xticks=range(0, wide + 1, window), yticks=range(0, tall + 1, window))
            axes.grid(color=QUIET, linewidth=0.6)
            axes.set_axisbelow(False)
        figure.colorbar(shown, ax=panels, label="error of a token", shrink=0.8)
    words = "; ".join(f"{t}: {np.sum(e > 1e-4)} of {np.size(e)} wrong" for t, e in errors.items())
    return with_description(
        figure, f"Error of each output token, with the padding hatched. {words}."
    )
