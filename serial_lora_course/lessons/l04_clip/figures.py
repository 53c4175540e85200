"""What adapting changed: pictures, confusion matrices, and leads over the shots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from serial_lora_course.data.types import Pictures
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import INK, QUIET, styled_figure, with_description

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


def plot_leads(accuracy: pd.DataFrame, ours: str, rivals: Sequence[str]) -> Figure:
    """How far one method is ahead of others over the shots: a dot for each draw on each data set, and the mean.

    Each data set has its own column of dots; above them stands in how many draws the method is ahead, and
    in how many behind. All panels have one scale.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
        ours: the method whose lead is drawn.
        rivals: over which, of the columns.
    """
    shots, sets = (list(accuracy.index.unique(level)) for level in ("shots", "dataset"))
    words, count_style = [], {"va": "bottom", "color": QUIET, "fontsize": 9}
    with styled_figure(10, 5) as figure:
        panels = figure.subplots(1, len(rivals), sharey=True, squeeze=False)[0]
        for axes, rival in zip(panels, rivals, strict=True):
            lead = (accuracy[ours] - accuracy[rival]).round(6)  # as many right are no lead
            axes.axhline(0, color=INK, linewidth=1)
            for i, name in enumerate(sets):
                own = lead.xs(name, level="dataset")
                aside = 0.8 * ((i + 0.5) / len(sets) - 0.5)
                places = [shots.index(each) + aside for each in own.index.get_level_values("shots")]
                look = {"color": SET_COLOURS(i), "marker": MARKERS[i % len(MARKERS)]}
                axes.scatter(places, own, s=14, label=name, **look)
            means = lead.groupby("shots").mean()
            axes.plot(range(len(shots)), means, color=INK, linewidth=2.5, alpha=0.8, label="mean")
            counts = []
            for place, (_, draws) in enumerate(lead.groupby("shots")):
                counts.append(f"{(draws > 0).sum()}:{(draws < 0).sum()}")
                above = {"transform": axes.get_xaxis_transform(), **count_style}
                axes.text(place, 1, counts[-1], ha="center", **above)
            axes.set_title(f"Ahead of {rival}", pad=18)
            axes.set_xticks(range(len(shots)), [str(each) for each in shots])
            axes.set_xlabel("shots")
            axes.grid(axis="x", visible=False)
            words.append(f"Mean lead over {rival}: {_in_words(means)}; draws ahead and behind:")
            words.append(f"{', '.join(counts)}; one draw: from {_in_words((lead.min(),))} to")
            words.append(f"{_in_words((lead.max(),))}.")
        left = {"transform": panels[0].transAxes, **count_style}
        panels[0].text(-0.01, 1, "ahead:behind", ha="right", **left)
        panels[0].set_ylabel(f"points that {ours} is ahead")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    start = f"{ours} over the shots {shots}, a dot for each draw on each data set, and the mean."
    return with_description(figure, " ".join([start, *words]))


def _in_words(values: Iterable[float]) -> str:
    """Values with their sign and one decimal, in their order; what is rounded to zero has no minus."""
    return ", ".join(f"{value:+z.1f}" for value in values)
