"""The panel of lesson 10: accuracy on two tasks for any weights of their two adapters."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from serial_lora_course.lessons.l11_many.figures import Points, plot_mixture
from serial_lora_course.panels.shown import Accessibility, show
from serial_lora_course.plots.style import display_figure

STILL = ((1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (1.5, 1.5))
"""The weights of the still form, side by side."""


def mixture_panel(mixed: Callable[[float, float], Points], base: Points) -> None:
    """Show what a mixture reaches, with a slider for each weight.

    Args:
        mixed: the two weights -> accuracy of the mixture on both tasks, in per cent.
        base: the same of the model without adapters.
    """

    def draw(*weights: tuple[float, float]) -> None:
        display_figure(plot_mixture({f"{a:g} / {b:g}": mixed(a, b) for a, b in weights}, base))

    def panel() -> ipywidgets.VBox:
        limits = {"min": 0, "max": 2, "step": 0.25, "continuous_update": False}
        sliders = [ipywidgets.FloatSlider(value, **limits) for value in (1.0, 0.5)]
        moved = ipywidgets.interactive(
            lambda first, second: draw((first, second)), first=sliders[0], second=sliders[1]
        )
        return ipywidgets.VBox([moved, Accessibility()])

    show(panel, lambda: draw(*STILL))
