"""What one step of an optimizer does, against the ratio of two learning rates and against width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from serial_lora_course.lessons.l07_lora_plus.steps import slope
from serial_lora_course.plots.results import (
    ZERO_SHOT,
    in_house_order,
    line_with_bars,
    seed_averages,
)
from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    DOTTED,
    INK,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)


def plot_step_by_ratio(steps: pd.DataFrame) -> Figure:
    """Left, how far a step's parts move the product; right, what the step does to the loss.

    Args:
        steps: a row a ratio, with ``ratio``, the sizes ``B's part``, ``A's part`` and ``both``, and
            ``promised`` and ``loss changed by``, the change of the loss to first order and in fact.
    """
    x = steps["ratio"]
    with house_style():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name, colour, line in (
            ("B's part", VERMILION, "o-"),
            ("A's part", BLUE, "s--"),
            ("both", QUIET, "^:"),
        ):
            left.loglog(x, steps[name], line, color=colour, label=name)
        left.set(title="size of the parts of a step")
        right.plot(x, steps["promised"], color=QUIET, linestyle=DOTTED, label="if it were a plane")
        right.plot(x, steps["loss changed by"], "o-", color=VERMILION, label="in fact")
        right.axhline(0, color=QUIET, linewidth=1)
        right.set_xscale("log")
        low = steps["loss changed by"]
        right.set_ylim(
            3 * low.min(), -2 * low.min()
        )  # where it falls; a rise may leave the picture
        right.set(title="the loss changes by")
        for axes in (left, right):
            axes.set_xlabel("rate of B / rate of A")
            axes.set_xticks(x, [f"{ratio:g}" for ratio in x])
            axes.minorticks_off()
            axes.legend()
    best = x[low.idxmin()]
    return with_description(
        figure,
        f"One step of Adam at several ratios: B's part grows with the ratio, A's stays, and the loss falls "
        f"most at a ratio of {best:g}, though the gradient promises a fall at every ratio.",
    )


def plot_step_by_width(
    widths: Sequence[int], effects: Mapping[str, Sequence[Mapping[str, float]]]
) -> Figure:
    """How far one step of A, and one of B, moves the output, against the width, both logarithmic.

    Args:
        effects: title of a method -> for each width the effect of a step of ``A`` and of ``B``.
    """
    said = []
    with house_style():
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for title, name in (("LoRA", "lora"), ("Serial LoRA", "serial_lora")):
            look = method_look(name)
            for matrix, line in (("A", "-"), ("B", ":")):
                values = [effect[matrix] for effect in effects[title]]
                power = slope(widths, values)
                label = f"{title}, step of {matrix}: d to the {power:.2f}"
                axes.loglog(widths, values, **look | {"linestyle": line, "label": label})
                said.append(label)
        axes.set(xlabel="width d", ylabel="change of the output, relative")
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
        axes.legend(fontsize=9)
    return with_description(
        figure, f"Lines on two logarithmic axes, with their slopes. {'; '.join(said)}."
    )


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
    """
    points = seed_averages(frame, ["method", "lr", "ratio"])
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
                line_with_bars(axes, line, "rate_B", looks[rate])
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
    means = points.groupby(["method", "lr", "ratio"])["accuracy"].mean()
    words = "; ".join(
        "{}: best {:.1%} with A at {:g} and a ratio of {:g}".format(
            method_look(method)["label"], means[method].max(), *means[method].idxmax()
        )
        for method in methods
    )
    return with_description(figure, f"Accuracy against the learning rate of B. {words}.")
