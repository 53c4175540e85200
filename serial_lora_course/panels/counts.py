"""The panel of lesson 02: both methods' parameters for any rank, width and depth.

As every panel, it has a still form of the same content, for where no live kernel and browser are
(see `serial_lora_course.frontend`).
"""

from __future__ import annotations

from typing import Any

import ipywidgets
import pandas as pd

from serial_lora.counting import BYTES_PER_FLOAT32, lora_count, serial_lora_count
from serial_lora_course.lessons.l02_count.figures import plot_counts
from serial_lora_course.models.architectures import ARCHITECTURES
from serial_lora_course.panels.shown import Accessibility, show
from serial_lora_course.plots.style import display_figure
from serial_lora_course.plots.tables import display_table

LARGEST_RANK, LARGEST_WIDTH, LARGEST_DEPTH = 256, 2048, 48
OWN = "your own"
PRESETS: dict[str, tuple[int, int, int]] = {
    f"{item.title.partition(',')[0]}, {tower.name}": (item.rank, tower.width, tower.depth)
    for item in ARCHITECTURES.values()
    for tower in item.towers
}
"""A real model's tower, and its rank, width and depth."""


def count_table(rank: int, width: int, depth: int) -> pd.DataFrame:
    """Both methods' parameters and float32 bytes, and each method's size over Serial LoRA's.

    Raises:
        SerialLoRAError: if a number is below 1 or the rank is above the width.
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


def show_counts(rank: int, width: int, depth: int) -> None:
    """Show the table of both counts, and their bars."""
    table = count_table(rank, width, depth)
    display_table(table)
    name = f"rank {rank}, width {width}, depth {depth}"
    display_figure(plot_counts({name: tuple(table["parameters"])}))


class CountPanel(ipywidgets.VBox):
    """Sliders for rank, width and depth over what `show_counts` shows.

    Attributes:
        rank, width, depth: integer sliders; the rank can never exceed the width.
        preset: fills the sliders with a real model's tower.
    """

    def __init__(self, rank: int = 32, width: int = 768, depth: int = 12) -> None:
        style: dict[str, Any] = {"style": {"description_width": "60px"}}
        slider = ipywidgets.IntSlider
        self.preset = ipywidgets.Dropdown(options=[OWN, *PRESETS], description="model", **style)
        self.rank = slider(rank, min=1, max=min(LARGEST_RANK, width), description="rank", **style)
        self.width = slider(
            width,
            min=min(64, width),
            max=max(LARGEST_WIDTH, width),
            step=64,
            description="width",
            **style,
        )
        self.depth = slider(
            depth, min=1, max=max(LARGEST_DEPTH, depth), description="depth", **style
        )
        controls = {"rank": self.rank, "width": self.width, "depth": self.depth}
        self.width.observe(self._limit_rank, names="value")  # before the counts are shown
        for control in controls.values():
            control.observe(self._name_preset, names="value")
        self.preset.observe(self._fill_in, names="value")
        shown = ipywidgets.interactive_output(show_counts, controls)
        super().__init__([self.preset, *controls.values(), shown, Accessibility()])

    def _limit_rank(self, _: Any) -> None:
        self.rank.max = min(LARGEST_RANK, self.width.value)  # which lowers the rank too

    def _fill_in(self, change: dict[str, Any]) -> None:
        name = change["new"]
        if name != OWN:
            rank, self.width.value, self.depth.value = PRESETS[name]
            self.rank.value = rank
            self.preset.value = name  # the first of the sliders that moved took the name away

    def _name_preset(self, _: Any) -> None:
        numbers = (self.rank.value, self.width.value, self.depth.value)
        if PRESETS.get(self.preset.value) != numbers:
            self.preset.value = OWN


def count_panel(rank: int = 32, width: int = 768, depth: int = 12) -> CountPanel | None:
    """Show how both counts follow from rank, width and depth.

    Args:
        rank, width, depth: where the panel starts.

    Returns:
        The panel, already shown; None in the still form, a table and a figure.

    Raises:
        SerialLoRAError: if a number is below 1 or the rank is above the width.
    """
    start = (rank, width, depth)
    count_table(*start)  # refuses bad numbers before anything is built
    return show(lambda: CountPanel(*start), lambda: show_counts(*start))
