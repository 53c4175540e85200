"""What the judges say of ways to draw: names found, taken for hers, and both."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.plots import style
from serial_lora_course.plots.pictures import draw_bare

TESTS = ("names found", "taken for hers", "both")
DESIGNER = "Ines herself"
PULLED = ("the frozen pull at σ > 0.6", "the frozen pull at σ < 0.6")  # and nowhere else
PALE = "#e69f00"
SKY = "#56b4e9"
COLORS = (
    *(style.QUIET, style.PURPLE, style.VERMILION, PALE),
    *(style.BLUE, style.GREEN, SKY, style.INK),
)
STORY = ("in words", "tuned alone", "guided by both")  # joined by arrows
STEPS = "arrows: add the adapter, then the frozen pull"
BESIDE = {  # where a label stands, in points from its dot, so that it hides no other
    "tuned alone": (-7, 0),
    "at half strength": (-7, 0),
    "guided by the frozen model": (7, -10),
    PULLED[1]: (8, 9),
}
COLUMNS = 5  # of a sheet
MARGIN = 14  # pixels under each 64, for what a drawing fails


def recorded() -> pd.DataFrame:
    """What ``records.py`` wrote: of how many `prompts` each way passes each test, by the noise's first seed."""
    return pd.read_csv(Path(__file__).with_name("counts.csv"))


def plot_ways(runs: pd.DataFrame) -> Figure:
    """A panel for each set of prompts, as if of forty: names across, style up; a small dot for each noise."""
    told = []
    with style.styled_figure(10, 5.2) as figure:
        grid = figure.subplots(1, runs["prompts"].nunique(), sharey=True, squeeze=False)[0]
        for axes, (count, some) in zip(grid, runs.groupby("prompts", sort=False), strict=True):
            drawn = ("one noise", "two noises", "three noises", "four noises")
            which = "the forty prompts" if count == 40 else f"{count} others, scaled to forty"
            title, places = f"{which}, {drawn[some['noise'].nunique() - 1]}", {}
            for (way, own), color in zip(some.groupby("way", sort=False), COLORS, strict=False):
                dots = own[[*TESTS]] * 40 / count
                named, styled, both = dots.mean()
                if len(own) > 1:
                    axes.scatter(dots[TESTS[0]], dots[TESTS[1]], 14, color, alpha=0.5)
                axes.scatter(named, styled, 90, color)
                places[way] = named, styled
                beside = BESIDE.get(way, (7, 0))
                look = {"ha": "right" if beside[0] < 0 else "left", "va": "center", "fontsize": 9}
                label = f"{way.removeprefix('the ')}: {both:.1f}".replace(
                    "the frozen ", "the frozen\n"
                )
                axes.annotate(label, (named, styled), beside, textcoords="offset points", **look)
                told.append(f"{title}, {way}: {named:.1f}, {styled:.1f} and {both:.1f}")
            arrow = {"arrowstyle": "->", "color": style.QUIET, "shrinkA": 8, "shrinkB": 8}
            for here, there in pairwise(places[way] for way in STORY if way in places):
                axes.annotate("", there, here, arrowprops=arrow)
            axes.set(title=title, xlabel="names found, of forty", xlim=(12, 44), ylim=(0, 40.5))
            axes.text(13, 8, STEPS, fontsize=9, color=style.QUIET)
        grid[0].set_ylabel("taken for hers, of forty")
    return style.with_description(figure, f"{', '.join(TESTS)}: {'; '.join(told)}.")


def plot_sheets(sheets: Mapping[str, tuple[np.ndarray, pd.DataFrame]]) -> Figure:
    """Drawings (N, side, side, 3) of each way, with the tests (name, hers) written under those that fail them."""
    titles = {
        way: f"{way}: {said['both'].sum()} of {len(said)}" for way, (_, said) in sheets.items()
    }
    with style.styled_figure(10, 6.6) as figure:
        figure.get_layout_engine().set(wspace=0.08)
        grid = figure.subplots(1, len(sheets), squeeze=False)[0]
        for axes, (way, (tiles, said)) in zip(grid, sheets.items(), strict=True):
            side = tiles.shape[1]
            margin = -(-MARGIN * side // 64)
            tiles = np.pad(
                tiles,
                [(0, -len(tiles) % COLUMNS), (0, margin), (0, 0), (0, 0)],
                constant_values=255,
            )
            lines = np.split(tiles, len(tiles) // COLUMNS)
            draw_bare(axes, np.vstack([np.hstack(line) for line in lines]))
            for i, passed in enumerate(said[["name", "hers"]].to_dict("records")):
                row, column = divmod(i, COLUMNS)
                failed = "  ".join(f"✗ {test}" for test, good in passed.items() if not good)
                at = ((column + 0.5) * side, (row + 1) * (side + margin) - margin / 2)
                axes.text(
                    *at, failed, fontsize=6.5, color=style.VERMILION, ha="center", va="center"
                )
            axes.set_title(titles[way])
    return style.with_description(
        figure, f"Drawings that pass both tests, {', '.join(titles.values())}."
    )
