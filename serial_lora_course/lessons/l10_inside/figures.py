"""Pictures of what is inside an adapter: singular values, cliffs, and overlaps beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    styled_figure,
    with_description,
)

LOOKS = {  # by how a line's name begins
    "W + dW": {"color": GREEN, "linewidth": 1.8},
    "W": {"color": INK, "linestyle": (0, (1, 1.5)), "linewidth": 3.5},
    "dW": {"color": VERMILION, "linewidth": 1.8, "marker": "s"},
    "float32": {"color": VERMILION, "marker": "s"},
    "float16": {"color": BLUE, "marker": "o"},
    "bfloat16": {"color": GREEN, "marker": "v"},
    "no adapter": {"color": QUIET},
}


def look(name: str) -> dict:
    """The colour and marker of a line."""
    return next(found for begin, found in LOOKS.items() if name.startswith(begin))


def plot_spectra(spectra: Mapping[str, Tensor]) -> Figure:
    """Singular values of W, W + dW and dW, whose cliff is named, on logarithmic axes.

    Args:
        spectra: what is drawn -> singular values, the largest first.
    """
    values = spectra["dW"]
    count, cliff = len(values), 1 + int((values[:-1] / values[1:])[: len(values) // 2].argmax())
    with styled_figure(8.6, 4.2) as figure:
        axes = figure.subplots()
        for name, drawn in spectra.items():
            style = {"markersize": 3, "label": name} | look(name)
            axes.plot(np.arange(1, count + 1), drawn, **style)
        axes.set(xscale="log", yscale="log", ylabel="singular value")
        axes.set_xlabel("number of the singular value, the largest first")
        words = {"color": VERMILION, "va": "top"}
        axes.text(1, float(values[cliff - 1]) / 4, f"the adapter: {cliff} values", **words)
        rounding = "rounding of the merged weights"
        axes.text(cliff * 1.15, float(values[cliff]) / 8, rounding, **words)
        ticks = [1, 4, 16, 64, count]
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.legend()
    told = "; ".join(f"{name} from {v[0]:.1e} to {v[-1]:.1e}" for name, v in spectra.items())
    return with_description(figure, f"Singular values, on a logarithmic axis: {told}.")


def plot_cliffs(
    spectra: Mapping[str, Tensor], off: Mapping[str, Mapping[int, float]], rank: int
) -> Figure:
    """Singular values of a change in some number formats, and what a recovered adapter makes of them.

    Args:
        spectra: number format -> singular values of the change between two files, the largest first;
            beside them "no adapter", those of a model that was trained without one.
        off: number format -> directions kept -> how far scores are from the merged model's.
        rank: what was found.
    """
    count = max(next(iter(off.values())))
    index = np.arange(1, count + 1)
    with styled_figure(9.6, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        for name, values in spectra.items():
            left.plot(index, values[:count], markersize=4, **look(name))
        for name, errors in off.items():
            right.plot(list(errors), list(errors.values()), markersize=4, **look(name))
        left.set(title="what lies between two files", ylabel="singular value of a block's change")
        left.set_xlabel("number of the singular value")
        right.set(title="how exact the recovered adapter is", xlabel="directions kept")
        right.set_ylabel("its cosines are off by up to")
        ends = {name: float(values[count - 1]) for name, values in spectra.items()}
        for axes, heights in ((left, ends), (right, {n: e[count] for n, e in off.items()})):
            axes.axvline(rank, color=QUIET, linestyle=(0, (1, 1.5)))
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.set_xticks([1, *range(4, count + 1, 4)])
            for name, height in heights.items():
                words = {"color": look(name)["color"], "ha": "right", "va": "bottom"}
                axes.text(count, height * 1.35, name, **words)
        text = {"color": QUIET, "ha": "right", "transform": left.get_xaxis_transform()}
        left.text(rank - 0.5, 0.04, f"rank found: {rank}", **text)
    words = "; ".join(
        f"{name}: value {rank} {spectra[name][rank - 1]:.0e}, the next {spectra[name][rank]:.0e}; cosines off by "
        f"{errors[1]:.0e} with one direction, {errors[rank]:.0e} with {rank}, {errors[count]:.0e} with {count}"
        for name, errors in off.items()
    )
    return with_description(figure, f"Singular values fall behind the rank found, {rank}. {words}.")


def plot_overlaps(
    table: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], chance: float
) -> Figure:
    """How much the A of each file has in common with the fresh A of each seed.

    Args:
        table: overlaps (rows, columns), from 0 to 1.
        rows: names of the files.
        columns: names of the seeds.
        chance: the overlap of random subspaces, which the scale marks.
    """
    blues, shown = matplotlib.colormaps["Blues"], np.array(table)
    with styled_figure(0.5 * len(columns) + 3.2, 0.42 * len(rows) + 1.6) as figure:
        axes = figure.subplots()
        axes.imshow(shown, cmap=blues, vmin=0, vmax=1, aspect="auto")
        for (i, j), value in np.ndenumerate(shown):
            style = {"ha": "center", "va": "center", "fontsize": 9}
            axes.text(j, i, f"{value:.2f}", color="white" if value > 0.6 else INK, **style)
        axes.set_title("overlap of a recovered A with a fresh one")
        turned = {"rotation": 40, "ha": "right", "rotation_mode": "anchor", "fontsize": 9}
        axes.set_xticks(range(len(columns)), columns, **turned)
        axes.set_yticks(range(len(rows)), rows, fontsize=9)
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), blues)
        bar = figure.colorbar(scale, ax=axes, aspect=12, ticks=(0, chance, 1))
        bar.ax.set_yticklabels(["0: nothing in common", f"{chance:.2f}: chance", "1: the same"])
    words = "; ".join(
        f"{row}: " + ", ".join(f"{value:.2f}" for value in each)
        for row, each in zip(rows, shown.tolist(), strict=True)
    )
    return with_description(figure, f"Overlaps with {', '.join(columns)}. {words}.")
