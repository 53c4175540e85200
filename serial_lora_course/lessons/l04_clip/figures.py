"""Pictures that two classifiers see differently, accuracy over the shots, and leads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

from serial_lora_course.data.types import Pictures
from serial_lora_course.measures.intervals import half_width
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import (
    INK,
    METHOD_LOOKS,
    OTHER_LOOK,
    QUIET,
    styled_figure,
    with_description,
)

SHOT_COLOURS = ("#a6611a", "#5e3c99")
"""Of the fewest shots and the most: no method's."""
LOOKS = {
    "Serial LoRA": METHOD_LOOKS["serial_lora"],
    "LoRA": METHOD_LOOKS["lora"],
    "LoRA of the same size": METHOD_LOOKS["lora_equal_budget"],
    "probe from the sentences": {"color": INK, "marker": "D", "linestyle": "--"},
    "zero-shot": {"color": QUIET, "marker": "X", "linestyle": ":"},
}
"""Of methods, by what the lesson calls them; all others look alike."""


def show_changes(
    what: str,
    pictures: Pictures,
    indices: Sequence[int],
    before: Tensor,
    after: Tensor,
    names: Sequence[str],
    words: tuple[str, str] = ("was", "now"),
) -> Figure:
    """Up to eight pictures to which two classifiers give different classes, with both classes; ✓ is the right one.

    Args:
        what: of the change, for the description.
        indices: of the pictures to choose from, evenly; at least one.
        before, after: (N,), the classes given.
        names: of the classes.
        words: for the two classifiers.
    """
    chosen = indices[:: math.ceil(len(indices) / 8)]
    short = [name.removeprefix("a ").removeprefix("an ") for name in names]
    titles = [
        "\n".join(
            f"{word}: {short[each[i]]}{' ✓' * int(each[i] == pictures.labels[i])}"
            for word, each in zip(words, (before, after), strict=True)
        )
        for i in chosen
    ]
    figure = show_pictures([pictures[i][0] for i in chosen], titles, columns=4, size=2.0)
    figure.suptitle(f"{what}: {len(indices)} pictures", x=0.01, ha="left", weight="bold")
    told = "; ".join(title.replace("\n", ", ") for title in titles)
    return with_description(figure, f"{len(titles)} of {len(indices)}, {what}: {told}.")


def plot_over_shots(accuracy: pd.DataFrame) -> Figure:
    """Each method's accuracy over the shots: the mean of all data sets, and beside it each data set's.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
    """
    accuracy = accuracy.dropna(axis="columns", how="all")
    shots, sets = (list(accuracy.index.unique(level)) for level in ("shots", "dataset"))
    means = accuracy.groupby("shots").mean()
    order = list(means.iloc[-1].sort_values(ascending=False).index)
    columns = math.ceil(len(sets) / 2)
    with styled_figure(11, 4.9) as figure:
        grid = figure.add_gridspec(2, columns + 2)
        large = figure.add_subplot(grid[:, :2])
        for i, name in enumerate([None, *sets]):
            axes, values, width = large, means, 2.0
            if name is not None:
                axes = figure.add_subplot(grid[(i - 1) // columns, 2 + (i - 1) % columns])
                values = accuracy.xs(name, level="dataset").groupby("shots").mean()
                width = 1.2
            for method in order:
                look = LOOKS.get(method, OTHER_LOOK) | {"linewidth": width, "markersize": 3 * width}
                axes.plot(range(len(shots)), values[method], label=method, **look)
            axes.set_title(name or f"Mean of the {len(sets)} data sets")
            axes.set_xticks(range(len(shots)), [str(each) for each in shots])
            axes.grid(axis="x", visible=False)
        large.set(ylabel="accuracy (%)", xlabel="shots")
        handles, names = large.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=9)
    curves = "; ".join(f"{name}: {', '.join(f'{v:.1f}' for v in means[name])}" for name in order)
    return with_description(
        figure, f"Mean accuracy in percent over the shots {shots}, then that of {sets}. {curves}."
    )


def plot_leads(
    accuracy: pd.DataFrame,
    ours: str,
    own: Mapping[tuple[int, str], tuple[float, float]] | None = None,
    home: str = "",
) -> Figure:
    """Our lead over each other method at the fewest shots and at the most: a panel a rival, a row a data set.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
        ours: the column whose lead over the others is drawn.
        own: shots and rival -> our lead in a run of one's own on the data set ``home``, and its ±; a star.
    """
    accuracy = accuracy.dropna(axis="columns", how="all")
    shots, sets = (list(accuracy.index.unique(level)) for level in ("shots", "dataset"))
    ends = accuracy.xs(shots[-1], level="shots").mean().sort_values()
    rivals, told = [name for name in ends.index if name != ours], []
    with styled_figure(11, 1.5 + 0.5 * len(sets)) as figure:
        panels = figure.subplots(1, len(rivals), sharex=True, sharey=True, squeeze=False)[0]
        for axes, rival in zip(panels, rivals, strict=True):
            lead = (accuracy[ours] - accuracy[rival]).round(6)  # as many right are no lead
            axes.axvline(0, color=INK, linewidth=1)
            axes.axhline(len(sets) - 0.5, color=QUIET, linewidth=1)
            for each, colour, shift in zip(
                (shots[0], shots[-1]), SHOT_COLOURS, (-0.2, 0.2), strict=True
            ):
                title = f"{each} shot{'s'[: each > 1]}"
                here = lead.xs(each, level="shots")
                for row, name in enumerate(sets):
                    dots = here.xs(name, level="dataset")
                    axes.scatter(dots, [row + shift] * len(dots), s=15, color=colour, label=title)
                look = {"color": colour, "capsize": 2, "lw": 1}
                if home in sets and (found := dict(own or {}).get((each, rival))):
                    place = sets.index(home) + 1.9 * shift
                    axes.errorbar(found[0], place, xerr=found[1], marker="*", markersize=8, **look)
                    told.append(
                        f"at {each} over {rival} in your run {found[0]:+.1f} ± {found[1]:.1f}"
                    )
                by_set = here.groupby("dataset").mean()
                mean, half = by_set.mean(), float(half_width(by_set.sem(), len(by_set) - 1))
                look |= {"marker": "D", "markersize": 5, "capsize": 4, "lw": 2}
                axes.errorbar(mean, len(sets) + shift, xerr=half, **look)
                told.append(f"at {each} over {rival} {mean:+z.1f} ± {half:.1f}")
            axes.set_title(
                "over " + rival.replace(" of the", "\nof the").replace(" from", "\nfrom")
            )
            axes.grid(axis="y", visible=False)
            axes.tick_params("y", length=0)
        panels[0].set_yticks(range(len(sets) + 1), [*sets, "mean,\n95% interval"])
        panels[0].set_ylim(len(sets) + 0.6, -0.6)
        panels[0].xaxis.set_major_locator(MultipleLocator(20))
        figure.suptitle(f"How far is {ours} ahead?", x=0.01, ha="left", weight="bold")
        figure.supxlabel(f"points that {ours} is ahead", fontsize=11)
        handles, names = panels[0].get_legend_handles_labels()
        once = dict(zip(names, handles, strict=True))
        figure.legend(once.values(), once.keys(), loc="outside lower right", ncols=2, fontsize=9)
    return with_description(
        figure,
        f"The lead of {ours} in points, a dot for each draw on each data set, and the mean with its 95% interval "
        f"over data sets: {'; '.join(told)}.",
    )
