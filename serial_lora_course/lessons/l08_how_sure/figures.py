"""Accuracy over the rank; pairs of runs, and differences with their errors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.plots.results import (
    ZERO_SHOT,
    in_house_order,
    line_with_bars,
    seed_averages,
)
from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)

ZERO_SHOT_LOOK = {"color": QUIET, "linestyle": DASHED}


def plot_rank_sweep(frame: pd.DataFrame) -> Figure:
    """Accuracy against the rank, and the same runs against the number of parameters.

    Left, methods are compared at equal rank; right, at equal budget. The axis spans the runs, so that
    their differences can be seen; zero-shot accuracy, far below them, is told in words.

    Args:
        frame: one row a run, as `serial_lora_course.labs.frames.frame` gives it, with the columns
            dataset, method, seed, rank (the adapter's), parameters, accuracy and zero_shot_dataset,
            which are between 0 and 1.
    """
    points = seed_averages(frame, ["method", "rank", "parameters"])
    methods = in_house_order(points["method"])
    with house_style():
        figure = Figure(figsize=(9.6, 4.3), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, column in zip(panels, ("rank", "parameters"), strict=True):
            for step, method in enumerate(methods):
                part = points[points["method"] == method]
                shifted = part.assign(**{column: part[column] * 1.03**step})
                line_with_bars(axes, shifted, column, method_look(method))
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
    means = points.groupby(["method", "rank"])["accuracy"].mean()
    words = "; ".join(
        f"{method_look(method)['label']}: {means[method].min():.1%} to {means[method].max():.1%}"
        for method in methods
    )
    return with_description(figure, f"Accuracy against rank and parameters. {words}.")


def plot_margins(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean differences with their 95% intervals, each in its own margin: a row a measure.

    In margins all measures fit on one axis: right of 0 speaks for the first method, and left of -1
    it is behind by more than the margin.

    Args:
        tables: what is compared with -> :func:`serial_lora_course.lessons.l08_how_sure.tables.margin_table`.
    """
    names = list(next(iter(tables.values())).index)
    with house_style():
        figure = Figure(figsize=(8.6, 1.5 + 0.6 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(-1, 1, color="#f0f0f0", zorder=0, label="within the margin")
        axes.axvline(0, color=QUIET, linewidth=1)
        looks = ((BLUE, "o"), (GREEN, "v"))
        for place, (title, table) in enumerate(tables.items()):
            look = {"color": looks[place][0], "marker": looks[place][1], "linestyle": ""}
            rows = np.arange(len(table)) + 0.3 * place - 0.15
            mean, half = (table[n].to_numpy(float) / table["margin"] for n in ("mean", "half"))
            axes.errorbar(mean, rows, xerr=half, capsize=4, label=f"against {title}", **look)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("difference, in margins (bars: 95% confidence intervals)")
        figure.legend(loc="outside upper left", ncols=3)
    words = "; ".join(
        f"{row.Index} against {title} {row.mean:+.2f} ± {row.half:.2f} {row.unit}"
        for title, table in tables.items()
        for row in table.itertuples()
    )
    return with_description(figure, f"Mean differences with 95% intervals: {words}.")


def plot_pairs(table: pd.DataFrame, unit: str, half: float) -> Figure:
    """Two methods' results on the same draws: a line joins a pair; beside it, the differences.

    A bar across a set's differences is their mean.

    Args:
        table: an index of data set and seed, and two columns of scores, named by their methods.
        unit: of a difference, in words.
        half: half of the 95% confidence interval of the mean difference.
    """
    other, one = table.columns
    difference = table[one] - table[other]
    names = list(dict.fromkeys(table.index.get_level_values("dataset")))
    looks = list(zip((BLUE, VERMILION, GREEN, PURPLE, INK, QUIET), "osv^DP", strict=True))
    with house_style():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.4))
        for place, name in enumerate(names):
            colour, marker = looks[place % len(looks)]
            rows, label = table.loc[name], name
            for pair in rows.to_numpy():
                left.plot([0, 1], pair, color=colour, marker=marker, label=label)
                label = None
            own = difference.loc[name]
            right.plot([place] * len(own), own, marker, color=colour)
            right.hlines(own.mean(), place - 0.25, place + 0.25, color=colour)
        mean = difference.mean()
        right.errorbar(len(names), mean, half, color=INK, marker="_", markersize=14, capsize=6)
        right.axhline(0, color=QUIET, linewidth=1)
        right.set_xticks(range(len(names) + 1), [*names, "mean"], rotation=30)
        right.set_title(f"{method_look(one)['label']} minus {method_look(other)['label']}")
        right.set_ylabel(unit)
        left.set_xticks([0, 1], [method_look(name)["label"] for name in (other, one)])
        left.set(xlim=(-0.2, 1.2), title="one line a data set and seed", ylabel=f"score, in {unit}")
        figure.legend(loc="outside upper center", ncols=len(names))
    return with_description(
        figure,
        f"{method_look(one)['label']} is above {method_look(other)['label']} in {(difference > 0).sum()} of "
        f"{len(table)} pairs; mean {mean:+.2f}, 95% interval {mean - half:+.2f} to {mean + half:+.2f}.",
    )
