"""Pictures of sweeps: accuracy over the rates of A and B, and over the rank.

A point is the mean over seeds of the average over data sets, and its bar runs from the worst to the
best seed.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.plots.results import (
    ZERO_SHOT,
    in_house_order,
    line_with_bars,
    seed_averages,
)
from serial_lora_course.plots.style import (
    DASHED,
    QUIET,
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

    Raises:
        SerialLoRAError: a column is missing, there are no rows, or an accuracy is not a share.
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
    return with_description(figure, _rank_words(points, methods))


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
