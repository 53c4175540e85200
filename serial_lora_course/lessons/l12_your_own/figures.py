"""A classifier's answers on the pictures themselves, and methods on the same draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL.Image import Image
from torch import Tensor

from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)


def show_predictions(
    pictures: Sequence[Image], shares: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Figure:
    """A grid of pictures, each with its answer above it, the true class if it is wrong, and a frame.

    Args:
        shares: (N, C) probabilities.
        labels: (N,) the right classes.
    """
    best = shares.max(-1)
    answers = [class_names[i].replace("_", " ") for i in best.indices]
    right = (best.indices == labels).tolist()
    marks = ["✓" if good else "✗" for good in right]
    rows = zip(answers, best.values, marks, strict=True)
    titles = [f"{name}\n{sure:.0%} {mark}" for name, sure, mark in rows]
    for i, label in enumerate(labels):
        titles[i] += "" if right[i] else f"\n({class_names[label].replace('_', ' ')})"
    figure = show_pictures(pictures, titles, size=1.25)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, 1.22 * height)  # room for a third line
    for axes, good in zip(figure.axes, right, strict=False):
        colour = GREEN if good else VERMILION
        axes.title.set(color=colour, fontsize=8)
        axes.axis("on")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=colour, linewidth=3)
    told = "; ".join(titles).replace("\n", ", ")
    said = f"{sum(right)} of {len(right)} answers are right: {told}."
    return with_description(figure, said)


def plot_seeds(accuracies: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """A panel for each question, a row for each method, a dot for each draw; lines join a draw's.

    Args:
        accuracies: question -> method -> accuracy in per cent, one a draw.
    """
    looks = ((GREEN, "^"), (BLUE, "s"), (VERMILION, "o"))
    with styled_figure(9, 2.4) as figure:
        panels = figure.subplots(1, len(accuracies), sharex=True, sharey=True)
        for axes, (question, methods) in zip(panels, accuracies.items(), strict=True):
            for draw in zip(*methods.values(), strict=True):
                axes.plot(draw, range(len(methods)), color=QUIET, linewidth=1, zorder=0)
            for row, (name, (colour, marker)) in enumerate(zip(methods, looks, strict=False)):
                heights = [row] * len(methods[name])
                axes.scatter(methods[name], heights, color=colour, marker=marker, s=60, alpha=0.7)
            axes.set(title=question, xlabel="accuracy (%)", ylim=(len(methods) - 0.5, -0.5))
            axes.set_yticks(range(len(methods)), list(methods))
    said = [
        f"{question}, {name}: {', '.join(f'{each:.1f}' for each in found)}"
        for question, methods in accuracies.items()
        for name, found in methods.items()
    ]
    return with_description(figure, f"Accuracy in per cent, draw by draw. {'; '.join(said)}.")
