"""Results of runs against the amount of training data: Dice and FID, one chart for all.

A line joins the means over seeds, each run is a small point, the band runs from the worst to the
best seed, and grey lines mark what costs no training. Each data set has a small picture. Tables have a
row a run, as `serial_lora_course.labs.frames.frame` gives them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.plots.style import (
    DASHED,
    DOTTED,
    METHOD_LOOKS,
    QUIET,
    house_style,
    method_look,
    with_description,
)
from serial_lora_course.plots.tables import require_columns

ZERO_SHOT = "zero_shot_dataset"


def plot_dice_by_percent(frame: pd.DataFrame) -> Figure:
    """Dice against the share of the training pictures; the model as it was, and the whole box filled."""
    lines = {"not adapted": ("base_dice", DASHED), "box filled in": ("box_dice", DOTTED)}
    size = "share of the training pictures"
    return _plot_results(frame, "dice", "Dice (higher is better)", size, "{}%", lines)


def plot_fid_by_percent(frame: pd.DataFrame) -> Figure:
    """FID against the share of the training pictures, on logarithmic axes.

    Dotted, other real pictures of the style, which is about as low as drawings can come. One style's FID
    may be ten times another's, so each has axes of its own and there is no average.
    """
    lines = {"not adapted": ("base_fid", DASHED), "real pictures": ("real_fid", DOTTED)}
    axis, size = "FID (lower is better; logarithmic)", "share of the training pictures"
    return _plot_results(frame, "fid", axis, size, "{}%", lines, distance=True)


def _plot_results(
    frame: pd.DataFrame,
    measure: str,
    axis: str,
    size: str,
    tick: str,
    lines: dict[str, tuple[str, Any]],
    distance: bool = False,
) -> Figure:
    """A picture a data set, and one of their average, if there are two or more and no distances."""
    columns = [measure, *(column for column, _ in lines.values())]
    require_columns(frame, ["dataset", "method", "amount", "seed", *columns])
    methods = in_house_order(frame["method"])
    parts = {name: part for name, part in frame.groupby("dataset", sort=False)}
    if len(parts) > 1 and not distance:
        common = average_over_datasets(frame, ["method", "amount", "seed"], columns)
        if len(common):
            parts["average over data sets"] = common
    across = 2 if len(parts) == 4 else min(3, len(parts))
    down = math.ceil(len(parts) / across)
    with house_style():
        width = max(6.4, 3.3 * across + 0.6)  # the legend needs this much
        figure = Figure(figsize=(width, 2.9 * down + 0.9), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharey=not distance)
        for axes, (name, part) in zip(grid.flat, parts.items(), strict=False):
            for label, (column, style) in lines.items():
                axes.axhline(part[column].mean(), color=QUIET, linestyle=style, label=label)
            for step, method in enumerate(methods):
                runs = part[part["method"] == method]
                # A small sideways step keeps methods of equal results from hiding one another.
                x = runs["amount"] * 1.04 ** (step - (len(methods) - 1) / 2)
                _draw_runs(axes, x, runs[measure], method_look(method))
            amounts = sorted(part["amount"].unique())
            axes.set_xscale("log", base=2)
            axes.set_xticks(amounts, [tick.format(amount) for amount in amounts])
            if distance:
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5, 7)))
                axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.set_title(name)
        for axes in grid.flat[len(parts) :]:
            axes.set_visible(False)
        figure.supylabel(axis, fontsize=11)
        figure.supxlabel(size, fontsize=11)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3 if across > 2 else 2)
    most = frame[frame["amount"] == frame["amount"].max()].groupby("method")[measure].mean()
    words = ", ".join(f"{method_look(method)['label']} {most[method]:.3g}" for method in methods)
    return with_description(
        figure,
        f"{axis} against {size} on {', '.join(frame['dataset'].unique())}. With the most pictures, on "
        f"average: {words}.",
    )


def _draw_runs(axes: Any, x: pd.Series, y: pd.Series, look: dict[str, str]) -> None:
    """Each run as a small point, and their mean as a line in a band from the least to the most."""
    axes.scatter(x, y, s=9, color=look["color"], alpha=0.55)
    band = y.groupby(x).agg(["mean", "min", "max"])
    axes.fill_between(
        band.index, band["min"], band["max"], color=look["color"], alpha=0.16, linewidth=0
    )
    axes.plot(band["mean"], markersize=5, **look)


# ------------------------------------------------------------------------ what sweeps share with it


def average_over_datasets(
    frame: pd.DataFrame, by: Sequence[str], columns: Sequence[str]
) -> pd.DataFrame:
    """One row a combination of ``by`` that ran on every data set; what ran on some is left out."""
    by, datasets = list(by), frame["dataset"].nunique()
    everywhere = frame.groupby(by)["dataset"].transform("nunique") == datasets
    return frame[everywhere].groupby(by, as_index=False)[list(columns)].mean()


def in_house_order(names: pd.Series) -> list[str]:
    """The methods present: known ones in the house's order, then the others."""
    present = list(dict.fromkeys(names))
    return [m for m in METHOD_LOOKS if m in present] + [m for m in present if m not in METHOD_LOOKS]


def seed_averages(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The average over data sets of each combination of ``by`` and seed that ran on all of them."""
    averages = average_over_datasets(frame, [*by, "seed"], ["accuracy", ZERO_SHOT])
    if averages.empty:
        raise SerialLoRAError("no setting ran on every data set of the sweep; finish its runs.")
    return averages
