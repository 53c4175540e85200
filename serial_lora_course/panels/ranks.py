"""The panel of lesson 01: the rank moves over a matrix's real spectrum, and what is missed is seen.

As every panel, it has a still form (see `serial_lora_course.frontend`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets
from torch import Tensor

from serial_lora_course.lessons.l01_maths.figures import plot_rank
from serial_lora_course.panels.shown import Accessibility, show
from serial_lora_course.plots.style import display_figure


class RankPanel(ipywidgets.VBox):
    """A slider for the rank, over what `plot_rank` shows of the chosen matrix.

    Attributes:
        name: which of the matrices; rank: the slider, which never exceeds the full rank.
    """

    def __init__(self, matrices: Mapping[str, Tensor], rank: int = 4) -> None:
        self.matrices = matrices
        self.name = ipywidgets.Dropdown(options=list(matrices), description="matrix")
        self.rank = ipywidgets.IntSlider(
            rank, min=1, max=self._full(), description="rank", continuous_update=False
        )
        self.name.observe(self._limit_rank, names="value")  # before it is drawn
        controls = {"name": self.name, "rank": self.rank}
        shown = ipywidgets.interactive_output(self._show, controls)
        super().__init__([*controls.values(), shown, Accessibility()])

    def _full(self) -> int:
        return min(self.matrices[self.name.value].shape)

    def _limit_rank(self, _: Any) -> None:
        self.rank.max = self._full()  # which lowers the rank too

    def _show(self, name: str, rank: int) -> None:
        display_figure(plot_rank(name, self.matrices[name], rank))


def rank_panel(matrices: Mapping[str, Tensor], rank: int = 4) -> RankPanel | None:
    """Show what a rank keeps of some matrices (m, n) and what it misses.

    Args:
        matrices: what to call each -> the matrix.
        rank: where the slider starts.

    Returns:
        The panel, already shown; None in the still form, one figure a matrix.

    Raises:
        SerialLoRAError: a matrix has no such rank, or holds values that are not finite.
    """

    def still() -> None:
        for name, matrix in matrices.items():
            display_figure(plot_rank(name, matrix, rank))

    return show(lambda: RankPanel(matrices, rank), still)
