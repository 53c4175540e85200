"""How well some ranks learn one change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from serial_lora_course.plots.style import (
    house_style,
    with_description,
)


def plot_losses(curves: Mapping[int, Sequence[float]], title: str) -> Figure:
    """Loss over training steps on a log scale, one curve a rank.

    Args:
        curves: rank -> the loss of each step, all above zero.
    """
    lines = (":", "-.", "-", "--")
    with house_style():
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        for place, (rank, losses) in enumerate(curves.items()):
            axes.semilogy(losses, lines[place % 4], linewidth=2, label=f"rank {rank}")
        axes.set(xlabel="step", ylabel="mean squared error", title=title)
        axes.legend(title="Serial LoRA")
    ends = "; ".join(f"rank {rank} ends at {losses[-1]:.1e}" for rank, losses in curves.items())
    return with_description(
        figure, f"{title}: loss over training steps on a log scale, one curve a rank. {ends}."
    )
