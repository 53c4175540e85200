"""A classifier's answers, on the pictures themselves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL.Image import Image
from torch import Tensor

from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import GREEN, VERMILION, with_description


def show_predictions(
    pictures: Sequence[Image], shares: Tensor, labels: Tensor, class_names: Sequence[str]
) -> Figure:
    """A grid of pictures, each with its answer above it and a frame that says whether it is right.

    Args:
        shares: (N, C) probabilities.
        labels: (N,) the right classes.
    """
    best = shares.max(-1)
    answers = [class_names[i].replace("_", " ") for i in best.indices]
    titles = [f"{name}, {sure:.0%}" for name, sure in zip(answers, best.values, strict=True)]
    figure = show_pictures(pictures, titles, size=1.25)
    right = (best.indices == labels).tolist()
    for axes, good in zip(figure.axes, right, strict=False):
        colour = GREEN if good else VERMILION
        axes.title.set(color=colour, fontsize=8)
        axes.axis("on")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(visible=True, color=colour, linewidth=3)
    said = f"{sum(right)} of {len(right)} answers are right: {'; '.join(titles)}."
    return with_description(figure, said)
