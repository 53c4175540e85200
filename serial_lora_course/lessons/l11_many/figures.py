"""Some ways of doing one thing, beside each other."""

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
    """A line a way, and at its end the last value.

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
        axes.set(xlabel=x, ylabel=y)
        axes.set_ylim(0, 1.15 * max(value for points in ways.values() for _, value in points))
        axes.legend()
    said = "; ".join(
        f"{name}: " + ", ".join(f"{value:.0f} at {where:.0f}" for where, value in points)
        for name, points in ways.items()
    )
    return with_description(figure, f"{y}, over {x}. {said}.")
