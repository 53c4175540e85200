"""Loss curves of one task, on the same axes; and two models' scores against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    QUIET,
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


def plot_agreement(scores: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """What two models say of the same pictures: a panel for each pair, a dot for each picture and class.

    Args:
        scores: title -> the adapted model's scores, and those of its merged copy, of one shape.
    """
    told = []
    with styled_figure(3.8 * len(scores), 3.6) as figure:
        panels = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, (adapted, merged)) in zip(panels, scores.items(), strict=True):
            axes.axline((0, 0), slope=1, color=QUIET, linewidth=1, zorder=0)
            axes.scatter(adapted.flatten(), merged.flatten(), s=5, color=BLUE, linewidths=0)
            axes.set_title(title)
            axes.set_xlabel("score by the adapter")
            told.append(f"{title}: up to {(adapted - merged).abs().max():.1g} apart")
        panels[0].set_ylabel("score after the merge")
    return with_description(figure, f"Scores before and after a merge. {'; '.join(told)}.")
