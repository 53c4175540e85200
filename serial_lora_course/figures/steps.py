"""What one step of an optimizer does, against the ratio of two learning rates and against width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.figures.style import (
    BLUE,
    DOTTED,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)
from serial_lora_course.labs.steps import slope


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
    best = steps.loc[low.idxmin()]
    rose = steps.loc[low > 0, "ratio"]
    words = (
        f"the loss rises at {', '.join(f'{r:g}' for r in rose)}" if len(rose) else "it never rises"
    )
    return with_description(
        figure,
        f"One step of Adam at several ratios. B's part grows with the ratio, A's stays. The loss falls most "
        f"at a ratio of {best['ratio']:g}, {best['loss changed by'] / low.iloc[0]:.1f} times as much as at "
        f"{x.iloc[0]:g}; {words}, though the gradient promises a fall at every ratio.",
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
