"""Drawings that two methods see differently, a probe's pull, accuracy over the shots, leads, and unseen kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from serial_lora_course.data.types import DividedData
from serial_lora_course.plots.pictures import show_pictures
from serial_lora_course.plots.style import (
    GREEN,
    INK,
    METHOD_LOOKS,
    OTHER_LOOK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = {
    "Serial LoRA": METHOD_LOOKS["serial_lora"],
    "LoRA of the same size": METHOD_LOOKS["lora"],
    "probe from the sentences": {"color": INK, "marker": "D", "linestyle": "--"},
    "probe from zero": {"color": "#8c564b", "marker": "^", "linestyle": "-."},
    "zero-shot": {"color": QUIET, "marker": "X", "linestyle": ":"},
    "image tower only": {"color": "#e69f00", "marker": ">", "linestyle": "none"},
    "text tower only": {"color": "#009e73", "marker": "<", "linestyle": "none"},
}
"""Of methods, by what the lesson calls them; full fine-tuning looks like all others."""


def show_disputed(data: DividedData, answers: Mapping[str, Sequence[int]]) -> Figure:
    """The test pictures that just one of two classifiers has right, with both answers; ✓ is the right one.

    Args:
        answers: of each, by its name: the class of every picture.
    """
    short = [name.removeprefix("a ").removeprefix("an ") for name in data.class_names]
    titles: list[dict[int, str]] = [{}, {}]  # where the first is right, where the second
    for i, (label, *two) in enumerate(zip(data.test.labels, *answers.values(), strict=True)):
        if (two[0] == label) != (two[1] == label):
            told = zip(answers, two, strict=True)
            title = "\n".join(f"{a}: {short[c]}{' ✓' * (c == label)}" for a, c in told)
            titles[two[1] == label][i] = title
    both = titles[0] | titles[1]
    figure = show_pictures([data.test[i][0] for i in both], [*both.values()], columns=6, size=1.75)
    sums = [sum(map(int.__eq__, each, data.test.labels)) for each in answers.values()]
    told = [
        f"{a} has {count} of {len(data.test)} right" for a, count in zip(answers, sums, strict=True)
    ]
    figure.suptitle(f"{'; '.join(told)}", x=0.01, ha="left", weight="bold")
    listed = "; ".join(title.replace("\n", ", ") for title in both.values())
    return with_description(figure, f"{'; '.join(told)}. Only one is right on these: {listed}.")


def plot_pull(
    right: Mapping[tuple[int, str], Sequence[int]],
    chosen: Mapping[tuple[int, str], float],
    alphas: Sequence[float],
    zero: int,
    count: int,
) -> Figure:
    """How many test pictures a probe has right at each α: a panel for each number of shots, a line for each start.

    Args:
        right: (shots, start) -> one number for each of ``alphas``.
        chosen: (shots, start) -> the α that the training pictures chose.
        zero: right without any label, of ``count``.
    """
    shots = list(dict.fromkeys(each for each, _ in right))
    with styled_figure(9, 3.2) as figure:
        panels = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
        for axes, each in zip(panels, shots, strict=True):
            axes.axhline(zero, color=QUIET, linestyle=":", label="zero-shot")
            for (where, start), line in right.items():
                if where == each:
                    look = LOOKS[start] | {"marker": None}
                    axes.plot(alphas, line, label=start, **look)
                    best = chosen[where, start]
                    axes.plot(best, line[alphas.index(best)], "o", color=look["color"], ms=8)
            axes.set(xscale="log", xlabel="α", title=f"{each} shot{'s'[: each > 1]}")
        panels[0].set_ylabel(f"right of {count}")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9)
    lines = "; ".join(f"{s}, {n} shots: {list(line)}" for (n, s), line in right.items())
    return with_description(
        figure,
        f"Right of {count} at α {list(alphas)}, zero-shot {zero}, a dot at the chosen α. {lines}.",
    )


def plot_over_shots(accuracy: pd.DataFrame) -> Figure:
    """Each method's accuracy over the shots, a mean of all data sets.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
    """
    means = accuracy.dropna(axis="columns", how="all").groupby("shots").mean()
    order = list(means.iloc[-1].sort_values(ascending=False).index)
    with styled_figure(8.5, 3.9) as figure:
        axes = figure.subplots()
        for method in order:
            axes.plot(
                range(len(means)), means[method], label=method, **LOOKS.get(method, OTHER_LOOK)
            )
        axes.set_xticks(range(len(means)), [str(each) for each in means.index])
        sets = accuracy.index.unique("dataset")
        axes.set(xlabel="shots", ylabel="accuracy (%)", title=f"Mean of the {len(sets)} data sets")
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside right center", fontsize=9)
    curves = "; ".join(f"{name}: {', '.join(f'{v:.1f}' for v in means[name])}" for name in order)
    return with_description(figure, f"Mean accuracy over the shots {list(means.index)}: {curves}.")


def plot_leads(pairs: Mapping[str, pd.DataFrame], unit: str) -> Figure:
    """Each method's lead over each before it, and its ±; a colour where the lead is more than the ±.

    Args:
        pairs: a panel each: rows and columns are methods, and a cell is (the row's lead over the column, its ±).
        unit: of the leads.
    """
    told = []
    with styled_figure(5.6 * len(pairs), 4.3) as figure:
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axes, (title, table) in zip(panels, pairs.items(), strict=True):
            names = list(table.index)
            for i, ours in enumerate(names[1:]):
                for j, theirs in enumerate(names[: i + 1]):
                    lead, half = table.loc[ours, theirs]
                    sure = abs(lead) > half
                    colour = (GREEN if lead > 0 else VERMILION) if sure else "#e8e8e8"
                    axes.barh(i, 0.94, 0.92, j - 0.47, color=colour, alpha=0.45 if sure else 1)
                    axes.text(
                        j,
                        i,
                        f"{lead:+z.0f}\n± {half:.0f}"
                        if unit == "pictures"
                        else f"{lead:+z.1f}\n± {half:.1f}",
                        ha="center",
                        va="center",
                        fontsize=9,
                    )
                    told.append(f"{title}, {ours} over {theirs} {lead:+z.1f} ± {half:.1f}")
            axes.set_xticks(range(len(names) - 1), [fill(n, 10) for n in names[:-1]], fontsize=8)
            axes.set_yticks(range(len(names) - 1), [fill(n, 12) for n in names[1:]], fontsize=8)
            axes.set(title=title, ylim=(len(names) - 1.5, -0.5))
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        figure.suptitle(
            f"The row's lead over the column, in {unit}; coloured where more than its ±, "
            f"over other {'test pictures' if unit == 'pictures' else 'data sets'}",
            x=0.01,
            ha="left",
            fontsize=11,
        )
    return with_description(figure, f"Leads in {unit}. {'; '.join(told)}.")


def plot_unseen(gains: pd.DataFrame) -> Figure:
    """What training on half of the kinds gains on the other half: a row a data set, and the mean with its interval.

    Args:
        gains: in points; a row for each (method, dataset, half, seed), with a column ``unseen``.
    """
    methods = list(gains["method"].unique())
    table = gains.groupby(["dataset", "method"])["unseen"].mean().unstack()[methods]
    table = table.loc[table[methods[0]].sort_values().index]
    half = stats.t.ppf(0.975, len(table) - 1) * table.std() / len(table) ** 0.5
    told = []
    with styled_figure(8.5, 5) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=QUIET, linewidth=1, label="zero-shot, and any probe")
        for i, method in enumerate(methods):
            look = LOOKS.get(method, OTHER_LOOK) | {"linestyle": "none"}
            rows = [row + 0.15 * ((len(methods) - 1) / 2 - i) for row in range(len(table) + 1)]
            axes.plot(table[method], rows[1:], ms=6, label=method, **look)
            mean = table[method].mean()
            axes.errorbar(mean, rows[0], xerr=half[method], ms=8, capsize=3, lw=1.5, **look)
            told.append(f"{method} {mean:+z.1f} ± {half[method]:.1f}")
        axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
        axes.set_yticks(range(len(table) + 1), ["mean, and\nits interval", *table.index])
        axes.set(xlabel="points gained over zero-shot", title="On kinds without labels")
        axes.grid(axis="y", visible=False)
        figure.legend(loc="outside right center", fontsize=9)
    said = "Points gained over zero-shot on kinds without labels, mean of the data sets"
    return with_description(figure, f"{said}: {'; '.join(told)}.")
