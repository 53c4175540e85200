"""Pictures of sweeps: accuracy over the rates of A and B, and over the rank.

A point is the mean over seeds of the average over data sets, and its bar runs from the worst to the
best seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.results import average_over_datasets, in_house_order
from serial_lora_course.figures.style import (
    DASHED,
    INK,
    QUIET,
    house_style,
    method_look,
    with_description,
)
from serial_lora_course.figures.tables import require_columns, require_shares

ZERO_SHOT = "zero_shot_dataset"
ZERO_SHOT_LOOK = {"color": QUIET, "linestyle": DASHED}
_MARKERS = "osD^vP*X"
_LINES = ("-", (0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def plot_ratio_sweep(frame: pd.DataFrame) -> Figure:
    """Accuracy against the rate of B, one picture a method, one line for each rate of A.

    A ring marks equal rates, a ratio of 1.

    Args:
        frame: one row a run, as `serial_lora_course.labs.frames.frame` gives it, with the columns
            dataset, method, seed, ratio, lr (the rate of A), accuracy and zero_shot_dataset, which
            are between 0 and 1.

    Raises:
        SerialLoRAError: a column is missing, there are no rows, or an accuracy is not a share.
    """
    points = _seed_averages(frame, ["method", "lr", "ratio"])
    points["rate_B"] = points["lr"] * points["ratio"]
    methods = in_house_order(points["method"])
    rates = sorted(points["lr"].unique())
    colours = matplotlib.colormaps["viridis"]
    looks = {
        rate: {
            "color": colours(0.8 * i / max(1, len(rates) - 1)),
            "marker": _MARKERS[i % 8],
            "linestyle": _LINES[i % 4],
        }
        for i, rate in enumerate(rates)
    }
    with house_style():
        figure = Figure(figsize=(max(6.4, 4.6 * len(methods)), 4.3), layout="constrained")
        panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
        for axes, method in zip(panels, methods, strict=True):
            part = points[points["method"] == method]
            axes.axhline(100 * part[ZERO_SHOT].mean(), **ZERO_SHOT_LOOK)
            for rate, line in part.groupby("lr"):
                _line_with_bars(axes, line, "rate_B", looks[rate])
            equal = part[part["ratio"] == 1].groupby("rate_B")["accuracy"].mean()
            axes.scatter(equal.index, 100 * equal, s=150, facecolors="none", edgecolors=INK)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set(title=method_look(method)["label"], xlabel="learning rate of B")
        panels[0].set_ylabel("accuracy (%)")
        handles = [Line2D([], [], label=f"A at {rate:g}", **looks[rate]) for rate in rates]
        ring = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "linestyle": ""}
        handles.append(Line2D([], [], color=INK, label="B at A's rate", **ring))
        handles.append(Line2D([], [], label="zero-shot", **ZERO_SHOT_LOOK))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return with_description(figure, _ratio_words(points, methods))


def plot_rank_sweep(frame: pd.DataFrame) -> Figure:
    """Accuracy against the rank, and the same runs against the number of parameters.

    Left, methods are compared at equal rank; right, at equal budget. The axis spans the runs, so that
    their differences can be seen; zero-shot accuracy, far below them, is told in words.

    Args:
        frame: one row a run, as `serial_lora_course.labs.frames.frame` gives it, with the columns
            dataset, method, seed, rank (the adapter's), parameters, accuracy and zero_shot_dataset,
            which are between 0 and 1.

    Raises:
        SerialLoRAError: a column is missing, there are no rows, or an accuracy is not a share.
    """
    points = _seed_averages(frame, ["method", "rank", "parameters"])
    methods = in_house_order(points["method"])
    with house_style():
        figure = Figure(figsize=(9.6, 4.3), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, column in zip(panels, ("rank", "parameters"), strict=True):
            for step, method in enumerate(methods):
                part = points[points["method"] == method]
                shifted = part.assign(**{column: part[column] * 1.03**step})
                _line_with_bars(axes, shifted, column, method_look(method))
            axes.set_xscale("log", base=2)
            ticks = sorted(points[column].unique())
            words = [f"{tick / 1000:,.0f}k" if column == "parameters" else tick for tick in ticks]
            axes.set_xticks(ticks, words, rotation=45 if column == "parameters" else 0)
            axes.minorticks_off()
        panels[0].set(title="at equal rank", xlabel="rank of the adapter", ylabel="accuracy (%)")
        panels[1].set(title="at equal budget", xlabel="trained parameters")
        figure.supxlabel(f"zero-shot: {points[ZERO_SHOT].mean():.1%}", fontsize=10, color=QUIET)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return with_description(figure, _rank_words(points, methods))


def _seed_averages(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The average over data sets of each combination of ``by`` and seed that ran on all of them."""
    measures = ["accuracy", ZERO_SHOT]
    require_columns(frame, ["dataset", "seed", *by, *measures])
    require_shares(frame["accuracy"], "accuracy")
    averages = average_over_datasets(frame, [*by, "seed"], measures)
    if averages.empty:
        raise SerialLoRAError("no setting ran on every data set of the sweep; finish its runs.")
    return averages


def _line_with_bars(axes: Any, runs: pd.DataFrame, column: str, look: dict[str, Any]) -> None:
    """Means over seeds against a column, with bars from the worst to the best seed."""
    by_place = 100 * runs.groupby(column)["accuracy"].agg(["mean", "min", "max"])
    mean = by_place["mean"]
    spread = [mean - by_place["min"], by_place["max"] - mean]
    axes.errorbar(mean.index, mean, spread, markersize=5, elinewidth=0.9, capsize=2, **look)


def _ratio_words(points: pd.DataFrame, methods: Sequence[str]) -> str:
    phrases = []
    for method in methods:
        cells = points[points["method"] == method].groupby(["lr", "ratio"])["accuracy"].mean()
        equal = cells[cells.index.get_level_values("ratio") == 1]
        chosen = [("best", cells, cells.idxmax()), ("worst", cells, cells.idxmin())]
        if len(equal):
            chosen.insert(1, ("best with equal rates", equal, equal.idxmax()))
        parts = [
            f"{name} {means[rate, ratio]:.1%} (A {rate:g}, B {rate * ratio:g})"
            for name, means, (rate, ratio) in chosen
        ]
        phrases.append(f"{method_look(method)['label']}: {'; '.join(parts)}")
    return (
        "Accuracy against the learning rate of B, one line for each rate of A, averaged over data "
        f"sets and {points['seed'].nunique()} seeds. {'. '.join(phrases)}."
    )


def _rank_words(points: pd.DataFrame, methods: Sequence[str]) -> str:
    phrases = []
    for method in methods:
        by_rank = points[points["method"] == method].groupby("rank")["accuracy"].mean()
        cells = ", ".join(f"{rank} {value:.1%}" for rank, value in by_rank.items())
        phrases.append(f"{method_look(method)['label']}: {cells}")
    return (
        "Accuracy at each rank, averaged over data sets and "
        f"{points['seed'].nunique()} seeds. {'. '.join(phrases)}. Zero-shot {points[ZERO_SHOT].mean():.1%}."
    )
