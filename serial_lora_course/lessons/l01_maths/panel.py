"""The panel of lesson 01: the rank moves over a matrix's spectrum, and the error is seen."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
from torch import Tensor

from serial_lora_course.lessons.l01_maths.figures import plot_rank
from serial_lora_course.plots.panel import movable, show, slider
from serial_lora_course.plots.style import display_figure


def rank_panel(matrices: Mapping[str, Tensor], rank: int = 4) -> ipywidgets.VBox | None:
    """Show what a rank keeps of some matrices (m, n), and the error.

    Args:
        matrices: what to call each -> the matrix.
        rank: where the slider starts.

    Returns:
        The panel, already shown; None in the still form, one figure a matrix.
    """

    def draw(name: str, rank: int) -> None:
        display_figure(plot_rank(name, matrices[name], min(rank, *matrices[name].shape)))

    def panel() -> ipywidgets.VBox:
        largest = max(min(matrix.shape) for matrix in matrices.values())
        names = ipywidgets.Dropdown(options=list(matrices), description="matrix")
        return movable(draw, {"name": names, "rank": slider(rank, 1, largest, 1, "rank")})

    return show(panel, lambda: [draw(name, rank) for name in matrices])
