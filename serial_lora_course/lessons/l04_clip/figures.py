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
    """Each method's lead over each before it, its ±, and how many are for it and against it.

    Args:
        pairs: a panel each: rows and columns are methods, and a cell is (the row's lead over the column, its ±, how
            many speak for the row, how many for the column).
        unit: of the leads.
    """
    told = []
    others = "test pictures" if unit == "pictures" else "data sets"
    digits = 0 if unit == "pictures" else 1
    with styled_figure(5 * len(pairs), 4) as figure:
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axes, (title, table) in zip(panels, pairs.items(), strict=True):
            names = list(table.index)
            for i, ours in enumerate(names[1:]):
                for j, theirs in enumerate(names[: i + 1]):
                    lead, half, ahead, behind = table.loc[ours, theirs]
                    sure = abs(lead) > half
                    colour = (GREEN if lead > 0 else VERMILION) if sure else "#e8e8e8"
                    axes.barh(i, 0.94, 0.92, j - 0.47, color=colour, alpha=0.45 if sure else 1)
                    text = f"{lead:+z.{digits}f} ± {half:.{digits}f}\n{ahead} : {behind}"
                    axes.text(j, i, text, ha="center", va="center", fontsize=9)
                    told.append(f"{title}, {ours} over {theirs} {lead:+z.1f} ± {half:.1f}")
                    told[-1] += f", {ahead} : {behind}"
            axes.set_xticks(range(len(names) - 1), [fill(n, 14) for n in names[:-1]], fontsize=8)
            axes.set_yticks(range(len(names) - 1), [fill(n, 14) for n in names[1:]], fontsize=8)
            axes.set(title=title, ylim=(len(names) - 1.5, -0.5))
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
        figure.suptitle(
            f"The row's lead over the column in {unit}, coloured where it is more than its ±;\n"
            f"below it, the number of {others} for the row : for the column",
            x=0.01,
            ha="left",
            fontsize=11,
        )
    return with_description(figure, f"Leads in {unit}. {'; '.join(told)}.")


def plot_unseen(changes: pd.Series) -> Figure:
    """What training on half of the kinds changes on the other half: a panel a method, a row a data set.

    Args:
        changes: of each test picture, over zero-shot, in points: (method, dataset, picture), a mean of the draws.
    """
    methods = list(changes.index.unique("method"))
    pictures = dict(iter(changes.groupby(["method", "dataset"])))
    means = changes.groupby(["dataset", "method"]).mean().unstack()[methods]
    order = means[methods[0]].sort_values().index
    factor = stats.t.ppf(0.975, len(order) - 1) if len(order) > 1 else 0
    told = []
    with styled_figure(11, 3.9) as figure:
        panels = figure.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
        for axes, method in zip(panels, methods, strict=True):
            look = LOOKS.get(method, OTHER_LOOK) | {"linestyle": "none"}
            rows = [means[method]] + [pictures[method, name] for name in order]
            axes.axvline(0, color=QUIET, linewidth=1)
            axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
            for row, (name, each) in enumerate(zip(["mean", *order], rows, strict=True)):
                spread = each.std() / len(each) ** 0.5
                half = (2 if row else factor) * spread
                axes.errorbar(each.mean(), row, xerr=half, ms=7, capsize=3, lw=1.5, **look)
                count = f"{(each > 0).sum()} : {(each < 0).sum()}"
                axes.text(
                    0.99,
                    row + 0.2,
                    count,
                    transform=axes.get_yaxis_transform(),
                    ha="right",
                    fontsize=9,
                )
                told.append(f"{method}, {name} {each.mean():+z.1f} ± {half:.1f}, {count}")
            axes.set(title=method, xlabel="points gained")
            axes.grid(axis="y", visible=False)
        panels[0].set_yticks(range(len(order) + 1), ["mean of sets", *order])
        panels[0].set_ylim(-0.6, len(order) + 0.6)
        figure.suptitle(
            "On kinds without labels: points over zero-shot, with the ±; on the right, test pictures gained : lost "
            "(for the mean, data sets)",
            x=0.01,
            ha="left",
            fontsize=11,
        )
    said = "Points gained over zero-shot on kinds without labels, and gained : lost"
    return with_description(figure, f"{said}: {'; '.join(told)}.")
