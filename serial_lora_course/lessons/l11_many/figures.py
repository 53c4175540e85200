"""Some ways of doing one thing, beside each other; and what two tasks make of the weights of a sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = (
    {"color": VERMILION, "marker": "o"},
    {"color": BLUE, "marker": "s", "linestyle": DASHED},
    {"color": GREEN, "marker": "D", "linestyle": (0, (1, 1.5)), "markersize": 8},
    {"color": QUIET, "marker": "X", "markersize": 9},
)


def plot_ways(ways: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> Figure:
    """A line a way over a logarithmic axis, and at its end the last value.

    Args:
        ways: name -> points (x, y).
        x, y: what is on the axes.
    """
    with styled_figure(8.6, 4) as figure:
        axes = figure.subplots()
        for (name, points), look in zip(ways.items(), LOOKS, strict=False):
            axes.plot(*zip(*points, strict=True), label=name, **look)
            where, text = points[-1], {"color": look["color"], "fontweight": "bold"}
            axes.annotate(f"{where[1]:.0f}", where, (7, 7), textcoords="offset points", **text)
        axes.set_xscale("log", base=2)
        places = sorted({where for points in ways.values() for where, _ in points})
        axes.set_xticks(places, [f"{where:g}" for where in places])
        axes.set(xlabel=x, ylabel=y)
        axes.set_ylim(0, 1.15 * max(value for points in ways.values() for _, value in points))
        axes.legend()
    said = "; ".join(
        f"{name}: " + ", ".join(f"{value:.0f} at {where:.0f}" for where, value in points)
        for name, points in ways.items()
    )
    return with_description(figure, f"{y}, over {x}. {said}.")


def plot_sweeps(
    sweeps: Mapping[str, Mapping[str, Sequence[tuple[float, int]]]], base: Mapping[str, int]
) -> Figure:
    """A panel a sweep, and in it a line a task; the base's count is dotted. The second axis doubles.

    Args:
        sweeps: what is on the axis -> task -> points (weight, how many are right).
        base: task -> how many the base has right.
    """
    words = []
    with styled_figure(9.2, 3.9) as figure:
        panels = figure.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
        for axes, (x, tasks) in zip(panels, sweeps.items(), strict=True):
            for (task, points), look in zip(tasks.items(), LOOKS, strict=False):
                axes.plot(*zip(*points, strict=True), label=task, **look)
                axes.axhline(base[task], color=look["color"], linestyle=":", linewidth=1.2)
                said = ", ".join(f"{count} at {weight:g}" for weight, count in points)
                words.append(f"{x}, {task}: {said}")
            axes.set_xlabel(x)
        for axes in panels[1:]:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
        panels[0].set(ylabel="named right", ylim=(0, None))
        panels[0].legend(loc="lower center")
    dotted = ", ".join(f"{task} {count}" for task, count in base.items())
    return with_description(
        figure, f"Drawings named right, over the weights. {'; '.join(words)}. Base: {dotted}."
    )
