"""Every picture's Dice, since an average hides the pictures on which a model fails; and what a token sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from serial_lora_course.plots.pictures import as_array
from serial_lora_course.plots.style import (
    INK,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)


def plot_dice_per_picture(before: Sequence[float], after: Sequence[float], method: str) -> Figure:
    """Left, every picture's Dice as a point, with the median as a bar; right, before against after.

    Args:
        before, after: one Dice a picture, between 0 and 1, in one order.
        method: whose colour and title the adapted model has.
    """
    before, after = np.asarray(before, float), np.asarray(after, float)
    look, worse = method_look(method), after < before
    columns = {"not adapted": (before, QUIET), look["label"]: (after, look["color"])}
    jitter = np.random.default_rng(0)  # sideways places only: they mean nothing
    with house_style():
        figure = Figure(figsize=(6.5, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for place, (values, colour) in enumerate(columns.values()):
            sideways = place + jitter.uniform(-0.24, 0.24, len(values))
            left.scatter(sideways, values, s=12, color=colour, alpha=0.6, linewidths=0)
            left.plot([place - 0.36, place + 0.36], [np.median(values)] * 2, color=INK, linewidth=2)
        left.set_xticks(range(2), list(columns))
        left.grid(axis="x", visible=False)
        left.set(title="every picture, median", ylim=(-0.03, 1.03), ylabel="Dice of a picture")
        right.plot([0, 1], [0, 1], color=QUIET, linewidth=1)
        right.scatter(before[~worse], after[~worse], s=14, color=look["color"], alpha=0.75)
        right.scatter(before[worse], after[worse], s=18, marker="x", color=INK, linewidths=1.2)
        right.set(xlim=(-0.03, 1.03), aspect="equal", xlabel="not adapted", title=look["label"])
        counts = f"better: {(after > before).sum()}\nworse (×): {worse.sum()}"
        place = {"ha": "right", "va": "bottom", "transform": right.transAxes}
        right.text(0.98, 0.03, counts, fontsize=9, **place)
    return with_description(
        figure,
        f"Dice of {len(before)} pictures: median {np.median(before):.2f} before, {np.median(after):.2f} "
        f"after; {(after > before).sum()} get better and {worse.sum()} worse.",
    )


def plot_windows(picture: Any, seen: Mapping[str, np.ndarray], token: tuple[int, int]) -> Figure:
    """What one token attends to in some kinds of blocks: the rest of the picture is veiled.

    Args:
        picture: the square that the model sees.
        seen: title -> bool (grid, grid), the tokens that it attends to.
        token: row and column of the one.
    """
    with house_style():
        figure = Figure(figsize=(3.2 * len(seen), 3.5), layout="constrained")
        panels = figure.subplots(1, len(seen), squeeze=False)[0]
        for axes, (title, mask) in zip(panels, seen.items(), strict=True):
            grid = len(mask)
            axes.imshow(as_array(picture), extent=(0, grid, grid, 0))
            veil = np.ones((grid, grid, 4))
            veil[..., 3] = 0.75 * ~np.asarray(mask)
            axes.imshow(veil, extent=(0, grid, grid, 0), interpolation="nearest")
            dot = {"s": 90, "marker": "s", "facecolor": VERMILION, "edgecolor": "white"}
            axes.scatter(token[1] + 0.5, token[0] + 0.5, linewidths=2, **dot)
            ticks = range(0, grid + 1, 8)
            axes.set(xlabel="tokens", title=title, xticks=ticks, yticks=ticks)
    counts = "; ".join(f"{title}: {np.sum(m)} of {np.size(m)}" for title, m in seen.items())
    return with_description(figure, f"The tokens that one token attends to. {counts}.")
