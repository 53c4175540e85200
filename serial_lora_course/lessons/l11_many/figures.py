"""Two adapters mixed: accuracy on both tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots.style import BLUE, VERMILION, styled_figure, with_description


def plot_path(
    shares: Sequence[float],
    path: Mapping[str, Sequence[Mapping[str, float]]],
    tasks: Sequence[str],
) -> Figure:
    """From one adapter to the other, a panel a task, a line a way of mixing.

    Args:
        shares: weight of the second task's adapter; the first has the rest of 1.
        path: way of mixing -> task -> accuracy in per cent, at each share.
    """
    looks = dict(zip(path, ((VERMILION, "o-"), (BLUE, "s--")), strict=False))
    with styled_figure(9, 3.3) as figure:
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
