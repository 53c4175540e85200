"""Two adapters mixed: accuracy on both tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from serial_lora_course.plots.style import BLUE, QUIET, VERMILION, house_style, with_description

ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # a line may run behind a number

Points = Mapping[str, float]
"""Task -> accuracy in per cent."""


def plot_path(
    shares: Sequence[float], path: Mapping[str, Sequence[Points]], tasks: Sequence[str]
) -> Figure:
    """From one adapter to the other, a panel a task, a line a way of mixing.

    Args:
        shares: weight of the second task's adapter; the first has the rest of 1.
        path: way of mixing -> accuracy on both tasks at each share.
    """
    looks = dict(zip(path, ((VERMILION, "o-"), (BLUE, "s--")), strict=False))
    with house_style():
        figure = Figure(figsize=(9, 3.3), layout="constrained")
        for axes, task in zip(figure.subplots(1, len(tasks), sharey=True), tasks, strict=True):
            for name, (colour, line) in looks.items():
                axes.plot(shares, [row[task] for row in path[name]], line, color=colour, label=name)
            axes.set(title=task, xlabel=f"weight of the adapter of {tasks[1]}")
        figure.axes[0].set_ylabel("accuracy (%)")
        figure.axes[0].legend()
    middle = len(shares) // 2
    said = [
        f"{name}, {task}: {rows[0][task]:.0f}, {rows[middle][task]:.0f}, {rows[-1][task]:.0f}"
        for name, rows in path.items()
        for task in tasks
    ]
    return with_description(
        figure,
        f"Accuracy in per cent at weights {shares[0]:g}, {shares[middle]:g} and {shares[-1]:g}. "
        f"{'; '.join(said)}.",
    )


def plot_mixture(mixtures: Mapping[str, Points], base: Points) -> Figure:
    """Bars of accuracy on each task for some mixtures; the base as a line across.

    Args:
        mixtures: weights in words -> accuracy.
        base: accuracy of the model without adapters.
    """
    tasks = list(base)
    with house_style():
        figure = Figure(figsize=(1.6 + 1.7 * len(mixtures), 3), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(mixtures))
        for i, (task, colour) in enumerate(zip(tasks, (VERMILION, BLUE), strict=False)):
            heights = [row[task] for row in mixtures.values()]
            bars = axes.bar(places + 0.4 * i - 0.2, heights, 0.36, color=colour, label=task)
            axes.bar_label(bars, fmt="%.0f", padding=2, bbox=ON_WHITE)
            axes.axhline(
                base[task], color=colour, linestyle=":", zorder=0, label=f"{task}, no adapter"
            )
        axes.set_xticks(places, list(mixtures))
        axes.set(xlabel=f"weight of {' / '.join(tasks)}", ylabel="accuracy (%)", ylim=(0, 119))
        axes.legend(loc="upper right", ncols=2, fontsize=9, labelcolor=QUIET)
    said = [
        f"{name}: " + ", ".join(f"{task} {row[task]:.0f}" for task in tasks)
        for name, row in mixtures.items()
    ]
    without = ", ".join(f"{task} {base[task]:.0f}" for task in tasks)
    return with_description(
        figure, f"Accuracy in per cent. {'; '.join(said)}; without adapters {without}."
    )
