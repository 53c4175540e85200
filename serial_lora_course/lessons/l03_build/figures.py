"""Loss curves of one task, on the same axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = ((INK, "-"), (VERMILION, "-"), (BLUE, DASHED), (GREEN, ":"))


def plot_losses(curves: Mapping[str, Sequence[float]]) -> Figure:
    """The loss of every step: a line for each run, four at most.

    Args:
        curves: name -> losses.
    """
    with styled_figure(5.6, 2.8) as figure:
        axes = figure.subplots()
        for (name, losses), (color, line) in zip(curves.items(), LOOKS, strict=False):
            axes.plot(losses, color=color, linestyle=line, linewidth=2, label=name)
        axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
        figure.legend(loc="outside right upper")
    said = (f"{name} from {losses[0]:.2f} to {losses[-1]:.2f}" for name, losses in curves.items())
    return with_description(figure, f"Loss over the steps: {'; '.join(said)}.")
