"""What the judges say of ways to draw: names found, taken for hers, and both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.plots import style

TESTS = {"names found": style.BLUE, "taken for hers": style.VERMILION, "both": style.INK}
DESIGNER = "Ines herself"


def recorded() -> pd.DataFrame:
    """What ``records.py`` wrote: of how many `prompts` each way passes each test, by the noise's first seed."""
    return pd.read_csv(Path(__file__).with_name("counts.csv"))


def of_forty(runs: pd.DataFrame) -> pd.DataFrame:
    """The same runs, with counts as if there were forty prompts."""
    scaled = runs[[*TESTS]].mul(40 / runs["prompts"], axis=0)
    return runs.drop(columns=[*TESTS]).join(scaled)


def table_of_ways(runs: pd.DataFrame) -> pd.DataFrame:
    """Of forty drawings, how many pass each test, by way, the mean over noises; for each set of prompts."""
    means = of_forty(runs).groupby(["way", "prompts"], sort=False)[[*TESTS]].mean().unstack()
    means = means.reindex(runs["way"].unique())
    columns = [(test, count) for count in runs["prompts"].unique() for test in TESTS]
    table = means[columns].round(1)
    table.columns = [test if count == 40 else f"{test}, {count} others" for test, count in columns]
    return table.rename_axis(None)


def plot_ways(runs: pd.DataFrame) -> Figure:
    """A panel for each set of prompts, a row for each way: a dot for each noise, and a bar at their mean."""
    scaled, ways, told = of_forty(runs), [*runs["way"].unique()], []
    with style.styled_figure(9.6, 0.52 * len(ways) + 1.3) as figure:
        grid = figure.subplots(1, runs["prompts"].nunique(), sharey=True, squeeze=False)[0]
        for axes, (count, some) in zip(grid, scaled.groupby("prompts", sort=False), strict=True):
            noises = some["noise"].nunique()
            title = (
                f"forty prompts, {noises} noises" if count == 40 else f"{count} others, as of forty"
            )
            for place, way in enumerate(ways):
                own = some[some["way"] == way]
                for row, (test, color) in enumerate(TESTS.items()):
                    height = np.full(len(own), place + 0.22 * (row - 1))
                    axes.scatter(own[test], height, 14, color, alpha=0.6)
                    mean = own[test].mean()
                    axes.plot([mean] * 2, height[:1] + [-0.11, 0.11], color=color, linewidth=2.5)
                    told.append(f"{title}, {way}, {test}: {mean:.1f}")
            axes.set(title=title, xlabel="of forty drawings", xlim=(0, 41))
            axes.set_yticks(range(len(ways)), ways)
        grid[0].invert_yaxis()
        for test, color in TESTS.items():
            grid[0].plot([], [], color=color, linewidth=2.5, label=test)
        grid[0].legend(loc="lower left")
    return style.with_description(figure, f"{'; '.join(told)}.")
