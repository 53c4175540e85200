"""The test photographs before and after: named right or not, how far it moved, what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    INK,
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
KEY = {"loc": "outside upper center", "ncols": 4}


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


def plot_turns(
    margin: Tensor,
    turned: Tensor,
    before: Tensor,
    after: Tensor,
    out: Tensor,
    marked: Mapping[str, int],
) -> Figure:
    """A dot for each photograph: its margin before training, and how far it turned, by outcome.

    Args:
        margin, turned: (N,), cosine and 1 - cosine.
        before, after: (N,), whether it was right; out: (N,), whether its class was left out.
        marked: name -> the place of a photograph that is named.
    """
    at = {kind: (before == kind[0]) & (after == kind[1]) for kind in KINDS}
    told = []
    with styled_figure(9, 4.2) as figure:
        axes = figure.subplots()
        for kind, (label, fill) in KINDS.items():
            means = f"margin {margin[at[kind]].mean():.2f}, turned {turned[at[kind]].mean():.2f}"
            told.append(f"{label.partition(' (')[0]} ({at[kind].sum()}): {means}")
            for some, marker, named in ((~out, "o", told[-1]), (out, "s", None)):
                x, y = (each[at[kind] & some] for each in (margin, turned))
                axes.scatter(x, y, 45, fill, marker, edgecolors=QUIET, label=named)
        for name, i in marked.items():
            aside = {"xytext": (30, -8), "textcoords": "offset points", "va": "center"}
            thin = {"arrowstyle": "-", "color": INK, "linewidth": 0.8, "shrinkB": 3}
            axes.annotate(name, (margin[i], turned[i]), **aside, arrowprops=thin)
        axes.margins(x=0.08, y=0.1)
        axes.axvline(0, color=QUIET, linestyle=DASHED, linewidth=1, zorder=0)
        axes.set(xlabel="margin before training (below 0: wrong)", ylabel="turned: 1 - cosine")
        axes.set_title("squares: classes left out", fontsize=10, color=QUIET, loc="left")
        axes.grid(visible=False)
        figure.legend(loc="outside upper center", ncols=2)
    return with_description(figure, f"A dot for each photograph. On average, {'; '.join(told)}.")


def plot_pairs(
    runs: Mapping[str, Mapping[str, Sequence[tuple[float, float] | None]]],
    before: Mapping[str, Sequence[Sequence[bool]]],
    measured: Sequence[str],
) -> Figure:
    """A row for each run, under its group's title; in each panel lost to the left, gained to the right.

    Args:
        runs: group -> run -> for each thing measured, how many photographs were lost and gained;
            None where the run has no answer.
        before: group -> for each thing measured, which photographs were right before.
    """
    rows = [row for group, each in runs.items() for row in ((group, None), *each.items())]
    drawn = [(y, pairs) for y, (_, pairs) in enumerate(rows) if pairs]
    bases = {g: [f"before: {sum(w)} of {len(w)}" for w in each] for g, each in before.items()}
    reach, told = 1.5 * max(max(pair) for _, pairs in drawn for pair in pairs if pair), []
    with styled_figure(9, 0.3 * len(rows) + 1) as figure:
        panels = figure.subplots(1, len(measured), sharey=True)
        for i, (axes, title) in enumerate(zip(panels, measured, strict=True)):
            known = [(y, [round(float(n), 1) for n in pairs[i]]) for y, pairs in drawn if pairs[i]]
            for k, (key, fill) in enumerate((("lost", VERMILION), ("gained", BLUE))):
                counts = [f"{pair[k]:g}" for _, pair in known]
                ends = [(2 * k - 1) * (pair[k] or 1e-9) for _, pair in known]  # a zero has its side
                bars = axes.barh([y for y, _ in known], ends, color=fill, label=key)
                axes.bar_label(bars, counts, padding=3, fontsize=9)
            for y, (group, pairs) in enumerate(rows):
                note = "" if pairs else (*bases.get(group, ()), "", "", "")[i]
                if pairs and pairs[i]:
                    axes.vlines(0, y - 0.4, y + 0.4, INK, linewidth=1)
                elif pairs:
                    note = "no names for these"
                axes.text(0, y, note, ha="center", va="center", fontsize=10, color=QUIET)
            told.append(f"{title}: " + ", ".join(f"{a:g} and {b:g}" for _, (a, b) in known))
            axes.set(xlim=(-reach, reach), xticks=[], ylim=(len(rows) - 0.4, -0.7))
            axes.set_title(title, fontsize=11, loc="center")
            axes.tick_params(length=0)
            axes.grid(visible=False)
        panels[0].set_yticks(range(len(rows)), [name for name, _ in rows])
        for label, (_, pairs) in zip(panels[0].get_yticklabels(), rows, strict=True):
            label.set_fontweight("normal" if pairs else "bold")
        figure.legend(*panels[0].get_legend_handles_labels(), **KEY)
    order = [f"{g} ({', '.join(bases.get(g, []))}): {', '.join(r)}" for g, r in runs.items()]
    said = f"Photographs lost and gained. {'; '.join(told)}. In order: {'; '.join(order)}."
    return with_description(figure, said)
