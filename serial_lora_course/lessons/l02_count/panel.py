"""The panel of lesson 02: both methods' parameters for any rank, width and depth."""

from __future__ import annotations

import ipywidgets
import pandas as pd

from serial_lora_course.lessons.l02_count.figures import plot_counts
from serial_lora_course.measures.counts import BYTES_PER_FLOAT32, lora_count, serial_lora_count
from serial_lora_course.plots.panel import movable, show, slider
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table


def count_table(rank: int, width: int, depth: int) -> pd.DataFrame:
    """Both methods' parameters and float32 bytes, and each method's size over Serial LoRA's.

    Raises:
        SerialLoRAError: a number is below 1 or the rank is above the width.
    """
    serial = serial_lora_count(width, depth, rank)
    rows = [
        ("LoRA", "8 x width x rank x depth", lora_count(width, depth, rank)),
        ("Serial LoRA", "2 x width x rank x depth", serial),
    ]
    table = pd.DataFrame(rows, columns=["method", "formula", "parameters"])
    table["float32 bytes"] = table["parameters"] * BYTES_PER_FLOAT32
    table["ratio"] = table["parameters"] / serial
    return table


def count_panel(rank: int = 32, width: int = 768, depth: int = 12) -> ipywidgets.VBox | None:
    """Show how both counts follow from rank, width and depth.

    Args:
        rank, width, depth: where the panel starts.

    Returns:
        The panel, already shown; None in the still form, a table and a figure.

    Raises:
        SerialLoRAError: a number is below 1 or the rank is above the width.
    """
    count_table(rank, width, depth)  # refuses bad numbers before anything is built

    def draw(rank: int, width: int, depth: int) -> None:
        rank = min(rank, width)
        table = count_table(rank, width, depth)
        display_table(table)
        name = f"rank {rank}, width {width}, depth {depth}"
        display_figure(plot_counts({name: tuple(table["parameters"])}))

    def panel() -> ipywidgets.VBox:
        controls = {
            "rank": slider(rank, 1, 256, 1, "rank"),
            "width": slider(width, min(64, width), max(2048, width), 64, "width"),
            "depth": slider(depth, 1, max(48, depth), 1, "depth"),
        }
        return movable(draw, controls)

    return show(panel, lambda: draw(rank, width, depth))
