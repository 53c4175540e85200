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
from serial_lora_course.plots.style import (
    INK,
    METHOD_LOOKS,
    OTHER_LOOK,
    QUIET,
    styled_figure,
    with_description,
)

SET_COLOURS, MARKERS = matplotlib.colormaps["Dark2"], "osD^vP*X"
"""Of the data sets, in their order."""
LOOKS = {
    "Serial LoRA": METHOD_LOOKS["serial_lora"],
    "LoRA": METHOD_LOOKS["lora"],
    "LoRA of the same size": METHOD_LOOKS["lora_equal_budget"],
    "zero-shot": {"color": QUIET, "marker": "X", "linestyle": ":"},
}
"""Of methods, by what the lesson calls them; all others look alike."""


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


def plot_over_shots(accuracy: pd.DataFrame, ours: str, rival: str) -> Figure:
    """Each method's mean accuracy over the shots; and our lead over one rival, draw by draw.

    On the right each data set has its own column of dots, a dot for each draw; above them stands in how many
    draws our method is ahead, and in how many behind.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
        ours, rival: of the columns; the lead of one over the other is drawn.
    """
    shots, sets = (list(accuracy.index.unique(level)) for level in ("shots", "dataset"))
    means, places = accuracy.groupby("shots").mean(), range(len(shots))
    order = list(means.iloc[-1].sort_values(ascending=False).index)
    lead = (accuracy[ours] - accuracy[rival]).round(6)  # as many right are no lead
    with styled_figure(10, 4.8) as figure:
        left, right = figure.subplots(1, 2)
        for name in order:
            look = LOOKS.get(name, OTHER_LOOK)
            left.plot(places, means[name], linewidth=2, label=name, **look)
        left.set(title="What beats what: mean accuracy", ylabel="accuracy (%)")
        left.legend(fontsize=9)

        right.axhline(0, color=INK, linewidth=1)
        for i, name in enumerate(sets):
            own = lead.xs(name, level="dataset")
            aside = 0.8 * ((i + 0.5) / len(sets) - 0.5)
            across = [shots.index(each) + aside for each in own.index.get_level_values("shots")]
            look = {"color": SET_COLOURS(i), "marker": MARKERS[i % len(MARKERS)]}
            right.scatter(across, own, s=14, label=name, **look)
        ahead = lead.groupby("shots").mean()
        right.plot(places, ahead, color=INK, linewidth=2.5, alpha=0.8, label="mean")
        counts = []
        for place, (_, draws) in enumerate(lead.groupby("shots")):
            counts.append(f"{(draws > 0).sum()}:{(draws < 0).sum()}")
            above = {"transform": right.get_xaxis_transform(), "va": "bottom", "ha": "center"}
            right.text(place, 1, counts[-1], color=QUIET, fontsize=9, **above)
        right.set_title(f"Ahead of {rival}", pad=18)
        right.set_ylabel(f"points that {ours} is ahead")
        beside = {"transform": right.transAxes, "va": "bottom", "ha": "right"}
        right.text(-0.01, 1, "ahead:behind", color=QUIET, fontsize=9, **beside)
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=len(labels), fontsize=9)
        for axes in (left, right):
            axes.set_xticks(places, [str(each) for each in shots])
            axes.set_xlabel("shots")
            axes.grid(axis="x", visible=False)
    curves = "; ".join(f"{name}: {', '.join(f'{v:.1f}' for v in means[name])}" for name in order)
    return with_description(
        figure,
        f"Mean accuracy in percent over the shots {shots}. {curves}. {ours} over {rival}, a dot for each"
        f" draw on each data set: mean lead {_in_words(ahead)}; draws ahead and behind:"
        f" {', '.join(counts)}; one draw: from {_in_words((lead.min(),))} to {_in_words((lead.max(),))}.",
    )


def _in_words(values: Iterable[float]) -> str:
    """Values with their sign and one decimal, in their order; what is rounded to zero has no minus."""
    return ", ".join(f"{value:+z.1f}" for value in values)
