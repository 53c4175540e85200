"""Pictures of what is inside an adapter: singular values, angles beside chance, and cliffs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

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

LOOKS = {  # by how a line's name begins
    "LoRA and": {"color": PURPLE, "marker": "D"},
    "LoRA times": {"color": BLUE, "marker": "o", "linestyle": DASHED, "mfc": "white"},
    "LoRA": {"color": BLUE, "marker": "o"},
    "Serial": {"color": VERMILION, "marker": "s"},
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
    """Singular values, on a logarithmic axis: of W, W + dW and dW, or of some changes.

    Args:
        spectra: what is drawn -> singular values, the largest first.
    """
    count = len(next(iter(spectra.values())))
    whole = "W" in spectra
    with styled_figure(8.6, 4.2 if whole else 3.4) as figure:
        axes = figure.subplots()
        for name, values in spectra.items():
            style = {"markersize": 3 if whole else 5, "label": name} | look(name)
            axes.plot(np.arange(1, count + 1), values, **style)
        axes.set(yscale="log", xlabel="index", ylabel="singular value" + " of dW" * (not whole))
        ticks = [1, 4, 16, 64, count] if whole else [1, *range(4, count + 1, 4)]
        if whole:
            axes.set_xscale("log")
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.legend()
    words = "; ".join(
        f"{name} from {values[0]:.1e} to {values[-1]:.1e}" for name, values in spectra.items()
    )
    return with_description(figure, f"Singular values, on a logarithmic axis: {words}.")


def plot_cliffs(
    spectra: Mapping[str, Tensor], off: Mapping[str, Mapping[int, float]], rank: int
) -> Figure:
    """Singular values of a change in some number formats, and what a recovered adapter makes of them.

    Args:
        spectra: number format -> singular values of the change between two files, the largest first;
            beside them "no adapter", those of a change of full rank.
        off: number format -> directions kept -> how far scores are from the merged model's.
        rank: what was found.
    """
    count = max(next(iter(off.values())))
    index = np.arange(1, count + 1)
    with styled_figure(9.6, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        for name, values in spectra.items():
            left.plot(index, values[:count], markersize=4, label=name, **look(name))
        for name, errors in off.items():
            right.plot(list(errors), list(errors.values()), markersize=4, **look(name))
        left.set(
            title="a block's change between the files", ylabel="singular value", xlabel="index"
        )
        right.set(title="the recovered adapter", xlabel="directions kept")
        right.set_ylabel("cosines off by up to")
        for axes in (left, right):
            axes.axvline(rank, color=QUIET, linestyle=(0, (1, 1.5)))
            axes.set_yscale("log")
            axes.minorticks_off()
            axes.set_xticks([1, *range(4, count + 1, 4)])
        text = {"color": QUIET, "ha": "right", "transform": left.get_xaxis_transform()}
        left.text(rank - 0.5, 0.04, f"rank found: {rank}", **text)
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside upper center", ncols=len(spectra)
        )
    words = "; ".join(
        f"{name}: value {rank} {spectra[name][rank - 1]:.0e}, the next {spectra[name][rank]:.0e}; cosines off by "
        f"{errors[1]:.0e} with one direction, {errors[rank]:.0e} with {rank}, {errors[count]:.0e} with {count}"
        for name, errors in off.items()
    )
    return with_description(figure, f"Singular values fall behind the rank found, {rank}. {words}.")


def plot_angles(
    curves: Mapping[str, Tensor], chance: Tensor, title: str, through_W: Tensor | None = None
) -> Figure:
    """Principal angles between subspaces, beside those of random ones.

    Args:
        curves: what is compared -> angles in degrees, the smallest first.
        chance: those of random subspaces.
        through_W: those of what random subspaces become behind a weight.
    """
    with styled_figure(8.6, 4.2) as figure:
        axes = figure.subplots()
        index = np.arange(1, len(chance) + 1)
        axes.fill_between(index, chance, 90, color="#e3e3e3", linewidth=0)
        axes.plot(index, chance, color=QUIET, linewidth=2)
        axes.text(1, 84, "chance: random subspaces", color=QUIET, va="center")
        if through_W is not None:
            label = "chance behind W, for two Serial LoRAs"
            axes.plot(index, through_W, color=VERMILION, linestyle=DASHED, label=label)
            axes.legend(loc="lower right")
        for name, angles in curves.items():
            axes.plot(index, angles, clip_on=False, markersize=5, **look(name))
            words = {"color": look(name)["color"], "fontweight": "bold", "rotation_mode": "anchor"}
            slope = float(angles[4] - angles[1]) / 3  # a name goes along its line
            turned = {"rotation": np.degrees(np.arctan(slope)), "transform_rotates_text": True}
            crossed = through_W is not None and name.startswith("LoRA and")  # by the dashed line
            under = float(angles[1]) > 20 and not crossed  # and under it, if there is room
            height = float(angles[0]) + 0.4 * slope + (-2.2 if under else 2)
            axes.text(1.4, height, name, va="top" if under else "bottom", **words, **turned)
        axes.set(title=title, xlabel="principal angle, the smallest first")
        axes.set(xlim=(0.6, len(index) + 0.3), ylim=(0, 90))
        axes.set_yticks([0, 30, 60, 90], ["0°\nthe same", "30°", "60°", "90°\nnothing\nin common"])
        axes.set_xticks([1, *range(4, len(index) + 1, 4)])
    known = {**curves, "chance": chance}
    if through_W is not None:
        known["chance behind W"] = through_W
    means = "; ".join(
        f"{name} from {each[0]:.0f} to {each[-1]:.0f}" for name, each in known.items()
    )
    return with_description(figure, f"{title}. Angles in degrees: {means}.")
