"""Which way to take, and what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = {
    "nearest frame": GREEN,
    "connected parts": INK,
    "thickest places": PURPLE,
    "probe": BLUE,
    "adapter": VERMILION,
}
MARKERS = "os^D"  # of the draws


def dotted(page: Image.Image | np.ndarray, top: np.ndarray) -> Image.Image:
    """A page, or a distance in shades of grey, with red dots at the peaks."""
    picture = np.array(page)
    if picture.ndim == 2:
        picture = np.repeat(np.uint8(255 * picture / max(picture.max(), 1))[..., None], 3, axis=-1)
    for size, colour in ((3, 255), (2, (255, 0, 0))):
        picture[binary_dilation(top, iterations=size)] = colour
    return Image.fromarray(picture)


def plot_shares(
    panels: Sequence[Mapping[str, Mapping[str, Sequence[Tensor]]]], bar: float
) -> Figure:
    """A line for each way through the cases of a panel, and a mark for each draw.

    Args:
        panels: of each, case -> way -> for each draw right or not, (sheets,).
        bar: what is good enough.
    """
    told = []
    with styled_figure(10.5, 4) as figure:
        for axes, cases in zip(
            figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True
        ):
            for row, (way, colour) in enumerate(COLOURS.items()):
                means = {}
                for x, case in enumerate(cases):
                    shares = [100 * float(e.double().mean()) for e in cases[case].get(way, ())]
                    x += 0.09 * (row - 2)
                    for share, marker in zip(shares, MARKERS, strict=False):
                        axes.scatter(x, share, s=30, color=colour, marker=marker, zorder=3)
                    if shares:
                        means[x] = np.mean(shares)
                        told.append(f"{case}, {way}: {', '.join(f'{e:.0f}' for e in shares)}")
                if means:
                    axes.plot([*means], [*means.values()], color=colour, lw=1.5, label=way)
            axes.axhline(100 * bar, color=QUIET, linestyle="dotted", lw=1.6, zorder=1)
            axes.set(xlim=(-0.4, len(cases) - 0.6), ylim=(-3, 103))
            axes.set_xticks(range(len(cases)), cases)
            axes.grid(axis="x", visible=False)
        figure.axes[0].set_ylabel("right answers (%)")
        ways = figure.axes[-1].get_legend_handles_labels()[0]
        keys = {"mark": "a draw", "line": "mean of the draws", "dotted": f"good enough, {bar:.0%}"}
        told_by = [
            Line2D([], [], color=QUIET, label=f"{key}: {what}") for key, what in keys.items()
        ]
        for key, style in zip(told_by, ("None", "solid", "dotted"), strict=True):
            key.set(linestyle=style, marker="o" if style == "None" else "None")
        figure.legend(handles=[*ways, *told_by], loc="outside right upper")
    return with_description(figure, f"A mark for each draw. {'; '.join(told)}.")


def plot_leads(leads: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> Figure:
    """A panel for each case, a row for each pair of ways, and a mark with its ± for each draw.

    Args:
        leads: case -> "one - other" -> for each draw how far one is ahead, and its ±, in points.
    """
    told = []
    with styled_figure(10.5, 4.2) as figure:
        panels = figure.subplots(len(leads), 1, sharex=True)
        for axes, (case, rows) in zip(panels, leads.items(), strict=True):
            for row, (pair, draws) in enumerate(rows.items()):
                colour = COLOURS.get(pair.partition(" - ")[0], INK)
                for draw, (ahead, about) in enumerate(draws):
                    axes.errorbar(
                        ahead,
                        row + 0.2 * (draw - 1.5),
                        xerr=about,
                        fmt=MARKERS[draw],
                        ms=5,
                        color=colour,
                        capsize=2,
                    )
                    told.append(f"{case}, {pair}: {ahead:.1f} ± {about:.1f}")
            axes.axvline(0, color=INK, lw=1)
            axes.set_title(case)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_yticks(range(len(rows)), rows)
            axes.grid(axis="y", visible=False)
        panels[-1].set_xlabel("ahead by (points of 100): a mark for each draw, a bar for its ±")
    return with_description(figure, f"A mark for each draw. {'; '.join(told)}.")


def with_recorded(case: str, first: Mapping[str, Tensor] | None = None) -> dict[str, list[Tensor]]:
    """What ``records.py`` wrote of a case, with your own draw 0 if it is given: way -> draws."""
    draws = {way: [found] for way, found in (first or {}).items()}
    for line in Path(__file__).with_name("runs.csv").read_text(encoding="utf-8").splitlines():
        of, draw, way, *scores = line.split(";")
        if of == case and not (first and draw == "0"):
            draws.setdefault(way, []).append(torch.tensor([*map(float, scores)]))
    return draws
