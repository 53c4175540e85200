"""Pictures of spectra: singular values by block and projection, and what varies over depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.spectra import ADAPTED, CHANGE, WEIGHT
from serial_lora_course.plots.results import draw_mean
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
from serial_lora_course.plots.tables import require_columns

PROJECTIONS = ("q", "k", "v")
TICKS = (1, 4, 16, 64, 256, 1024, 4096)
SMALLEST = 1e-6
"""Singular values below this share of the largest are left out of logarithmic figures."""

# ------------------------------------------------------------------------------------- spectra


def plot_spectra(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """Singular values of W, W + dW and dW: a row of panels a block, a column a projection.

    Shown are the first, the middle and the last block of the image tower. W is black and dotted, each method's W + dW a line in its colour, and its dW a broken line in
    the same colour, which ends at the rank. Both axes are logarithmic.

    Args:
        frames: method's name to its frame, all of one base; see
            :func:`serial_lora_course.lessons.l10_inside.tables.spectra_frame`.

    Raises:
        SerialLoRAError: no frames, or no block that all of them have.
    """
    spectra = _spectra(frames)
    base = (next(iter(frames)), WEIGHT)  # the same for every method

    def draw(axes: Any, panel: pd.DataFrame) -> None:
        for name in frames:
            look = method_look(name)
            color, label = look["color"], look["label"]
            axes.plot(panel[name, ADAPTED], color=color, linewidth=1.6, label=f"W + dW, {label}")
            broken = {"linestyle": "--", "marker": look["marker"], "markersize": 2.5}
            seen = panel[name, CHANGE][panel[name, CHANGE] > SMALLEST * panel[base].max()]
            axes.plot(seen, color=color, linewidth=1.6, label=f"dW, {label}", **broken)
        axes.plot(panel[base], label="W", color=INK, linestyle=":", linewidth=2.2)
        axes.set(xscale="log", yscale="log")  # dW is only r of the many indices
        ticks = [tick for tick in TICKS if tick <= len(panel)]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()

    largest = spectra[base].xs(1, level="index")
    phrases = [f"W's largest singular value is {largest.min():.2g} to {largest.max():.2g}"]
    for name in frames:
        change = spectra[name, CHANGE].dropna()
        rank = change.index.get_level_values("index").max()
        first, last = (change.xs(i, level="index") for i in (1, rank))
        phrases.append(
            f"{method_look(name)['label']}'s dW has {first.min():.2g} to {first.max():.2g} first "
            f"and {last.min():.1g} to {last.max():.1g} at index {rank}, its last"
        )
    figure = _grid(spectra, draw, "singular value (logarithmic)")
    return with_description(figure, f"{_where(spectra)}. {'; '.join(phrases)}.")


def plot_shifts(frames: Mapping[str, pd.DataFrame]) -> Figure:
    """How far each singular value of W + dW is from W's, in percent of W's; panels as above.

    The vertical axis is linear up to one percent either way, and logarithmic beyond.

    Where Serial LoRA is "between" W and LoRA, its line is between zero and LoRA's.

    Args and errors as in :func:`plot_spectra`.
    """
    spectra = _spectra(frames)
    shifts = pd.DataFrame(
        {name: 100 * (spectra[name, ADAPTED] / spectra[name, WEIGHT] - 1) for name in frames}
    )

    def draw(axes: Any, panel: pd.DataFrame) -> None:
        axes.axhline(0, color=INK, linestyle=":", linewidth=1.8, label="W")
        for name in frames:
            look = method_look(name)
            axes.plot(panel[name], color=look["color"], linewidth=1.4, label=look["label"])
        axes.set_yscale("symlog", linthresh=1, linscale=0.7)  # small values can move by any percent
        axes.yaxis.set_major_formatter(lambda shift, _: f"{shift:+g}%" if shift else "0%")

    phrases = "; ".join(
        f"{method_look(name)['label']}'s singular values of W + dW are {shift.min():+.1f}% to "
        f"{shift.max():+.1f}% from W's, {shift.abs().mean():.1f}% on average"
        for name, shift in shifts.items()
    )
    figure = _grid(shifts, draw, "singular value of W + dW\nbeside W's, in percent")
    return with_description(figure, f"{_where(shifts)}. {phrases}.")


def _spectra(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Singular values: a row a block, projection and index, a column a method and matrix."""
    image = {name: frame[frame["tower"] == "image"] for name, frame in frames.items()}
    blocks = [set(part["block"]) for part in image.values()]
    there = sorted(set.intersection(*blocks)) if blocks else []
    if not there:
        raise SerialLoRAError(
            "there are no spectra to draw; pass one frame a method, with the image tower's blocks."
        )
    table = pd.concat(image, names=["method"]).reset_index("method")
    table = table[table["block"].isin([there[0], there[(len(there) - 1) // 2], there[-1]])]
    rows = ["block", "projection", "index"]
    return table.pivot(index=rows, columns=["method", "matrix"], values="value")


def _grid(table: pd.DataFrame, draw: Callable[[Any, pd.DataFrame], None], axis: str) -> Figure:
    """One panel for each block and projection of the table, all on one scale."""
    blocks = table.index.unique("block")
    with house_style():
        size = (9.6, 2.1 * len(blocks) + 1.1)
        figure = Figure(figsize=size, layout="constrained")
        share = {"sharex": True, "sharey": True}
        grid = figure.subplots(len(blocks), len(PROJECTIONS), squeeze=False, **share)
        for row, block in zip(grid, blocks, strict=True):
            for axes, part in zip(row, PROJECTIONS, strict=True):
                draw(axes, table.loc[block, part])
                axes.set_title(f"block {block}, {part}", fontsize=11)
        figure.supylabel(axis, fontsize=11)
        figure.supxlabel("index of the singular value, the largest first", fontsize=11)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(5, len(labels)))
    return figure


def _where(table: pd.DataFrame) -> str:
    blocks = ", ".join(map(str, table.index.unique("block")))
    return f"The image tower's q, k and v in block {blocks}"


# ---------------------------------------------------------------------------------- over depth


def plot_depth(
    table: pd.DataFrame,
    measure: str,
    axis: str,
    line: str = "method",
    panel: str = "projection",
    looks: Mapping[str, Mapping[str, str]] | None = None,
    reference: tuple[float, str] | None = None,
) -> Figure:
    """A measure over the blocks of one tower: a panel for each projection, a line a method.

    A line is the mean over what is left (seeds, pairs), the band goes from the least to the most.

    Args:
        table: tidy, with the columns ``block``, ``measure`` and those that make lines and panels.
        axis: what the measure is, for the axis.
        line, panel: columns whose values make the lines and the panels.
        looks: value of ``line`` to color, marker and linestyle; the methods' own if left out.
        reference: a height and what it stands for: a grey broken line.

    Raises:
        SerialLoRAError: a column is missing or there are no rows.
    """
    require_columns(table, ["block", measure, line, panel])
    panels = {name: part for name, part in table.groupby(panel, sort=False)}
    lines = list(dict.fromkeys(table[line]))
    looks = {name: {"label": name} | looks[name] if looks else method_look(name) for name in lines}
    with house_style():
        figure = Figure(figsize=(3.1 * len(panels) + 0.8, 3.4), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, part) in zip(row, panels.items(), strict=True):
            if reference is not None:
                height, name = reference
                axes.axhline(height, color=QUIET, linestyle="--", label=name)
            for name in lines:
                runs = part[part[line] == name]
                draw_mean(axes, runs["block"], runs[measure], looks[name])
            axes.set(title=title, xticks=sorted(table["block"].unique()))
        row[0].set_ylabel(axis)
        row[0].set_ylim(bottom=0)
        figure.supxlabel("block", fontsize=11)
        handles, labels = row[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)))
    first, last = table["block"].min(), table["block"].max()
    phrases = []
    for title, part in panels.items():
        means = part.groupby([line, "block"], sort=False)[measure].mean()
        values = [
            f"{looks[name]['label']} {means[name][first]:.2f} to {means[name][last]:.2f}"
            for name in dict.fromkeys(part[line])
        ]
        phrases.append(f"{title}: {', '.join(values)}")
    grey = f" Grey line, {reference[1]}: {reference[0]:.2f}." if reference else ""
    return with_description(
        figure, f"{axis}, from block {first} to block {last}: {'; '.join(phrases)}.{grey}"
    )


def plot_overlaps(overlaps: pd.DataFrame, top: int, chance: float) -> Figure:
    """How far the strongest directions of two adapters agree over the blocks of one tower.

    Args:
        overlaps: as :func:`serial_lora_course.lessons.l10_inside.directions.overlaps_frame` gives them, of one
            tower, with three comparisons at most: one method's seeds, the other's, and both methods.
        top: how many directions are compared.
        chance: the overlap of random ones.
    """
    looks = [
        {"color": BLUE, "marker": "o", "linestyle": "-"},
        {"color": VERMILION, "marker": "s", "linestyle": "-"},
        {"color": GREEN, "marker": "^", "linestyle": "--"},
    ]
    return plot_depth(
        overlaps,
        "overlap",
        f"overlap of the {top} strongest\n(1: the same directions)",
        line="comparison",
        panel="what",
        looks=dict(zip(overlaps["comparison"].unique(), looks, strict=False)),
        reference=(chance, "random directions"),
    )


# ---------------------------------------------------------------------------------- the verdict


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
    jitter = np.random.default_rng(0)
    phrases = []
    with house_style():
        figure = Figure(figsize=(1.7 * len(columns) + 2.2, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.axhline(needed, color=INK, linestyle=":", label=f"“consistent”: {needed:.0%}")
        if chance is not None:
            axes.axhline(chance, color=QUIET, linestyle="--", label=f"by chance: {chance:.0%}")
        for place, ((lab, method), part) in enumerate(columns.items()):
            look, mean = method_look(method), part[measure].mean()
            x = place + jitter.uniform(-0.22, 0.22, len(part))
            axes.scatter(x, part[measure], s=12, color=look["color"], alpha=0.45, linewidths=0)
            axes.plot([place - 0.3, place + 0.3], [mean, mean], color=INK, linewidth=2.2)
            phrases.append(
                f"{lab.upper()}, {look['label']}: mean {mean:.0%}, from "
                f"{part[measure].min():.0%} to {part[measure].max():.0%}"
            )
        names = [f"{lab.upper()}\n{method_look(method)['label']}" for lab, method in columns]
        axes.set_xticks(range(len(columns)), names)
        axes.set(ylim=(-0.03, 1.03), ylabel=axis)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside upper center", ncols=2)
    by_chance = "" if chance is None else f" By chance: {chance:.0%}."
    return with_description(
        figure,
        f"{axis}; a dot is a block, projection and seed, the bar their mean. "
        f"{'; '.join(phrases)}.{by_chance}",
    )
