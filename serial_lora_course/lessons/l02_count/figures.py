"""Bars of trainable parameters."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from serial_lora_course.models.architectures import ARCHITECTURES
from serial_lora_course.plots.style import house_style, method_look, with_description


def plot_counts(counts: Mapping[str, tuple[int, int]] | None = None) -> Figure:
    """Bars of LoRA's and Serial LoRA's parameters.

    Args:
        counts: name of a model to (LoRA, Serial LoRA); the paper's three models when left out.
    """
    if counts is None:
        counts = {
            f"{item.title}, r = {item.rank}": (item.lora(), item.serial_lora())
            for item in ARCHITECTURES.values()
            if item.in_paper
        }
    with house_style():
        figure = Figure(figsize=(8, 1.3 + 0.95 * len(counts)), layout="constrained")
        axes = figure.subplots()
        largest = max(max(pair) for pair in counts.values())
        for row, pair in enumerate(counts.values()):
            for value, offset, method in zip(
                pair, (-0.19, 0.19), ("lora", "serial_lora"), strict=True
            ):
                look = method_look(method)
                label = look["label"] if row == 0 else None
                axes.barh(row + offset, value, 0.34, color=look["color"], label=label)
                axes.text(value + 0.012 * largest, row + offset, f"{value:,}", va="center")
        axes.set_yticks(range(len(counts)), list(counts))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, largest * 1.22)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
        axes.set_xlabel("trainable parameters")
        figure.legend(loc="outside upper left", ncols=2)
    words = "; ".join(
        f"{name}: LoRA {lora:,}, Serial LoRA {serial:,}" for name, (lora, serial) in counts.items()
    )
    return with_description(figure, f"Bars of trainable parameters. {words}.")
