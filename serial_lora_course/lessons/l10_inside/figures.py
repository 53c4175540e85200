"""Pictures of what is inside an adapter: singular values, their shape, and angles beside chance."""

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
}


def look(name: str) -> dict:
    """The colour and marker of a line."""
    return next(found for begin, found in LOOKS.items() if name.startswith(begin))


def plot_spectra(spectra: Mapping[str, Tensor]) -> Figure:
    """The singular values of W, W + dW and dW of one matrix, on logarithmic axes.

    Args:
        spectra: "W", "W + dW" and "dW" -> singular values, the largest first.
    """
    looks = {
        "W": {"color": INK, "linestyle": (0, (1, 1.5)), "linewidth": 3.5},
        "W + dW": {"color": GREEN, "linewidth": 1.8},
        "dW": {"color": VERMILION, "linewidth": 1.8, "marker": "s", "markersize": 3},
    }
    values = {name: each.numpy() for name, each in spectra.items()}
    change = values["dW"]
    rank = int(np.argmax(change[:-1] / change[1:])) + 1  # where the cliff is
    with styled_figure(8.6, 4.2) as figure:
        axes = figure.subplots()
        for name in ("W + dW", "W", "dW"):
            axes.plot(np.arange(1, len(values[name]) + 1), values[name], **looks[name])
        axes.set(xscale="log", yscale="log", ylabel="singular value", xlabel="index")
        ticks = [1, 4, rank, 64, len(change)]
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        text, middle = {"fontsize": 11, "va": "center"}, np.sqrt(change[rank - 1] * change[rank])
        axes.text(20, values["W"][19] * 3, "W (dotted) and W + dW", **text)
        axes.text(1.2, change[0] / 12, "dW", color=VERMILION, **text)
        axes.text(rank * 0.93, middle, "the cliff", ha="right", **text)
        axes.text(rank * 1.15, change[rank] * 8, "rounding", color=QUIET, **text)
    return with_description(
        figure,
        f"Singular values of one matrix. Those of W and W + dW lie on one line. dW has {rank} values below "
        f"them, the last {change[rank - 1]:.1e}, and then falls to {change[rank]:.1e}, which is rounding.",
    )


def plot_shapes(spectra: Mapping[str, Tensor]) -> Figure:
    """Some spectra as they are, and each divided by its sum.

    Args:
        spectra: what is drawn -> singular values, the largest first.
    """
    with styled_figure(9.2, 3.7) as figure:
        left, right = figure.subplots(1, 2)
        for name, values in spectra.items():
            index = np.arange(1, len(values) + 1)
            style = {"markersize": 5, "label": name} | look(name)
            left.plot(index, values, **style)
            right.plot(index, values / values.sum(), **style)
        left.set(title="size", ylabel="singular value of dW", xlabel="index")
        right.set(title="shape", ylabel="share of their sum", xlabel="index")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.set_xticks([1, *range(4, len(index) + 1, 4)])
        right.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    words = "; ".join(f"{name} from {values[0]:.2f}" for name, values in spectra.items())
    return with_description(
        figure,
        f"Singular values: {words}. Divided by its sum, a spectrum is the same line as its multiple.",
    )


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
