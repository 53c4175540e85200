"""Pictures that two classifiers see differently, and leads over the shots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from serial_lora_course.data.types import Pictures
from serial_lora_course.measures.intervals import half_width
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import (
    BLUE,
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
    """Up to eight pictures to which two classifiers give different classes, with both classes.

    Args:
        what: of the change, for the description.
        indices: of the pictures to choose from, evenly; at least one.
        before, after: (N,), the classes given.
        names: of the classes.
        words: for the two classifiers.
    """
    chosen = indices[:: math.ceil(len(indices) / 8)]
    short = [name.removeprefix("a ").removeprefix("an ") for name in names]
    titles = [f"{words[0]}: {short[before[i]]}\n{words[1]}: {short[after[i]]}" for i in chosen]
    figure = show_pictures([pictures[i][0] for i in chosen], titles, columns=4, size=2.0)
    figure.suptitle(f"{what} ({len(chosen)} of {len(indices)})", x=0.01, ha="left", weight="bold")
    told = "; ".join(title.replace("\n", ", ") for title in titles)
    return with_description(figure, f"{len(titles)} of {len(indices)}, {what}: {told}.")


def plot_over_shots(
    accuracy: pd.DataFrame,
    ours: str,
    own: Mapping[tuple[int, str], tuple[float, float]] | None = None,
) -> Figure:
    """Each method's mean accuracy over the shots; and our lead over every other, at the fewest and the most.

    In the row of a rival each data set has its own line of dots, a dot for each draw. The black dot below them is
    the mean, with its 95% interval over the data sets, each the mean of its draws. At the right stands in how
    many draws our method is ahead, and in how many behind.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
        ours: the column whose lead over the others is drawn.
        own: shots and rival -> our lead in a run of one's own, and its ±; a star. A rival that only this run has
            gets a row too.
    """
    accuracy = accuracy.dropna(axis="columns", how="all")
    shots, sets = (list(accuracy.index.unique(level)) for level in ("shots", "dataset"))
    means, places = accuracy.groupby("shots").mean(), range(len(shots))
    order = list(means.iloc[-1].sort_values(ascending=False).index)
    rivals, told, own = [name for name in reversed(order) if name != ours], [], dict(own or {})
    rivals += [name for name in dict(each[::-1] for each in own) if name not in (ours, *rivals)]
    with styled_figure(11, 1.4 + 0.85 * len(rivals)) as figure:
        left, *panels = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
        for name in order:
            look = LOOKS.get(name, OTHER_LOOK)
            left.plot(places, means[name], linewidth=2, label=name, **look)
        left.set(title="What beats what: mean accuracy", ylabel="accuracy (%)", xlabel="shots")
        left.set_xticks(places, [str(each) for each in shots])
        left.grid(axis="x", visible=False)
        left.legend(fontsize=9)

        panels[1].sharex(panels[0])
        for axes, each in zip(panels, (shots[0], shots[-1]), strict=True):
            axes.axvline(0, color=INK, linewidth=1)
            for row, rival in enumerate(rivals):
                axes.axhline(row + 0.5, color="#dddddd", linewidth=0.8, zorder=0)
                if found := own.get((each, rival)):
                    look = {
                        "color": BLUE,
                        "marker": "*",
                        "markersize": 11,
                        "lw": 1,
                        "capsize": 2,
                    }
                    height = row + 0.38 * (rival in accuracy)
                    axes.errorbar(found[0], height, xerr=found[1], label="your run ±", **look)
                    told.append(
                        f"at {each} over {rival} in your run {found[0]:+.1f} ± {found[1]:.1f}"
                    )
                if rival not in accuracy:
                    continue
                lead = (accuracy[ours] - accuracy[rival]).round(6)  # as many right are no lead
                lead = lead.xs(each, level="shots")
                for i, name in enumerate(sets):
                    dots = lead.xs(name, level="dataset")
                    look = {"color": SET_COLOURS(i), "marker": MARKERS[i % len(MARKERS)]}
                    height = row - 0.42 + 0.52 * i / len(sets)
                    axes.scatter(dots, [height] * len(dots), s=14, label=name, **look)
                by_set = lead.groupby("dataset").mean()
                mean, half = by_set.mean(), float(half_width(by_set.sem(), len(by_set) - 1))
                look = {"color": INK, "marker": "o", "markersize": 5, "capsize": 4, "lw": 2}
                axes.errorbar(mean, row + 0.2, xerr=half, label="mean, 95% interval", **look)
                counts = f"{(lead > 0).sum()}:{(lead < 0).sum()}"
                beside = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "left"}
                axes.text(1.02, row, counts, color=QUIET, fontsize=9, **beside)
                told.append(
                    f"at {each} over {rival} {mean:+z.1f} ± {half:.1f}, draws ahead and behind {counts}"
                )
            axes.set(ylim=(len(rivals) - 0.4, -0.6), xlabel=f"points that {ours} is ahead")
            corner = {"transform": axes.transAxes, "va": "bottom", "ha": "right"}
            axes.text(1.14, 1, "ahead:\nbehind", color=QUIET, fontsize=9, **corner)
            axes.set_title(f"Lead at {each} shot{'s'[: each > 1]} over …")
            axes.set_yticks(range(len(rivals)), [])
            axes.grid(axis="y", visible=False)
            axes.tick_params("y", length=0)
        panels[0].set_yticklabels(
            [
                name.replace(" of the", "\nof the").replace(" from the", "\nfrom the")
                for name in rivals
            ]
        )
        handles, labels = panels[0].get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        look = {"loc": "outside lower right", "ncols": len(once), "fontsize": 9}
        figure.legend(once.values(), once.keys(), **look)
    curves = "; ".join(f"{name}: {', '.join(f'{v:.1f}' for v in means[name])}" for name in order)
    return with_description(
        figure,
        f"Mean accuracy in percent over the shots {shots}. {curves}. The lead of {ours}, a dot for each draw on "
        f"each data set, and the mean with its 95% interval over data sets: {'; '.join(told)}.",
    )
