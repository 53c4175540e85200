"""Which pictures a classifier puts into which class, before adapting and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import Pictures
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import house_style, with_description

MOST = 8  # pictures that are shown of those that changed


def confusion(labels: Tensor, guesses: Tensor, classes: int) -> Tensor:
    """How often pictures of class i (row) were called class j (column): (C, C)."""
    return torch.bincount(labels * classes + guesses, minlength=classes**2).view(classes, classes)


def plot_confusion(labels: Tensor, guesses: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """A confusion matrix for each classifier: rows are what pictures are, columns what is said.

    Args:
        labels: (N,), the right classes.
        guesses: a title to the classes that are given, (N,).
        names: of the classes.
    """
    ticks, rights = range(len(names)), []
    with house_style():
        figure = Figure(figsize=(5 * len(guesses), 4.6), layout="constrained")
        panels = figure.subplots(1, len(guesses), sharey=True, squeeze=False)[0]
        for axes, (title, given) in zip(panels, guesses.items(), strict=True):
            counts = confusion(labels, given, len(names))
            axes.imshow(counts, cmap="Blues", vmin=0, vmax=int(counts.sum(1).max()))
            axes.grid(False)
            axes.set_xticks(ticks, names, rotation=40, ha="right")
            axes.set_yticks(ticks, names)
            rights.append(f"{title}: {int(counts.trace())} of {len(labels)} right")
            axes.set(title=rights[-1], xlabel="what the model says")
            for row, column in counts.nonzero().tolist():
                value = int(counts[row, column])
                ink = "white" if value > counts.max() / 2 else "black"
                axes.text(column, row, value, ha="center", va="center", color=ink)
        panels[0].set_ylabel("what it is")
    return with_description(figure, f"Confusion matrices. On the diagonal, {'; '.join(rights)}.")


def show_changes(
    pictures: Pictures,
    indices: Sequence[int],
    before: Tensor,
    after: Tensor,
    names: Sequence[str],
) -> Figure:
    """Some pictures whose class has changed, each with what it is, what was said and what is now.

    Args:
        indices: of the pictures to choose from, evenly.
        before, after: (N,), the classes given.

    Raises:
        SerialLoRAError: there is no picture.
    """
    if not len(indices):
        raise SerialLoRAError("no picture changed; there is nothing to show.")
    chosen = indices[:: -(-len(indices) // MOST)]
    short = [name.removeprefix("a ").removeprefix("an ") for name in names]
    titles = [
        f"{short[pictures.labels[i]]}\nwas: {short[before[i]]}\nnow: {short[after[i]]}"
        for i in chosen
    ]
    figure = show_pictures([pictures[i][0] for i in chosen], titles, columns=4, size=2.0)
    words = "; ".join(title.replace("\n", ", ") for title in titles)
    return with_description(figure, f"{len(titles)} of {len(indices)} that changed: {words}.")
