"""Results of runs against the amount of training data: accuracy, Dice and FID, one chart for all.

A line joins the means over seeds, each run is a small point, the band runs from the worst to the
best seed, and grey lines mark what costs no training. Each data set has a small picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from serial_lora_course.plots.tables import require_columns, require_shares

RUN_COLUMNS = ("dataset", "method", "amount", "seed")
ZERO_SHOT = "zero_shot_dataset"


@dataclass(frozen=True)
class _Chart:
    """What a chart of results shows, and the grey lines it is read against.

    Attributes:
        measure: the column that is drawn, a share between 0 and 1 or a distance.
        axis, size: the words at the two axes.
        references: (column, what it is called, its line) of each grey line.
        tick: how a number of the column ``amount`` is written.
        percent: whether the measure is read in per cent.
        distance: whether the measure is one, above 0 without an upper end: then each picture has a
            logarithmic axis of its own, and there is no average over data sets.
    """

    measure: str
    axis: str
    size: str
    references: tuple[tuple[str, str, Any], ...]
    tick: str = "{}%"
    percent: bool = False
    distance: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns with numbers to draw."""
        return [self.measure, *(column for column, _, _ in self.references)]

    @property
    def unit(self) -> float:
        return 100 if self.percent else 1

    def write(self, value: float) -> str:
        return f"{value:.1%}" if self.percent else f"{value:.3g}"


def plot_accuracy_by_shots(frame: pd.DataFrame, zero_shot: str = "zero_shot_dataset") -> Figure:
    """Accuracy against the number of shots, with zero-shot accuracy as a grey line.

    Args:
        frame: one row a run, as `serial_lora_course.labs.frames.frame` gives it, with the columns
            of `RUN_COLUMNS` and ``accuracy``; accuracies between 0 and 1.
        zero_shot: the column with the accuracy before adaptation.

    Raises:
        SerialLoRAError: if a column is missing, there are no rows, or a share is not one.
    """
    chart = _Chart(
        measure="accuracy",
        axis="accuracy (%)",
        size="shots (training pictures a class)",
        references=((zero_shot, "zero-shot", DASHED),),
        tick="{}",
        percent=True,
    )
    return _plot_results(frame, chart)


def plot_dice_by_percent(frame: pd.DataFrame) -> Figure:
    """Dice against the percentage of the training pictures.

    Two grey lines: the model as it was (dashed), and the whole box filled in (dotted).

    Args:
        frame: as in :func:`plot_accuracy_by_shots`, of the SAM lab: ``amount`` is the percentage;
            ``dice``, ``base_dice`` and ``box_dice`` are between 0 and 1, and higher is better.

    Raises:
        SerialLoRAError: if a column is missing, there are no rows, or a share is not one.
    """
    chart = _Chart(
        measure="dice",
        axis="Dice (higher is better)",
        size="share of the training pictures",
        references=(("base_dice", "not adapted", DASHED), ("box_dice", "box filled in", DOTTED)),
    )
    return _plot_results(frame, chart)


def plot_fid_by_percent(frame: pd.DataFrame) -> Figure:
    """FID against the percentage of the training pictures, on logarithmic axes.

    There is no average over styles: one style's FID may be ten times another's. Two grey lines: the
    model as it was (dashed), and other real pictures of the style (dotted), which is about as low
    as drawings can come.

    Args:
        frame: as in :func:`plot_accuracy_by_shots`, of the SD3 lab: ``amount`` is the percentage;
            ``fid``, ``base_fid`` and ``real_fid`` are above 0, and lower is better.

    Raises:
        SerialLoRAError: if a column is missing, there are no rows, or a distance is none.
    """
    chart = _Chart(
        measure="fid",
        axis="FID (lower is better; logarithmic)",
        size="share of the training pictures",
        references=(("base_fid", "not adapted", DASHED), ("real_fid", "real pictures", DOTTED)),
        distance=True,
    )
    return _plot_results(frame, chart)


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


def draw_mean(axes: Any, x: pd.Series, y: pd.Series, look: dict[str, str]) -> None:
    """The mean of y at each x as a line, in a band from the least to the most."""
    by_place = y.groupby(x)
    mean, low, high = by_place.mean(), by_place.min(), by_place.max()
    axes.fill_between(mean.index, low, high, color=look["color"], alpha=0.16, linewidth=0)
    axes.plot(mean, markersize=5, **look)


