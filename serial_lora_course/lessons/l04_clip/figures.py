"""Drawings that two methods see differently, cosines, a probe's pull, losses, leads set by set, and unseen kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from serial_lora_course.data.types import DividedData
from serial_lora_course.measures.intervals import half_width
from serial_lora_course.plots.pictures import draw_bare, show_pictures
from serial_lora_course.plots.style import (
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


def show_cosines(
    pictures: Sequence[Any], names: Sequence[str], cosines: Sequence[Sequence[float]]
) -> Figure:
    """Cosines of a picture of each class with all sentences: the right one is framed, a dot is on the largest."""
    columns = range(len(names))
    with styled_figure(10, 5.6) as figure:
        side, axes = figure.subplots(1, 2, width_ratios=[1, 9])
        side.axis("off")
        axes.imshow(cosines, cmap="Blues", aspect="auto")
        for row, (picture, line) in enumerate(zip(pictures, cosines, strict=True)):
            place = [0.05, 1 - (row + 0.95) / len(names), 0.9, 0.9 / len(names)]
            draw_bare(side.inset_axes(place), picture)
            for column, value in enumerate(line):
                color = "white" if value > 0.15 else INK
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color)
            axes.plot(line.index(max(line)), row + 0.32, "o", color=VERMILION, ms=8)
            axes.add_patch(Rectangle((row - 0.48, row - 0.48), 0.96, 0.96, fill=False, lw=2.5))
        axes.set_xticks(columns, names, rotation=20, ha="left")
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.set_yticks([])
        axes.grid(False)
    rows = (
        f"{name}: {', '.join(f'{v:.2f}' for v in line)}, largest {names[line.index(max(line))]}"
        for name, line in zip(names, cosines, strict=True)
    )
    return with_description(
        figure,
        f"Cosines of a drawing of each class with the sentences of {', '.join(names)}. {'; '.join(rows)}.",
    )


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
    with styled_figure(11, 3.4) as figure:
        panels = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
        for axes, each in zip(panels, shots, strict=True):
            axes.axhline(zero, color=QUIET, linestyle=":", label="zero-shot")
            for (where, start), line in right.items():
                if where == each:
                    look = LOOKS[start] | {"marker": None}
                    axes.plot(alphas, line, label=start, **look)
                    best = chosen[where, start]
                    axes.plot(best, line[alphas.index(best)], "o", color=look["color"], ms=8)
            axes.set(
                xscale="log",
                xlabel="α, the pull towards the start",
                title=f"{each} shot{'s'[: each > 1]}",
            )
        panels[0].set_ylabel(f"right of {count}")
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=10)
    lines = "; ".join(f"{s}, {n} shots: {list(line)}" for (n, s), line in right.items())
    return with_description(
        figure,
        f"Right of {count} at α {list(alphas)}, zero-shot {zero}, a dot at the chosen α. {lines}.",
    )


def plot_losses(losses: Mapping[tuple[int, str], Sequence[float]]) -> Figure:
    """The loss of each step: a panel for each number of shots, a line for each method.

    Args:
        losses: (shots, method) -> one number a step.
    """
    shots = sorted({each for each, _ in losses})
    told = []
    with styled_figure(9, 3.1) as figure:
        panels = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
        for axes, each in zip(panels, shots, strict=True):
            for (where, method), line in losses.items():
                if where == each:
                    look = LOOKS.get(method, OTHER_LOOK) | {"marker": None}
                    axes.plot(range(1, len(line) + 1), line, label=method, **look)
                    said = f"{method}, {each}-shot: first loss {line[0]:.2f}, last {line[-1]:.2f}"
                    told.append(said)
            axes.set(xlabel="step", title=f"{each} shot{'s'[: each > 1]}")
        panels[0].set_ylabel("loss")
        panels[0].set_ylim(bottom=0)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9)
    return with_description(figure, f"The loss of each step. {'; '.join(told)}.")


def plot_ahead(accuracy: pd.DataFrame, rival: str, methods: Sequence[str]) -> Figure:
    """Each method's mean accuracy over the shots; then its lead over one of them, set by set, at fewest and at most.

    Args:
        accuracy: in percent; a row for each (shots, dataset, seed), a column for each method.
        rival: the method over which the others lead.
        methods: whose leads are drawn; the mean of the data sets has its 95% interval.
    """
    means = accuracy.groupby("shots").mean()
    leads = accuracy[list(methods)].sub(accuracy[rival], axis=0)
    each = leads.groupby(["shots", "dataset"]).mean()  # the draws of a set count once
    order = list(each.loc[means.index[-1]].mean(axis=1).sort_values().index)
    told, apart = [], 0.22
    with styled_figure(12, 4.8) as figure:
        curve, *panels = figure.subplots(1, 3, width_ratios=[1.3, 1, 1])
        for method in accuracy:
            look = LOOKS.get(method, OTHER_LOOK) | {"marker": None}
            curve.plot(range(len(means)), means[method], label=method, **look)
            told.append(f"{method} {', '.join(f'{v:.1f}' for v in means[method])}")
        curve.set_xticks(range(len(means)), [str(number) for number in means.index])
        curve.set(xlabel="shots of each class", title="Accuracy (%), mean of sets")
        figure.legend(
            *curve.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=10
        )
        for axes, shots in zip(panels, means.index[[0, -1]], strict=True):
            axes.axvline(0, color=QUIET, linewidth=1)
            axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
            for place, method in enumerate(methods):
                look = LOOKS.get(method, OTHER_LOOK) | {"linestyle": "none"}
                here = each.loc[shots][method][order]
                up = apart * ((len(methods) - 1) / 2 - place)
                axes.plot(here, [row + 1 + up for row in range(len(order))], ms=5, **look)
                half = half_width(here.sem(), len(here) - 1)
                axes.errorbar(here.mean(), up, xerr=half, ms=7, capsize=3, lw=1.5, **look)
                told.append(f"{shots}-shot, {method} {here.mean():+z.1f} ± {half:.1f}")
            axes.set_yticks(
                range(len(order) + 1), ["mean of sets", *order] if axes is panels[0] else []
            )
            axes.set(ylim=(-0.6, len(order) + 0.6), xlabel="points ahead of the probe")
            axes.set_title(f"{shots} shot{'s'[: shots > 1]}, set by set")
            axes.grid(axis="y", visible=False)
        wide = max(abs(end) for axes in panels for end in axes.get_xlim())
        for axes in panels:
            axes.set_xlim(-wide, wide)
    return with_description(
        figure,
        f"Mean accuracy over the shots {list(means.index)}; leads over {rival}: {'; '.join(told)}.",
    )


def plot_leads(panels: Mapping[str, Mapping[str, tuple[float, float]]], unit: str) -> Figure:
    """Numbers with their ±, upwards from the first: a panel a title, a row a name.

    Args:
        panels: title -> name -> a number and its ±; the first panel has all names.
        unit: of the numbers.
    """
    names, told = list(next(iter(panels.values()))), []
    with styled_figure(12, 1.4 + 0.33 * len(names)) as figure:
        grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, rows) in zip(grid, panels.items(), strict=True):
            axes.axvline(0, color=QUIET, linewidth=1)
            for name, (mean, half) in rows.items():
                look = (LOOKS.get(name) or LOOKS.get(title, OTHER_LOOK)) | {"linestyle": "none"}
                row = names.index(name)
                axes.errorbar(mean, row, xerr=half, ms=7, capsize=3, lw=1.5, **look)
                told.append(f"{title}, {name} {mean:+z.1f} ± {half:.1f}")
            axes.set(xlabel=unit, ylim=(-0.6, len(names) - 0.4))
            axes.set_title(title, fontsize=11)
            axes.grid(axis="y", visible=False)
        grid[0].set_yticks(range(len(names)), names)
    return with_description(figure, f"{unit.capitalize()}: {'; '.join(told)}.")


def plot_unseen(changes: pd.Series) -> Figure:
    """What training on half of the kinds changes on the other half: a panel a method, a row a data set.

    Args:
        changes: of each test picture, over zero-shot, in points: (method, dataset, picture), a mean of the draws.
    """
    sets = changes.groupby(["method", "dataset"])
    means, halves = sets.mean().unstack("method"), 2 * sets.sem().unstack("method")
    methods = list(changes.index.unique("method"))
    order, panels = means[methods[0]].sort_values().index, {}
    for method in methods:
        each = means[method]
        panels[method] = {"mean of sets": (each.mean(), half_width(each.sem(), len(each) - 1))}
        panels[method] |= {name: (each[name], halves[method][name]) for name in order}
    figure = plot_leads(panels, "points gained over zero-shot")
    for axes in figure.axes:
        axes.axhline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
    return figure
