"""Ways to count, on the same tests and the same draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from PIL import Image
from scipy.ndimage import binary_dilation

from serial_lora_course.plots.style import (
    BLUE,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = (INK, PURPLE, BLUE, VERMILION)


def heights(far: np.ndarray, top: np.ndarray) -> Image.Image:
    """A distance in shades of grey, with its peaks as red dots."""
    picture = np.repeat(np.uint8(255 * far / max(far.max(), 1))[..., None], 3, axis=-1)
    picture[binary_dilation(top, iterations=2)] = (255, 0, 0)
    return Image.fromarray(picture)


def plot_counts(before: Sequence[DataFrame], after: Sequence[DataFrame], bar: float) -> Figure:
    """A panel for each test, a row for each way; a line for each draw, from a full to a hollow dot.

    Args:
        before, after: for each draw, per cent right, as it is and mended: a row for each way, a
            column for each test.
        bar: what is good enough, in per cent.
    """
    ways, tests, told = list(before[0].index), list(before[0]), []
    with styled_figure(12, 3.8) as figure:
        panels = figure.subplots(1, len(tests), sharex=True, sharey=True)
        for axes, test in zip(panels, tests, strict=True):
            for row, (way, colour) in enumerate(zip(ways, COLOURS[-len(ways) :], strict=True)):
                old, new = ([float(t.loc[way, test]) for t in each] for each in (before, after))
                heights = [row + 0.24 * (draw - (len(old) - 1) / 2) for draw in range(len(old))]
                axes.plot([old, new], [heights, heights], color=colour, lw=1)
                axes.scatter(old, heights, s=28, color=colour)
                axes.scatter(new, heights, s=62, fc="none", ec=colour, lw=1.4)
                told.append(f"{test}, {way}: {old} before, {new} after")
            axes.axvline(bar, color=QUIET, linestyle="dotted", zorder=0)
            axes.text(bar + 1, -0.62, "bar", color=QUIET, size=9, va="center")
            axes.set(title=test, xlabel="right answers (%)", xlim=(-4, 104))
            axes.set_yticks(range(len(ways)), ways)
            axes.set_ylim(len(ways) - 0.5, -0.8)
        panels[0].scatter([], [], s=28, color=INK, label="as Ada has it")
        panels[0].scatter([], [], s=62, fc="none", ec=INK, lw=1.4, label="mended")
        figure.legend(loc="outside lower right", ncols=2, frameon=False)
    return with_description(figure, f"Per cent right, draw by draw. {'; '.join(told)}.")
