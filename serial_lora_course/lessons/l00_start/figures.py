"""Every photograph of the test, named right or not before and after; and how far some trainings moved shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from serial_lora_course.plots.style import (
    BLUE,
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


def plot_outcomes(
    pictures: Sequence[Image.Image],
    truth: Sequence[int],
    right: Sequence[tuple[bool, bool]],
    names: Sequence[str],
    left_out: Sequence[int],
) -> Figure:
    """A row for each class, a frame around each photograph.

    Args:
        pictures: N, of one size.
        truth: N classes.
        right: N pairs, whether it was named right before and after.
        names: of the classes.
        left_out: classes without training photographs; they stand below a line.
    """
    step = pictures[0].width + 2 * FRAME + GAP
    order = sorted(range(len(names)), key=lambda c: c in left_out)
    rows = [[i for i, c in enumerate(truth) if c == row] for row in order]
    learnt = len(names) - len(left_out)
    tops = [step * row + 20 * (row >= learnt) for row in range(len(names))]
    page = Image.new("RGB", (step * max(map(len, rows)), tops[-1] + step), "white")
    said = []
    for c, top, row in zip(order, tops, rows, strict=True):
        for column, i in enumerate(row):
            framed = Image.new("RGB", (step - GAP, step - GAP), KINDS[right[i]][1])
            framed.paste(pictures[i], (FRAME, FRAME))
            page.paste(framed, (step * column, top))
        before, after = (sum(right[i][when] for i in row) for when in (0, 1))
        said.append(f"{names[c]}\n{before} right, then {after} of {len(row)}")
    with styled_figure(9, 9 * page.height / page.width * 0.82) as figure:
        axes = figure.subplots()
        axes.imshow(np.asarray(page))
        axes.set_yticks([top + step / 2 for top in tops], said, fontsize=10)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(visible=False)
        axes.set_anchor("E")
        axes.spines[:].set_visible(False)
        edge = tops[learnt] - 12
        axes.axhline(edge, color="#6b6b6b", linewidth=1)
        handles = [Patch(facecolor=fill, edgecolor="#b5b5b5") for _, fill in KINDS.values()]
        figure.legend(
            handles, [kind for kind, _ in KINDS.values()], loc="outside upper center", ncols=4
        )
    told = "; ".join(line.replace("\n", ": ") for line in said)
    return with_description(
        figure,
        f"Photographs in a row for each class, framed by outcome. {told}. The last "
        f"{len(left_out)} classes, below the line, had no training photographs.",
    )


def plot_changes(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]
) -> Figure:
    """A row for each thing measured: a dot for each training, where it moved the share, in points.

    Args:
        before: what was measured -> a share for each training.
        after: the same.
    """
    with styled_figure(9, 0.62 * len(before) + 0.8) as figure:
        axes, said = figure.subplots(), []
        for row, name in enumerate(before):
            old, new = np.asarray(before[name]), np.asarray(after[name])
            moved = 100 * (new - old)
            colours = np.select([moved > 0, moved < 0], [BLUE, VERMILION], "#b5b5b5")
            up = row + np.linspace(-0.2, 0.2, len(moved))
            axes.scatter(moved, up, s=46, color=colours, alpha=0.8, zorder=3)
            axes.plot(
                [moved.mean()] * 2, [row - 0.34, row + 0.34], color=INK, linewidth=2, zorder=4
            )
            said.append(f"{name}\n{old.mean():.0%} right, then {new.mean():.0%}")
        axes.axvline(0, color=QUIET, linewidth=1)
        axes.set_yticks(range(len(said)), said, fontsize=10)
        axes.set_ylim(len(said) - 0.5, -0.5)
        axes.set_xlabel("points gained (a bar: the mean; dots: the trainings, the first on top)")
        axes.grid(visible=False, axis="y")
    told = "; ".join(line.replace("\n", ": ") for line in said)
    return with_description(figure, f"How far each training moved the shares, on average: {told}.")
