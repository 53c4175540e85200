"""The test photographs before and after: named right or not, how far it moved, what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    PURPLE,
    QUIET,
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
LOST, KEY = ("lost", "gained"), {"loc": "outside upper center", "ncols": 4}


def plot_outcomes(
    pictures: Sequence[Image.Image],
    truth: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    names: Sequence[str],
    trained: Sequence[int],
) -> Figure:
    """A row for each class, a frame around each photograph.

    Args:
        pictures, truth, before, after: N each: its class, and the classes that were said.
        trained: how many training photographs each class had; those without stand below a line.
    """
    was, now = (np.equal(said, truth).tolist() for said in (before, after))
    step = pictures[0].width + 2 * FRAME + GAP
    order = sorted(range(len(names)), key=lambda c: not trained[c])
    rows = [[i for i, c in enumerate(truth) if c == row] for row in order]
    learnt = np.count_nonzero(trained)
    tops = [step * row + 20 * (row >= learnt) for row in range(len(names))]
    page = Image.new("RGB", (step * max(map(len, rows)), tops[-1] + step), "white")
    said = []
    for c, top, row in zip(order, tops, rows, strict=True):
        for column, i in enumerate(row):
            framed = Image.new("RGB", (step - GAP, step - GAP), KINDS[was[i], now[i]][1])
            framed.paste(pictures[i], (FRAME, FRAME))
            page.paste(framed, (step * column, top))
        counts = [sum(each[i] for i in row) for each in (was, now)]
        said.append(
            f"{names[c]}\ntrained on {trained[c]}\n{counts[0]} right, then {counts[1]} of {len(row)}"
        )
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
        figure.legend(handles=keys, **KEY)
    told = "; ".join(line.replace("\n", ", ") for line in said)
    return with_description(
        figure,
        f"Photographs in a row for each class, framed by outcome. {told}. Classes below the line "
        "had no training photographs.",
    )


def plot_moves(
    moves: Mapping[str, tuple[Sequence[float], Sequence[float]]], apart: float
) -> Figure:
    """A dot for each vector: how far it moved, of the learnt classes above those left out.

    Args:
        moves: what moved -> 1 - cosine for the learnt, and for the left out.
        apart: how far the nearest other photograph is, on average; a line.
    """
    told = []
    with styled_figure(9, 0.9 * len(moves) + 1.2) as figure:
        axes = figure.subplots()
        for row, sides in enumerate(moves.values()):
            looks = zip(("learnt", "left out"), (GREEN, PURPLE), (-0.2, 0.2), sides, strict=True)
            for side, fill, shift, far in looks:
                spread = row + shift + 0.1 * np.sin(2.4 * np.arange(len(far)))  # side by side
                axes.scatter(far, spread, s=22, color=fill, alpha=0.75, label=side)
                mean = np.asarray(far).mean()
                axes.vlines(mean, row + shift - 0.17, row + shift + 0.17, INK, linewidth=2.5)
                place = axes.get_yaxis_transform()
                axes.text(1.01, row + shift, f"{mean:.2f}", transform=place, va="center")
                told.append(f"{side} {mean:.2f}")
        axes.text(1.01, -0.62, "mean", transform=axes.get_yaxis_transform(), color=QUIET)
        axes.axvline(apart, color=QUIET, linestyle=DASHED, linewidth=1, zorder=0)
        axes.text(apart, -0.62, f" nearest other photograph: {apart:.2f}", color=QUIET)
        axes.set_yticks(range(len(moves)), moves)
        axes.set(xlim=(0, None), ylim=(len(moves) - 0.5, -0.5), xlabel="how far: 1 - cosine")
        axes.grid(visible=False)
        figure.legend(*[each[:2] for each in axes.get_legend_handles_labels()], **KEY)
    kinds = [" ".join(what.split()) for what in moves]
    pairs = [f"{k}: {a}, {b}" for k, a, b in zip(kinds, told[::2], told[1::2], strict=True)]
    return with_description(figure, f"How far vectors moved, on average. {'; '.join(pairs)}.")


def plot_pairs(
    runs: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]],
    before: Mapping[str, Sequence[str]],
    measured: Sequence[str],
) -> Figure:
    """A row for each run, under its group's title; in each panel lost to the left, gained to the right.

    Args:
        runs: group -> run -> for each thing measured, how many photographs were lost and gained.
        before: group -> for each thing measured, how many there were before.
    """
    rows = [row for group, each in runs.items() for row in ((group, None), *each.items())]
    drawn = [(y, pairs) for y, (_, pairs) in enumerate(rows) if pairs]
    reach, told = 1.5 * np.max([pairs for _, pairs in drawn]), []
    with styled_figure(9, 0.3 * len(rows) + 1) as figure:
        panels = figure.subplots(1, len(measured), sharey=True)
        for i, (axes, title) in enumerate(zip(panels, measured, strict=True)):
            counts = np.array([pairs[i] for _, pairs in drawn]).T
            for key, sign, each, fill in zip(LOST, (-1, 1), counts, (VERMILION, BLUE), strict=True):
                bars = axes.barh([y for y, _ in drawn], sign * each, color=fill, label=key)
                axes.bar_label(bars, each, padding=3, fontsize=9)
            for y, (group, pairs) in enumerate(rows):
                if pairs:
                    axes.vlines(0, y - 0.4, y + 0.4, INK, linewidth=1)
                else:
                    words = f"before: {before[group][i]}"
                    axes.text(0, y, words, ha="center", va="center", fontsize=10, color=QUIET)
            told.append(", ".join(f"{lost} and {gained}" for lost, gained in counts.T))
            axes.set(xlim=(-reach, reach), xticks=[], ylim=(len(rows) - 0.4, -0.7))
            axes.set_title(title, fontsize=11, loc="center")
            axes.tick_params(length=0)
            axes.grid(visible=False)
        panels[0].set_yticks(range(len(rows)), [name for name, _ in rows])
        for label, (_, pairs) in zip(panels[0].get_yticklabels(), rows, strict=True):
            label.set_fontweight("normal" if pairs else "bold")
        figure.legend(*panels[0].get_legend_handles_labels(), **KEY)
    sums = "; ".join(f"{title}: {each}" for title, each in zip(measured, told, strict=True))
    order = "; ".join(
        f"{group} (before: {', '.join(before[group])}): {', '.join(each)}"
        for group, each in runs.items()
    )
    return with_description(figure, f"Photographs lost and gained. {sums}. In order: {order}.")
