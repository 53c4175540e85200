"""Which way to take, and what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

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
MARKERS = "os^"  # of the draws
TAKEN, MISSED = "#cfe8d5", "#e6e6e6"


def dotted(page: Image.Image | np.ndarray, top: np.ndarray) -> Image.Image:
    """A page, or a distance in shades of grey, with red dots at the peaks."""
    picture = np.array(page)
    if picture.ndim == 2:
        picture = np.repeat(np.uint8(255 * picture / max(picture.max(), 1))[..., None], 3, axis=-1)
    for size, colour in ((3, 255), (2, (255, 0, 0))):
        picture[binary_dilation(top, iterations=size)] = colour
    return Image.fromarray(picture)


def plot_choices(
    cases: Mapping[str, Mapping[str, Tensor]],
    chosen: Mapping[str, tuple[str, bool]],
    bars: Mapping[str, float],
) -> Figure:
    """A panel for each case, a row for each way, the cheapest at the top, and a dot for each draw.

    Args:
        cases: case -> way -> (draws, sheets), right or not, or a score from 0 to 1.
        chosen: case -> the way that is taken, whose row is shaded, and whether it reaches the bar.
        bars: what is good enough, by case; a bar of 1 is none.
    """
    told = []
    with styled_figure(12, 2.9) as figure:
        panels = figure.subplots(1, len(cases), squeeze=False)[0]
        for axes, (case, ways) in zip(panels, cases.items(), strict=True):
            (taken, enough), bar = chosen[case], bars[case]
            for row, (way, right) in enumerate(ways.items()):
                shares = 100 * right.double().mean(1)
                colour = COLOURS.get(way, INK)
                for draw, share in enumerate(shares.tolist()):
                    height = row + 0.2 * (draw - (len(shares) - 1) / 2)
                    axes.scatter(share, height, s=34, color=colour, marker=MARKERS[draw], zorder=3)
                told.append(f"{case}, {way}: {', '.join(f'{each:.0f}' for each in shares)}")
            row = list(ways).index(taken)
            axes.axhspan(
                row - 0.5, row + 0.5, color=TAKEN if enough or bar == 1 else MISSED, lw=0, zorder=0
            )
            if bar < 1:
                axes.axvline(100 * bar, color=QUIET, linestyle="dotted", lw=1.6, zorder=1)
                axes.set(xlim=(-2, 102), xticks=range(0, 101, 25))
                axes.text(100 * bar, -0.6, "bar", color=QUIET, size=10, ha="center")
            verdict = taken if enough or bar == 1 else "none"
            axes.set_title(f"{case}: {verdict}", pad=18)
            axes.set_ylim(len(ways) - 0.5, -0.5)
            axes.set_xlabel("right answers (%)" if bar < 1 else "Dice (hundredths; cut axis)")
            axes.set_yticks(range(len(ways)), ways)
            axes.grid(axis="y", visible=False)
    return with_description(figure, f"Shaded is the way that is taken. {'; '.join(told)}.")


def with_recorded(case: str, first: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """What ``records.py`` wrote of a case, after a first draw if one is given: way -> (draws, sheets)."""
    draws = {way: [score.tolist()] for way, score in (first or {}).items()}
    for line in Path(__file__).with_name("runs.csv").read_text(encoding="utf-8").splitlines():
        of, way, *scores = line.split(",")
        if of == case:
            draws.setdefault(way, []).append([*map(float, scores)])
    return {way: torch.tensor(each) for way, each in draws.items()}
