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
)


def plot_ways(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    x: str,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """A panel for each thing measured, and in it a line a way. The first axis doubles.

    Args:
        panels: what is measured -> way -> points (x, value).
        x: what is on the first axis.
        levels: name -> value, dotted across each panel; without them each line's last value is told.
    """
    words = []
    with styled_figure(5.2 + 2.6 * len(panels), 4) as figure:
        for axes, (y, ways) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for (name, points), look in zip(ways.items(), LOOKS, strict=False):
                axes.plot(*zip(*points, strict=True), label=name, **look)
                said = ", ".join(f"{value:.0f} at {where:g}" for where, value in points)
                words.append(f"{y}, {name}: {said}")
                if levels is None:
                    place = {"xytext": (8, -4), "textcoords": "offset points"}
                    axes.annotate(f"{points[-1][1]:.0f}", points[-1], **place)
            places = [where for where, _ in points]
            for name, level in (levels or {}).items():
                axes.axhline(level, color=QUIET, linestyle=":", linewidth=1.4)
                axes.annotate(name, (places[0], level), (0, -14), textcoords="offset points")
                words.append(f"{name}: {level:.0f}")
            axes.set_xscale("log", base=2)
            axes.set_xticks(places, [f"{where:g}" for where in places])
            highest = max(value for points in ways.values() for _, value in points)
            axes.set(xlabel=x, ylabel=y, ylim=(0, 1.12 * highest))
        figure.axes[0].legend()
    return with_description(figure, f"Over {x}. {'; '.join(words)}.")
