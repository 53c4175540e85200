"""Ways to count, on the same tests and the same draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
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

COLOURS = {
    "connected parts": INK,
    "thickest places": PURPLE,
    "probe": BLUE,
    "adapter": VERMILION,
}


def dotted(page: Image.Image | np.ndarray, top: np.ndarray) -> Image.Image:
    """A page, or a distance in shades of grey, with red dots at the peaks."""
    picture = np.array(page)
    if picture.ndim == 2:
        picture = np.repeat(np.uint8(255 * picture / max(picture.max(), 1))[..., None], 3, axis=-1)
    for size, colour in ((3, 255), (2, (255, 0, 0))):
        picture[binary_dilation(top, iterations=size)] = colour
    return Image.fromarray(picture)


def plot_counts(scores: Sequence[pd.DataFrame], bar: float, chance: Mapping[str, float]) -> Figure:
    """A panel for each test, a row for each way, and a dot for each draw, the first at the top.

    Args:
        scores: for each draw, per cent right: a row for each way, a column for each test.
        bar: what is good enough, in per cent.
        chance: what the same answer to every sheet gets, by test.
    """
    ways, told = list(scores[0].index), []
    with styled_figure(12, 3.6) as figure:
        panels = figure.subplots(1, len(chance), sharex=True, sharey=True)
        for axes, test in zip(panels, chance, strict=True):
            for row, way in enumerate(ways):
                found = [float(table.loc[way, test]) for table in scores]
                heights = [row + 0.22 * (draw - (len(found) - 1) / 2) for draw in range(len(found))]
                axes.scatter(found, heights, s=30, color=COLOURS[way.split(",")[0]], clip_on=False)
                told.append(f"{test}, {way}: {', '.join(f'{each:.0f}' for each in found)}")
            for place, name, style in ((chance[test], "chance", "dashed"), (bar, "bar", "dotted")):
                axes.axvline(place, color=QUIET, linestyle=style, lw=1.4, zorder=0)
                axes.text(place, -0.75, name, color=QUIET, size=9, ha="center")
            axes.set_title(test, pad=20)
            axes.set(xlabel="right answers (%)", xlim=(-2, 102), xticks=range(0, 101, 20))
            axes.set_yticks(range(len(ways)), ways)
            axes.set_ylim(len(ways) - 0.5, -0.5)
    return with_description(figure, f"Per cent right, draw by draw. {'; '.join(told)}.")


def read_longer() -> pd.DataFrame:
    """Per cent right by steps: the lesson's adapter on both folders, draw 0, as `answers(0, steps)` gives it."""
    return pd.read_csv(Path(__file__).with_name("longer.csv"), index_col="steps")
