"""What adapting changed: pictures, confusion matrices, and gains beside differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from serial_lora_course.data.types import Pictures
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import BLUE, INK, VERMILION, house_style, with_description


def plot_confusion(labels: Tensor, guesses: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """A confusion matrix for each classifier: rows are true classes, columns predicted ones.

    Args:
        labels: (N,), the right classes.
        guesses: a title to the classes that are given, (N,).
        names: of the classes.
    """
    count, rights = len(names), []
    with house_style():
        figure = Figure(figsize=(5 * len(guesses), 4.6), layout="constrained")
        panels = figure.subplots(1, len(guesses), sharey=True, squeeze=False)[0]
        for axes, (title, given) in zip(panels, guesses.items(), strict=True):
            pairs = torch.bincount(labels * count + given, minlength=count**2)
            counts = pairs.view(count, count)
            axes.imshow(counts, cmap="Blues", vmin=0, vmax=int(counts.sum(1).max()))
            axes.grid(False)
            axes.set_xticks(range(count), names, rotation=40, ha="right")
            axes.set_yticks(range(count), names)
            rights.append(f"{title}: {int(counts.trace())} of {len(labels)} right")
            axes.set(title=rights[-1], xlabel="predicted class")
            for row, column in counts.nonzero().tolist():
                value = int(counts[row, column])
                ink = "white" if value > counts.max() / 2 else "black"
                axes.text(column, row, value, ha="center", va="center", color=ink)
        panels[0].set_ylabel("true class")
    return with_description(figure, f"Confusion matrices. On the diagonal, {'; '.join(rights)}.")


def show_changes(
    what: str,
    pictures: Pictures,
    indices: Sequence[int],
    before: Tensor,
    after: Tensor,
    names: Sequence[str],
) -> Figure:
    """Up to eight pictures whose predicted class has changed, with the class before and now.

    Args:
        what: of the change, for the description.
        indices: of the pictures to choose from, evenly; at least one.
        before, after: (N,), the classes given.
    """
    chosen = indices[:: -(-len(indices) // 8)]
    short = [name.removeprefix("a ").removeprefix("an ") for name in names]
    titles = [f"was: {short[before[i]]}\nnow: {short[after[i]]}" for i in chosen]
    figure = show_pictures([pictures[i][0] for i in chosen], titles, columns=4, size=2.0)
    figure.suptitle(f"{what} ({len(chosen)} of {len(indices)})", x=0.01, ha="left", weight="bold")
    words = "; ".join(title.replace("\n", ", ") for title in titles)
    return with_description(figure, f"{len(titles)} of {len(indices)}, {what}: {words}.")


def plot_gains(title: str, dots: Mapping[str, pd.Series]) -> Figure:
    """A row of dots for each comparison, in points, and a bar at the mean; the first in another colour."""
    dots = {name: values for name, values in dots.items() if len(values)}
    means = {name: values.mean() for name, values in dots.items()}
    with house_style():
        figure = Figure(figsize=(9, 0.9 + 0.8 * len(dots)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=1)
        for row, (name, values) in enumerate(dots.items()):
            spread = torch.linspace(-0.22, 0.22, len(values)).tolist()
            colour = BLUE if row else VERMILION
            axes.scatter(values, [row + each for each in spread], s=28, color=colour, alpha=0.65)
            axes.plot([means[name]] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=3)
            axes.annotate(f"mean {means[name]:+.1f}", (values.max() + 1, row), va="center")
        axes.set_yticks(range(len(dots)), list(dots))
        axes.set(title=title, xlabel="points of accuracy", ylim=(len(dots) - 0.5, -0.5))
        axes.set_xlim(right=axes.get_xlim()[1] + 6)
        axes.grid(False, axis="y")
    words = "; ".join(
        f"{name}: mean {means[name]:+.1f}, from {values.min():+.0f} to {values.max():+.0f}"
        for name, values in dots.items()
    )
    return with_description(figure, f"{title}. {words} points.")
