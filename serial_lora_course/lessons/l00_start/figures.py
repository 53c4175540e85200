"""Every photograph of the test, and whether it was named right before and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from serial_lora_course.plots.style import BLUE, VERMILION, styled_figure, with_description

KINDS = {  # right before and right after -> its frame
    (True, True): ("right before and after", "#b5b5b5"),
    (False, True): ("gained", BLUE),
    (True, False): ("lost", VERMILION),
    (False, False): ("wrong both times", "#ffffff"),
}
FRAME, GAP = 4, 5  # pixels


def plot_outcomes(
    pictures: Sequence[Image.Image],
    truth: Sequence[int],
    right: Sequence[tuple[bool, bool]],
    names: Sequence[str],
    learnt: int,
) -> Figure:
    """A row for each class, a frame around each photograph.

    Args:
        pictures: N, of one size.
        truth: N classes.
        right: N pairs, whether it was named right before and after.
        names: of the classes.
        learnt: so many classes, from the first on, had training photographs.
    """
    step = pictures[0].width + 2 * FRAME + GAP
    rows = [[i for i, c in enumerate(truth) if c == row] for row in range(len(names))]
    tops = [step * row + 20 * (row >= learnt) for row in range(len(names))]
    page = Image.new("RGB", (step * max(map(len, rows)), tops[-1] + step), "white")
    said = []
    for name, top, row in zip(names, tops, rows, strict=True):
        for column, i in enumerate(row):
            framed = Image.new("RGB", (step - GAP, step - GAP), KINDS[right[i]][1])
            framed.paste(pictures[i], (FRAME, FRAME))
            page.paste(framed, (step * column, top))
        before, after = (sum(right[i][when] for i in row) for when in (0, 1))
        said.append(f"{name}\n{before} right, then {after} of {len(row)}")
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
        f"{len(names) - learnt} classes, below the line, had no training photographs.",
    )