def _plot_results(frame: pd.DataFrame, chart: _Chart) -> Figure:
    """A picture a data set, and one of their average, if there are two or more and no distances."""
    require_columns(frame, [*RUN_COLUMNS, *chart.columns])
    if not chart.distance:
        require_shares(frame[chart.measure], chart.measure)
    elif not (frame[chart.columns] > 0).all(axis=None):
        raise SerialLoRAError(
            f"{chart.measure} is a distance, above 0; leave out the runs without one."
        )
    methods = in_house_order(frame["method"])
    parts = {name: part for name, part in frame.groupby("dataset", sort=False)}
    if len(parts) > 1 and not chart.distance:
        common = average_over_datasets(frame, ["method", "amount", "seed"], chart.columns)
        if len(common):
            parts["average over data sets"] = common
    columns = 2 if len(parts) == 4 else min(3, len(parts))
    rows = math.ceil(len(parts) / columns)
    with house_style():
        width = max(6.4, 3.3 * columns + 0.6)  # the legend needs this much
        figure = Figure(figsize=(width, 2.9 * rows + 0.9), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=not chart.distance)
        for axes, (name, part) in zip(grid.flat, parts.items(), strict=False):
            _results_panel(axes, part, methods, chart)
            axes.set_title(name)
        for axes in grid.flat[len(parts) :]:
            axes.set_visible(False)
        figure.supylabel(chart.axis, fontsize=11)
        figure.supxlabel(chart.size, fontsize=11)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3 if columns > 2 else 2)
    return with_description(figure, _results_words(parts, methods, chart))


def _results_panel(axes: Any, part: pd.DataFrame, methods: Sequence[str], chart: _Chart) -> None:
    for column, label, line in chart.references:
        axes.axhline(chart.unit * part[column].mean(), color=QUIET, linestyle=line, label=label)
    for i, method in enumerate(methods):
        runs, look = part[part["method"] == method], method_look(method)
        if runs.empty:
            continue
        # A small sideways step keeps methods of equal results from hiding one another.
        x = runs["amount"] * 1.04 ** (i - (len(methods) - 1) / 2)
        y = chart.unit * runs[chart.measure]
        axes.scatter(x, y, s=9, color=look["color"], alpha=0.55)
        draw_mean(axes, x, y, look)
    axes.set_xscale("log", base=2)
    sizes = sorted(part["amount"].unique())
    axes.set_xticks(sizes, [chart.tick.format(size) for size in sizes])
    if chart.distance:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def _results_words(parts: Mapping[str, pd.DataFrame], methods: Sequence[str], chart: _Chart) -> str:
    """Each panel's grey lines, and each method's mean with the most training pictures."""
    phrases = []
    for name, part in parts.items():
        most = part["amount"].max()
        last = part[part["amount"] == most].groupby("method")[chart.measure].mean()
        words = [
            f"{label} {chart.write(part[column].mean())}" for column, label, _ in chart.references
        ]
        words += [
            f"{method_look(method)['label']} {chart.write(last[method])}"
            for method in methods
            if method in last.index
        ]
        phrases.append(f"{name}, {chart.tick.format(most)}: {', '.join(words)}")
    return (
        f"{chart.axis[0].upper()}{chart.axis[1:]} against {chart.size}. Grey lines, and means with the most training pictures "
        f"for {'; '.join(phrases)}."
    )


def seed_averages(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The average over data sets of each combination of ``by`` and seed that ran on all of them."""
    measures = ["accuracy", ZERO_SHOT]
    require_columns(frame, ["dataset", "seed", *by, *measures])
    require_shares(frame["accuracy"], "accuracy")
    averages = average_over_datasets(frame, [*by, "seed"], measures)
    if averages.empty:
        raise SerialLoRAError("no setting ran on every data set of the sweep; finish its runs.")
    return averages


def line_with_bars(axes: Any, runs: pd.DataFrame, column: str, look: dict[str, Any]) -> None:
    """Means over seeds against a column, with bars from the worst to the best seed."""
    by_place = 100 * runs.groupby(column)["accuracy"].agg(["mean", "min", "max"])
    mean = by_place["mean"]
    spread = [mean - by_place["min"], by_place["max"] - mean]
    axes.errorbar(mean.index, mean, spread, markersize=5, elinewidth=0.9, capsize=2, **look)
