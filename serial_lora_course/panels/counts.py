"""Panels that a learner moves, each with a still form of the same content.

A panel needs a live kernel and a browser. Where there is none (a notebook run by a test or a
builder, a code-hosting page) it shows a table and a figure instead. `SERIAL_LORA_STATIC=1` in the
environment asks for that everywhere.
"""

from __future__ import annotations

from typing import Any

import ipywidgets
import pandas as pd

from serial_lora.counting import BYTES_PER_FLOAT32, lora_count, serial_lora_count
from serial_lora_course.figures.counts import plot_counts
from serial_lora_course.figures.style import METHOD_LOOKS, display_figure
from serial_lora_course.frontend import is_static
from serial_lora_course.models.architectures import ARCHITECTURES


def count_table(rank: int, width: int, depth: int) -> pd.DataFrame:
    """Both methods' parameters and float32 bytes, and LoRA's size over Serial LoRA's.

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
    return table.set_index("method")


def _readable_bytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _count_html(table: pd.DataFrame) -> str:
    """The table as rows of words and bars; the bars share one scale."""
    largest = table["parameters"].max()
    rows = []
    for (method, row), key in zip(table.iterrows(), ("lora", "serial_lora"), strict=True):
        share = 100 * row["parameters"] / largest
        rows.append(
            f"<tr><th style='text-align:left;padding:2px 12px 2px 0'>{method}</th>"
            f"<td style='text-align:right;padding:2px 12px'>{row['parameters']:,} parameters</td>"
            f"<td style='text-align:right;padding:2px 12px'>"
            f"{_readable_bytes(row['float32 bytes'])}</td>"
            f"<td style='width:280px'><div role='img' aria-label='{share:.0f}% of the longer bar' "
            f"style='height:16px;width:{share:.2f}%;background:{METHOD_LOOKS[key]['color']}'></div></td>"
            "</tr>"
        )
    ratio = table["ratio"].iloc[0]
    return (
        f"<table>{''.join(rows)}</table>"
        f"<p>LoRA holds <b>{ratio:g}</b> times Serial LoRA's parameters.</p>"
    )


_CUSTOM = "your own"
_PRESETS: dict[str, tuple[int, int, int]] = {
    f"{item.title.partition(',')[0]}, {tower.name}": (item.rank, tower.width, tower.depth)
    for item in ARCHITECTURES.values()
    for tower in item.towers
}


class CountPanel(ipywidgets.VBox):
    """Sliders for rank, width and depth over a live comparison of both counts.

    Attributes:
        rank, width, depth: integer sliders; the rank can never exceed the width.
        preset: fills the sliders with a real model's tower.
        result: the HTML that shows the counts, bytes, ratio and bars.
    """

    def __init__(self, rank: int = 32, width: int = 768, depth: int = 12) -> None:
        self._filling = False
        table = count_table(rank, width, depth)  # refuses bad numbers before anything is built
        style: dict[str, Any] = {"style": {"description_width": "60px"}}
        slider = ipywidgets.IntSlider
        self.preset = ipywidgets.Dropdown(
            options=[_CUSTOM, *_PRESETS], value=_CUSTOM, description="model", **style
        )
        self.rank = slider(rank, min=1, max=min(256, width), description="rank", **style)
        self.width = slider(
            width, min=min(64, width), max=max(2048, width), step=64, description="width", **style
        )
        self.depth = slider(depth, min=1, max=max(48, depth), description="depth", **style)
        self.result = ipywidgets.HTML(_count_html(table))
        super().__init__([self.preset, self.rank, self.width, self.depth, self.result])
        self.preset.observe(self._fill_in, names="value")
        for control in (self.rank, self.width, self.depth):
            control.observe(self._recount, names="value")

    @property
    def table(self) -> pd.DataFrame:
        """The numbers shown now."""
        return count_table(self.rank.value, self.width.value, self.depth.value)

    def _fill_in(self, change: dict[str, Any]) -> None:
        if change["new"] == _CUSTOM:
            return
        rank, width, depth = _PRESETS[change["new"]]
        self._filling = True
        self.width.value, self.depth.value = width, depth
        self.rank.max = min(256, width)
        self.rank.value = rank
        self._filling = False
        self._recount({})

    def _recount(self, _: dict[str, Any]) -> None:
        if self._filling:
            return
        # Lowering the maximum also lowers the rank, so the rank stays within the width.
        self.rank.max = min(256, self.width.value)
        self.result.value = _count_html(self.table)
        chosen = (self.rank.value, self.width.value, self.depth.value)
        if _PRESETS.get(self.preset.value) != chosen:
            self.preset.value = _CUSTOM


def count_panel(
    rank: int = 32, width: int = 768, depth: int = 12, static: bool | None = None
) -> CountPanel | None:
    """Show how both counts follow from rank, width and depth.

    Args:
        rank, width, depth: where the panel starts.
        static: True for a table and a figure, False for sliders; when left out, sliders where a
            live notebook is there to move them.

    Returns:
        The panel, already shown; None in the still form.

    Raises:
        SerialLoRAError: if a number is below 1 or the rank is above the width.
    """
    from IPython.display import display

    table = count_table(rank, width, depth)
    if is_static() if static is None else static:
        shown = table.assign(
            parameters=table["parameters"].map("{:,}".format),
            **{"float32 bytes": table["float32 bytes"].map("{:,}".format)},
        )
        display(shown)
        name = f"rank {rank}, width {width}, depth {depth}"
        display_figure(plot_counts({name: tuple(table["parameters"])}))
        return None
    panel = CountPanel(rank, width, depth)
    display(panel)
    return panel
