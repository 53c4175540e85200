"""The panel of the lesson on many adapters: accuracy on two tasks for any weights of their adapters."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from serial_lora_course.lessons.l11_many.figures import Points, plot_mixture
from serial_lora_course.plots.panel import movable, show, slider
from serial_lora_course.plots.style import display_figure

STILL = ((1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (1.5, 1.5))
"""The weights of the still form, side by side."""


def mixture_panel(mixed: Callable[[float, float], Points], base: Points) -> ipywidgets.VBox | None:
    """Show what a mixture reaches, with a slider for each weight.

    Args:
        mixed: the two weights -> accuracy of the mixture on both tasks, in per cent.
        base: the same of the model without adapters.

    Returns:
        The panel, already shown; None in the still form.
    """

    def draw(*weights: tuple[float, float]) -> None:
        display_figure(plot_mixture({f"{a:g} / {b:g}": mixed(a, b) for a, b in weights}, base))

    def panel() -> ipywidgets.VBox:
        first, second = (slider(1.0, 0.0, 2.0, 0.25, f"weight of {task}") for task in base)
        moved = {"first": first, "second": second}
        return movable(lambda first, second: draw((first, second)), moved)

    return show(panel, lambda: draw(*STILL))
