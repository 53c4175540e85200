"""Ways to count, on the same tests and the same draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    INK,
    PURPLE,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

COLOURS = {
    "connected parts": INK,
    "thickest places": PURPLE,
    "probe": BLUE,
    "adapter": VERMILION,
}
MARKERS = "os^"  # of the draws


def dotted(page: Image.Image | np.ndarray, top: np.ndarray) -> Image.Image:
    """A page, or a distance in shades of grey, with red dots at the peaks."""
    picture = np.array(page)
    if picture.ndim == 2:
        picture = np.repeat(np.uint8(255 * picture / max(picture.max(), 1))[..., None], 3, axis=-1)
    for size, colour in ((3, 255), (2, (255, 0, 0))):
        picture[binary_dilation(top, iterations=size)] = colour
    return Image.fromarray(picture)


def plot_counts(
    scores: Sequence[pd.DataFrame],
    bar: float,
    numbers: Mapping[str, Sequence[int]],
    cheap: Mapping[str, tuple[str, float]] | None = None,
) -> Figure:
    """A panel for each test, a row for each way, and a dot for each draw, the first at the top.

    Args:
        scores: for each draw, per cent right: a row for each way, a column for each test.
        bar: what is good enough, in per cent.
        numbers: what lies on each sheet, by test; the same answer to every sheet gets what chance gets.
        cheap: by test, a way without training and its mean over the draws: a line.
    """
    ways, told = list(scores[0].index), []
    with styled_figure(12, 1.9 + 0.33 * len(ways)) as figure:
        panels = figure.subplots(1, len(numbers), sharex=True, sharey=True)
        for axes, (test, laid) in zip(panels, numbers.items(), strict=True):
            for draw, table in enumerate(scores):
                found = [float(table.loc[way, test]) for way in ways]
                heights = [row + 0.2 * (draw - (len(scores) - 1) / 2) for row in range(len(ways))]
                colours = [COLOURS[way.split(",")[0]] for way in ways]
                axes.scatter(found, heights, s=30, c=colours, marker=MARKERS[draw], clip_on=False)
                told.append(f"{test}, draw {draw}: {', '.join(f'{each:.0f}' for each in found)}")
            chance = 100 / len({int(number) for number in laid})
            for place, name, style in ((chance, "chance", "dashed"), (bar, "bar", "dotted")):
                axes.axvline(place, color=QUIET, linestyle=style, lw=1.4, zorder=0)
                axes.text(place, -0.75, name, color=QUIET, size=9, ha="center")
            for way, mean in [cheap[test]] if cheap else []:
                axes.axvline(mean, color=COLOURS[way], lw=1.6, zorder=0, label=f"{way}, mean")
                told.append(f"{test}, {way}: {mean:.0f}")
            for row in range(0, len(ways), 2):
                axes.axhspan(row - 0.5, row + 0.5, color=QUIET, alpha=0.1, lw=0, zorder=0)
            axes.set_title(f"{test}, {len(laid)} sheets", pad=20)
            axes.set(xlabel="right answers (%)", xlim=(-2, 102), xticks=range(0, 101, 20))
            axes.set_yticks(range(len(ways)), ways)
            axes.set_ylim(len(ways) - 0.5, -0.5)
        name_draws(figure, len(scores))
    return with_description(figure, f"Per cent right of {', '.join(ways)}. {'; '.join(told)}.")


def name_draws(figure: Figure, draws: int) -> None:
    """A legend below the panels: the draws, and lines that have a name."""
    look = {"color": QUIET, "linestyle": ""}
    dots = [Line2D([], [], marker=MARKERS[i], label=f"draw {i}", **look) for i in range(draws)]
    lines = {
        line.get_label(): line
        for axes in figure.axes
        for line in axes.lines
        if not str(line.get_label()).startswith("_")
    }
    keys = [*dots, *lines.values()]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))


def plot_answers(
    said: Sequence[Mapping[str, Mapping[str, Tensor]]],
    numbers: Mapping[str, Tensor],
    tests: Sequence[str],
    ways: Sequence[str],
) -> Figure:
    """A grid for each test and way: of the sheets with so many things, how many per cent got which answer.

    Args:
        said: for each draw, the answers by test and way; draws are taken together.
        numbers: what lies on each sheet, by test.
    """
    panels, told = [(test, way) for test in tests for way in ways], []
    with styled_figure(12, 2.9) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (test, way) in zip(grid, panels, strict=True):
            answer = torch.cat([each[test][way] for each in said]).clamp(1, 5)
            laid = numbers[test].repeat(len(said))
            rows = [int(number) for number in laid.unique()]
            counts = torch.stack([answer[laid == row].bincount(minlength=6)[1:] for row in rows])
            share = 100 * counts / counts.sum(1, keepdim=True)
            axes.imshow(share, cmap="Greys", vmin=0, vmax=130, aspect="auto")
            for (y, x), value in np.ndenumerate(share.numpy()):
                if value > 0:
                    ink = "white" if value > 75 else INK
                    axes.text(x, y, f"{value:.0f}", color=ink, ha="center", va="center", size=11)
            frame = {"fill": False, "clip_on": False, "ec": COLOURS["thickest places"], "lw": 2}
            for y, row in enumerate(rows):  # the right answer
                axes.add_patch(Rectangle((row - 1.5, y - 0.5), 1, 1, **frame))
            axes.set_title(f"{test}: {way}")
            axes.set(xlabel="answer", ylabel="things on the sheet")
            axes.set_xticks(range(5), ["1", "2", "3", "4", "5+"])
            axes.set_yticks(range(len(rows)), rows)
            axes.grid(visible=False)
            told += [
                f"{test}, {way}, {row} things: {', '.join(f'{each:.0f}' for each in line)}"
                for row, line in zip(rows, share.tolist(), strict=True)
            ]
    return with_description(figure, f"Per cent of answers 1 to 4, and above. {'; '.join(told)}.")


def plot_leads(leads: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """How far one way is ahead of another: a panel for each test, a row for each draw and for their mean.

    Args:
        leads: by test and draw, the columns `ahead` and `about`, its ±, in points.
        names: of the other way, by test.
    """
    told = []
    with styled_figure(12, 2.7) as figure:
        panels = figure.subplots(1, len(names), sharex=True, sharey=True)
        for axes, (test, rival) in zip(panels, names.items(), strict=True):
            own = leads.loc[test]
            about = (own["about"] ** 2).sum() ** 0.5 / len(own)  # of draws that share nothing
            rows = [(f"draw {i}", *own.loc[i], MARKERS[i], QUIET) for i in own.index]
            rows.append(("mean", own["ahead"].mean(), about, "D", VERMILION))
            for row, (name, ahead, half, marker, colour) in enumerate(rows):
                axes.errorbar(ahead, row, xerr=half, color=colour, marker=marker, ms=6, capsize=3)
                said = f"{ahead:+.0f} ± {half:.0f}"
                look = {"color": colour, "size": 9, "ha": "center", "va": "bottom"}
                box = {"facecolor": "white", "lw": 0, "pad": 0.5}
                axes.text(ahead, row - 0.16, said, bbox=box, **look)
                told.append(f"{test}, {name}: {said}")
            axes.axvline(0, color=INK, lw=1.4, zorder=0)
            axes.set_title(test)
            axes.set(xlabel=f"points ahead of\n{rival}", ylim=(len(rows) - 0.5, -0.5))
            axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    return with_description(figure, f"Points ahead. {'; '.join(told)}.")


def recorded(name: str, *index: str) -> pd.DataFrame:
    """What ``records.py`` wrote, by draw: `runs`, per cent right, and `leads`, points ahead."""
    return pd.read_csv(Path(__file__).with_name(f"{name}.csv"), index_col=list(index))
