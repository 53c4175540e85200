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
        axes.set_xlabel("number of the singular value, the largest first (logarithmic)")
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


def plot_left_over(table: Mapping[str, Mapping[str, float]], limit: float) -> Figure:
    """What share of a change each recovery leaves over, a row a model, on a logarithmic axis.

    Args:
        table: model -> recovery -> share.
        limit: a line; more than this is a refusal.
    """
    looks = zip(next(iter(table.values())), (BLUE, VERMILION), ("o", "D"), strict=True)
    height = np.arange(len(table))
    with styled_figure(8.6, 0.34 * len(table) + 1.5) as figure:
        axes = figure.subplots()
        for (column, color, marker), shift in zip(looks, (-0.13, 0.13), strict=True):
            shares = [row[column] for row in table.values()]
            axes.plot(shares, height + shift, marker, color=color, label=column, markersize=6)
        axes.axvline(limit, color=QUIET, linestyle=(0, (1, 1.5)))
        axes.set(xscale="log", xlim=(1e-8, 2), xlabel="share of the change that is left over")
        axes.set_yticks(height, list(table))
        axes.invert_yaxis()
        axes.minorticks_off()
        axes.legend(loc="center", bbox_to_anchor=(0.5, 0.5))
        text = {
            "color": QUIET,
            "ha": "right",
            "va": "bottom",
            "transform": axes.get_xaxis_transform(),
        }
        axes.text(limit * 0.85, 0.02, f"{limit:g}", **text)
    words = "; ".join(
        f"{name}: " + ", ".join(f"{column} {share:.2g}" for column, share in row.items())
        for name, row in table.items()
    )
    return with_description(figure, f"What is left over. {words}.")


def plot_cliffs(spectra: Mapping[str, Mapping[str, Tensor]], rank: int) -> Figure:
    """Singular values of a change in some number formats, a panel for each size of the change.

    Args:
        spectra: panel -> number format -> singular values, the largest first.
        rank: of the change.
    """
    count = rank + 8
    with styled_figure(9.6, 3.8) as figure:
        panels = figure.subplots(1, len(spectra), sharey=True)
        for axes, (title, lines) in zip(panels, spectra.items(), strict=True):
            for name, values in lines.items():
                axes.plot(np.arange(1, count + 1), values[:count], markersize=3, **look(name))
                words = {"color": look(name)["color"], "ha": "right", "va": "bottom"}
                axes.text(count, float(values[count - 1]) * 1.5, name, **words)
            axes.axvline(rank, color=QUIET, linestyle=(0, (1, 1.5)))
            axes.set(title=title, yscale="log", xlabel="number of the singular value")
            axes.set_xticks([1, *range(4, count + 1, 4)])
            axes.minorticks_off()
        panels[0].set_ylabel("singular value")
    told = "; ".join(
        f"{title}, {name}: value {rank} {values[rank - 1]:.0e}, the next {values[rank]:.0e}"
        for title, lines in spectra.items()
        for name, values in lines.items()
    )
    return with_description(figure, f"Singular values of the change between two files. {told}.")


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
