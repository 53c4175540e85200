"""The test photographs before and after: named right or not, what each is called, and what each training changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from serial_lora_course.plots.style import (
    BLUE,
    INK,
    VERMILION,
    styled_figure,
    with_description,
)

KINDS = {  # right before and right after -> its frame
    (True, True): ("right before and after", "#8a8a8a"),
    (False, True): ("gained", BLUE),
    (True, False): ("lost", VERMILION),
    (False, False): ("wrong both times (no frame)", "#ffffff"),
}
FRAME, GAP = 4, 5  # pixels


def plot_outcomes(
    pictures: Sequence[Image.Image],
    truth: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    names: Sequence[str],
    left_out: Sequence[int],
) -> Figure:
    """A row for each class, a frame around each photograph.

    Args:
        pictures, truth, before, after: N each: its class, and the classes that were said.
        left_out: classes of ``names`` without training photographs; they stand below a line.
    """
    was, now = (np.equal(said, truth).tolist() for said in (before, after))
    step = pictures[0].width + 2 * FRAME + GAP
    order = sorted(range(len(names)), key=lambda c: c in left_out)
    rows = [[i for i, c in enumerate(truth) if c == row] for row in order]
    learnt = len(names) - len(left_out)
    tops = [step * row + 20 * (row >= learnt) for row in range(len(names))]
    page = Image.new("RGB", (step * max(map(len, rows)), tops[-1] + step), "white")
    said = []
    for c, top, row in zip(order, tops, rows, strict=True):
        for column, i in enumerate(row):
            framed = Image.new("RGB", (step - GAP, step - GAP), KINDS[was[i], now[i]][1])
            framed.paste(pictures[i], (FRAME, FRAME))
            page.paste(framed, (step * column, top))
        counts = [sum(each[i] for i in row) for each in (was, now)]
        said.append(f"{names[c]}\n{counts[0]} right, then {counts[1]} of {len(row)}")
    with styled_figure(9, 9 * page.height / page.width * 0.82) as figure:
        axes = figure.subplots()
        axes.imshow(np.asarray(page))
        axes.set_yticks([top + step / 2 for top in tops], said, fontsize=10)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_anchor("E")
        axes.spines[:].set_visible(False)
        axes.axhline(tops[learnt] - 12, color="#6b6b6b", linewidth=1)
        keys = [Patch(fc=fill, ec="#b5b5b5", label=kind) for kind, fill in KINDS.values()]
        figure.legend(handles=keys, loc="outside upper center", ncols=4)
    told = "; ".join(line.replace("\n", ": ") for line in said)
    return with_description(
        figure,
        f"Photographs in a row for each class, framed by outcome. {told}. The last "
        f"{len(left_out)} classes, below the line, had no training photographs.",
    )


def plot_said(
    truth: Sequence[int],
    answers: Mapping[str, Sequence[int]],
    names: Sequence[str],
    left_out: Sequence[int],
) -> Figure:
    """How often photographs of each class, in rows, were called each name, in a panel for each model.

    Args:
        truth, answers: N classes, and model -> N classes that were said.
        left_out: classes of ``names`` that stand behind the lines.
    """
    order = sorted(range(len(names)), key=lambda c: c in left_out)
    words = [names[c].split(" ", 1)[-1].replace(" or ", " or\n") for c in order]
    told = []
    with styled_figure(9, 4.6) as figure:
        panels = figure.subplots(1, len(answers), sharey=True)
        for axes, (title, said) in zip(panels, answers.items(), strict=True):
            counts = np.zeros((len(names), len(names)), int)
            np.add.at(counts, (np.asarray(truth), np.asarray(said)), 1)
            counts = counts[np.ix_(order, order)]
            axes.imshow(counts * (2 * np.eye(len(names)) - 1), "RdBu", vmin=-14, vmax=14)
            for row, column in np.argwhere(counts):
                axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=10)
            sums = [f"{word}: {n}" for word, n in zip(words, counts.sum(axis=0), strict=True)]
            for line in (axes.axhline, axes.axvline):
                line(len(names) - len(left_out) - 0.5, color=INK, linewidth=1)
            axes.set_xticks(range(len(names)), sums, rotation=90, fontsize=9)
            axes.set_yticks(range(len(names)), words, fontsize=9)
            axes.set(title=title, xlabel="CLIP says: how often", ylabel="the photograph shows")
            axes.label_outer()
            axes.grid(visible=False)
            told.append(f"{title}: {', '.join(sums)}")
    text = f"What photographs show, in rows, and what CLIP says. {'; '.join(told)}."
    return with_description(figure, text)


def plot_pairs(runs: Mapping[str, Sequence[tuple[int, int]]], measured: Sequence[str]) -> Figure:
    """A row for each run, a panel for each thing measured: lost to the left, gained to the right.

    Args:
        runs: run -> for each thing measured, how many photographs were lost and gained.
    """
    reach, told = 1.25 * np.max([*runs.values()]), []
    with styled_figure(9, 0.3 * len(runs) + 0.8) as figure:
        panels = figure.subplots(1, len(measured), sharey=True)
        for i, (axes, title) in enumerate(zip(panels, measured, strict=True)):
            counts = np.array([pairs[i] for pairs in runs.values()]).T
            for sign, each, fill in zip((-1, 1), counts, (VERMILION, BLUE), strict=True):
                bars = axes.barh([*runs], sign * each, color=fill)
                axes.bar_label(bars, each, padding=3, fontsize=9)
            axes.axvline(0, color=INK, linewidth=1)
            told.append("{} lost | {} gained".format(*counts.sum(axis=1)))
            axes.set(xlim=(-reach, reach), xticks=[], xlabel=told[-1])
            axes.set_title(title, fontsize=11, loc="center")
            axes.grid(visible=False)
        panels[0].invert_yaxis()
    sums = "; ".join(f"{title}: {sums}" for title, sums in zip(measured, told, strict=True))
    return with_description(figure, f"Photographs lost and gained in {len(runs)} runs. {sums}.")
