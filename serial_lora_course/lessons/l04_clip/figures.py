"""What adapting changed: pictures, confusion matrices, and curves over the shots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from serial_lora_course.data.types import Pictures
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = {"zero-shot": QUIET, "linear probe": INK, "LoRA": BLUE, "Serial LoRA": VERMILION}
"""Of the classifiers that are compared one by one; those of any other are green."""

SET_COLOURS, MARKERS = matplotlib.colormaps["Dark2"], "osD^vP*X"
"""Of the data sets, in their order."""


def plot_confusion(labels: Tensor, guesses: Mapping[str, Tensor], names: Sequence[str]) -> Figure:
    """A confusion matrix for each classifier: rows are true classes, columns predicted ones.

    A cell is as dark as its share of the row.

    Args:
        labels: (N,), the right classes.
        guesses: a title to the classes that are given, (N,).
        names: of the classes.
    """
    count, rights = len(names), []
    with styled_figure(5 * len(guesses), 4.6) as figure:
        panels = figure.subplots(1, len(guesses), sharey=True, squeeze=False)[0]
        for axes, (title, given) in zip(panels, guesses.items(), strict=True):
            pairs = torch.bincount(labels * count + given, minlength=count**2)
            counts = pairs.view(count, count)
            shares = counts / counts.sum(1, keepdim=True).clamp(min=1)  # of a true class
            axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            axes.grid(False)
            axes.set_xticks(range(count), names, rotation=40, ha="right")
            axes.set_yticks(range(count), names)
            rights.append(f"{title}: {int(counts.trace())} of {len(labels)} right")
            axes.set(title=rights[-1], xlabel="predicted class")
            for row, column in counts.nonzero().tolist():
                ink = "white" if shares[row, column] > 0.5 else "black"
                value = int(counts[row, column])
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
    chosen = indices[:: math.ceil(len(indices) / 8)]
    short = [name.removeprefix("a ").removeprefix("an ") for name in names]
    titles = [f"was: {short[before[i]]}\nnow: {short[after[i]]}" for i in chosen]
    figure = show_pictures([pictures[i][0] for i in chosen], titles, columns=4, size=2.0)
    figure.suptitle(f"{what} ({len(chosen)} of {len(indices)})", x=0.01, ha="left", weight="bold")
    words = "; ".join(title.replace("\n", ", ") for title in titles)
    return with_description(figure, f"{len(titles)} of {len(indices)}, {what}: {words}.")


def plot_shots(accuracy: pd.DataFrame, ours: str, rivals: Sequence[str]) -> Figure:
    """Mean accuracy over the shots, then the lead of one method over each of up to three others.

    A lead is over the seeds' mean on a data set: a thin line for each set, a thick one for their mean. All
    leads have one scale.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
        ours: the method whose lead is drawn.
        rivals: over which, of the columns.
    """
    sets = accuracy.groupby(["dataset", "shots"]).mean()  # over the seeds
    means = sets.groupby("shots").mean()
    looks = {
        name: {"color": SET_COLOURS(i), "marker": MARKERS[i % len(MARKERS)], "markersize": 5}
        for i, name in enumerate(sets.index.unique("dataset"))
    }
    words = [f"{ours} over the shots {list(means.index)}: {_in_words(means[ours])}."]
    with styled_figure(9.5, 8) as figure:
        first, *others = figure.subplots(2, 2, sharex=True).flat
        for name, values in means.items():
            style = {"color": COLOURS.get(name, GREEN), "marker": "o", "markersize": 4}
            first.plot(values, linestyle=":" if name == "zero-shot" else "-", label=name, **style)
        first.set(title=f"Mean of {len(looks)} data sets", ylabel="accuracy in percent")
        first.legend(fontsize=9)
        for axes, name in zip(others, rivals, strict=False):
            lead = (sets[ours] - sets[name]).dropna().unstack("dataset")  # (shots, sets)
            axes.axhline(0, color=INK, linewidth=1)
            for each, values in lead.items():
                axes.plot(values, linewidth=1, **looks[each])
            axes.plot(lead.mean(axis=1), color=INK, linewidth=3)
            axes.set(title=f"{ours} ahead of {name}", ylabel="points of accuracy")
            axes.sharey(others[0])
            words.append(f"Its mean lead over {name}: {_in_words(lead.mean(axis=1), '+')};")
            extremes = lead.min().min(), lead.max().max()
            words.append(f"its lowest and highest: {_in_words(extremes, '+')}.")
        handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
        handles.append(Line2D([], [], label="mean", color=INK, linewidth=3))
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
        for axes in figure.axes:
            axes.set_xscale("log", base=2)
            axes.set_xticks(means.index, [str(shots) for shots in means.index])
            axes.minorticks_off()
        for axes in figure.axes[2:]:
            axes.set_xlabel("shots")
        for axes in others[len(rivals) :]:
            axes.set_visible(False)
    return with_description(figure, " ".join(words))


def _in_words(values: Iterable[float], sign: str = "") -> str:
    """Values with one decimal, in their order; what is rounded to zero has no minus."""
    return ", ".join(f"{value:{sign}z.1f}" for value in values)
