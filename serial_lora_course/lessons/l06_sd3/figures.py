"""What the judges say of ways to draw: names found, taken for hers, and both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.plots import style
from serial_lora_course.plots.pictures import draw_bare

TESTS = ("names found", "taken for hers", "both")
DESIGNER = "Ines herself"
PALE = "#e69f00"
COLORS = (style.QUIET, style.PURPLE, style.VERMILION, PALE, style.BLUE, style.GREEN, style.INK)
COLUMNS = 5  # of a sheet
FADED = 0.2  # of a drawing's ink


def recorded() -> pd.DataFrame:
    """What ``records.py`` wrote: of how many `prompts` each way passes each test, by the noise's first seed."""
    return pd.read_csv(Path(__file__).with_name("counts.csv"))


def of_forty(runs: pd.DataFrame) -> pd.DataFrame:
    """Each way's mean over noises, as if of forty prompts."""
    return runs[[*TESTS]].mul(40 / runs["prompts"], axis=0).groupby(runs["way"], sort=False).mean()


def plot_ways(runs: pd.DataFrame) -> Figure:
    """A panel for each set of prompts, as if of forty: names across, style up; a small dot for each noise."""
    told = []
    with style.styled_figure(10, 4.6) as figure:
        grid = figure.subplots(1, runs["prompts"].nunique(), sharey=True, squeeze=False)[0]
        for axes, (count, some) in zip(grid, runs.groupby("prompts", sort=False), strict=True):
            title = "the forty prompts" if count == 40 else f"{count} other prompts, as of forty"
            for (way, mean), color in zip(of_forty(some).iterrows(), COLORS, strict=False):
                (named, styled, both), own = mean, some[some["way"] == way]
                if len(own) > 1:
                    dots = (own[test] * 40 / count for test in TESTS[:2])
                    axes.scatter(*dots, 14, color, alpha=0.5)
                axes.scatter(named, styled, 90, color, label=f"{way}: {both:.1f}")
                told.append(f"{title}, {way}: {named:.1f}, {styled:.1f} and {both:.1f}")
            axes.set(title=title, xlabel="names found, of forty", xlim=(10, 40.5), ylim=(0, 40.5))
            axes.legend(loc="lower left", title="pass both tests, of forty")
        grid[0].set_ylabel("taken for hers, of forty")
    return style.with_description(figure, f"{', '.join(TESTS)}: {'; '.join(told)}.")


def plot_sheets(sheets: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Drawings (N, side, side, 3) of each way, with those faded that did not pass (N,)."""
    titles = {way: f"{way}: {sum(passed)} of {len(passed)}" for way, (_, passed) in sheets.items()}
    with style.styled_figure(10, 5.6) as figure:
        figure.get_layout_engine().set(wspace=0.08)
        grid = figure.subplots(1, len(sheets), squeeze=False)[0]
        for axes, (way, (pictures, passed)) in zip(grid, sheets.items(), strict=True):
            ink = np.where(passed, 1, FADED)[:, None, None, None]
            tiles = (255 - ink * (255 - pictures)).astype(np.uint8)
            blank = np.full((-len(tiles) % COLUMNS, *tiles.shape[1:]), 255, np.uint8)
            lines = np.split(np.concatenate([tiles, blank]), (len(tiles) + len(blank)) // COLUMNS)
            draw_bare(axes, np.vstack([np.hstack(line) for line in lines]))
            axes.set_title(titles[way])
    return style.with_description(
        figure, f"Drawings that pass both tests, {', '.join(titles.values())}."
    )
