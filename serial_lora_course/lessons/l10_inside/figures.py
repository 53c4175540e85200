"""Pictures of spectra: singular values of one block, and what varies over blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora_course.measures.spectra import ADAPTED, CHANGE, WEIGHT
from serial_lora_course.plots.style import (
    BLUE,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    house_style,
    method_look,
    with_description,
)

SMALLEST = 1e-6
"""Singular values below this share of the largest are left out of logarithmic figures."""


def plot_spectra(frames: Mapping[str, pd.DataFrame], block: int) -> Figure:
    """Singular values of W, W + dW and dW of q, k and v in a block of the image tower.

    W is black and dotted, each method's W + dW a line in its colour, and its dW a broken line in the
    same colour, which ends at the rank. Both axes are logarithmic.

    Args:
        frames: method's name to its frame, all of one base; see
            :func:`serial_lora_course.lessons.l10_inside.tables.spectra_frame`.
    """

    def draw(axes: Any, spectra: dict[str, dict[str, pd.Series]]) -> None:
        for name, own in spectra.items():
            look = method_look(name)
            plain, label = {"color": look["color"], "linewidth": 1.6}, look["label"]
            axes.plot(own[ADAPTED], label=f"W + dW, {label}", **plain)
            seen = own[CHANGE][own[CHANGE] > SMALLEST * own[WEIGHT].max()]
            mark = {"linestyle": "--", "marker": look["marker"], "markersize": 2.5}
            axes.plot(seen, label=f"dW, {label}", **plain, **mark)
        axes.plot(own[WEIGHT], label="W", color=INK, linestyle=":", linewidth=2.2)
        axes.set(xscale="log", yscale="log")  # dW is only r of the many indices

    figure = _three(frames, block, draw, "singular value (logarithmic)")
    return with_description(
        figure,
        f"Singular values of q, k and v in block {block} of the image tower, the largest first: those of "
        f"W and of each W + dW nearly coincide, and those of dW lie far below and end at the rank.",
    )


def plot_shifts(frames: Mapping[str, pd.DataFrame], block: int) -> Figure:
    """How far each singular value of W + dW is from W's, in percent of W's; panels as above.

    The vertical axis is linear up to one percent either way, and logarithmic beyond. Where Serial LoRA is
    "between" W and LoRA, its line is between zero and LoRA's.
    """
    means = {}

    def draw(axes: Any, spectra: dict[str, dict[str, pd.Series]]) -> None:
        axes.axhline(0, color=INK, linestyle=":", linewidth=1.8, label="W")
        for name, own in spectra.items():
            look, shift = method_look(name), 100 * (own[ADAPTED] / own[WEIGHT] - 1)
            axes.plot(shift, color=look["color"], linewidth=1.4, label=look["label"])
            means.setdefault(look["label"], []).append(shift.abs().mean())
        axes.set_yscale("symlog", linthresh=1, linscale=0.7)  # small values can move by any percent
        axes.yaxis.set_major_formatter(lambda shift, _: f"{shift:+g}%" if shift else "0%")

    figure = _three(frames, block, draw, "singular value of W + dW\nbeside W's, in percent")
    words = ", ".join(f"{label} by {np.mean(each):.1f}%" for label, each in means.items())
    return with_description(
        figure,
        f"How far q's, k's and v's singular values in block {block} move on average: {words}.",
    )


def _three(frames: Mapping[str, pd.DataFrame], block: int, draw: Any, axis: str) -> Figure:
    """A panel for each of q, k and v, all on one scale, drawn from the values of each method."""
    with house_style():
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        row = figure.subplots(1, 3, sharex=True, sharey=True)
        for axes, part in zip(row, "qkv", strict=True):
            spectra = {}
            for name, frame in frames.items():
                own = frame[(frame["tower"] == "image") & (frame["block"] == block)]
                own = own[own["projection"] == part].set_index("index").groupby("matrix")["value"]
                spectra[name] = dict(list(own))
            draw(axes, spectra)
            axes.set_title(f"block {block}, {part}", fontsize=11)
        figure.supylabel(axis, fontsize=11)
        figure.supxlabel("index of the singular value, the largest first", fontsize=11)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)))
    return figure


LOOKS = (
    {"color": BLUE, "marker": "o", "linestyle": "-"},
    {"color": VERMILION, "marker": "s", "linestyle": "-"},
    {"color": GREEN, "marker": "^", "linestyle": "--"},
)


def plot_depth(
    table: pd.DataFrame, measure: str, axis: str, panel: str, reference: tuple[float, str]
) -> Figure:
    """A measure over the blocks of one tower: a panel for each value of a column.

    A line is a ``line``'s mean over what is left (seeds, pairs), its band goes from the least to the most.

    Args:
        table: tidy, with the columns ``line``, ``block``, the measure and the panel's.
        axis: what the measure is, for the axis.
        reference: a height and what it stands for: a grey broken line.
    """
    panels = {name: part for name, part in table.groupby(panel, sort=False)}
    looks = dict(zip(table["line"].unique(), LOOKS, strict=False))
    with house_style():
        figure = Figure(figsize=(3.1 * len(panels) + 0.8, 3.4), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, part) in zip(row, panels.items(), strict=True):
            axes.axhline(reference[0], color=QUIET, linestyle="--", label=reference[1])
            for name, look in looks.items():
                of_block = part[part["line"] == name].groupby("block")[measure]
                band = of_block.agg(["mean", "min", "max"])
                shade = {"color": look["color"], "alpha": 0.16, "linewidth": 0}
                axes.fill_between(band.index, band["min"], band["max"], **shade)
                axes.plot(band["mean"], markersize=5, label=name, **look)
            axes.set(title=title, xticks=sorted(table["block"].unique()))
        row[0].set_ylabel(axis)
        row[0].set_ylim(bottom=0)
        figure.supxlabel("block", fontsize=11)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)))
    means = table.groupby([panel, "line"], sort=False)[measure].mean()
    words = "; ".join(f"{title}, {line}: {mean:.2f}" for (title, line), mean in means.items())
    return with_description(
        figure, f"{axis}, over the blocks. Means: {words}; {reference[1]}: {reference[0]:.2f}."
    )


def plot_positions(
    frame: pd.DataFrame, measure: str, axis: str, chance: float | None, needed: float
) -> Figure:
    """How a share comes out in every block and projection: one dot each, a column a comparison.

    Args:
        frame: as :func:`serial_lora_course.lessons.l10_inside.runs.claim_frame` gives it.
        measure: a share between 0 and 1, such as ``between``.
        axis: what the measure is.
        chance: what chance would give, a broken line; None for no line.
        needed: what the claim needs, a dotted line.
    """
    columns = {key: part for key, part in frame.groupby(["lab", "method"], sort=False)}
    names = [f"{lab.upper()}\n{method_look(method)['label']}" for lab, method in columns]
    jitter, means = np.random.default_rng(0), []
    with house_style():
        figure = Figure(figsize=(1.7 * len(columns) + 2.2, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.axhline(needed, color=INK, linestyle=":", label=f"“consistent”: {needed:.0%}")
        if chance is not None:
            axes.axhline(chance, color=QUIET, linestyle="--", label=f"by chance: {chance:.0%}")
        for place, ((_, method), part) in enumerate(columns.items()):
            x = place + jitter.uniform(-0.22, 0.22, len(part))
            color = method_look(method)["color"]
            axes.scatter(x, part[measure], s=12, color=color, alpha=0.45, linewidths=0)
            means.append(part[measure].mean())
            axes.plot([place - 0.3, place + 0.3], [means[-1]] * 2, color=INK, linewidth=2.2)
        axes.set_xticks(range(len(columns)), names)
        axes.set(ylim=(-0.03, 1.03), ylabel=axis)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside upper center", ncols=2)
    words = "; ".join(f"{name} {mean:.0%}" for name, mean in zip(names, means, strict=True))
    return with_description(
        figure, f"{axis}; a dot is a block, projection and seed. Means: {words}."
    )
