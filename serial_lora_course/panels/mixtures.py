"""The panel of lesson 10: accuracy on two tasks for any weights of their two adapters."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from serial_lora_course.figures.mixtures import Points, plot_mixture
from serial_lora_course.figures.style import display_figure
from serial_lora_course.frontend import is_static
from serial_lora_course.panels.accessibility import Accessibility

STILL = ((1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (1.5, 1.5))
"""The weights of the still form, side by side."""


def mixture_panel(
    mixed: Callable[[float, float], Points], base: Points, static: bool | None = None
) -> None:
    """Show what a mixture reaches, with a slider for each weight.

    Args:
        mixed: the two weights -> accuracy of the mixture on both tasks, in per cent.
        base: the same of the model without adapters.
        static: True for some mixtures side by side, False for sliders; when left out, sliders where
            a live notebook is there to move them.
    """
    from IPython.display import display

    if is_static() if static is None else static:
        display_figure(plot_mixture({_name(a, b): mixed(a, b) for a, b in STILL}, base))
        return

    def show(first: float, second: float) -> None:
        figure = plot_mixture({_name(first, second): mixed(first, second)}, base)
        display_figure(figure)

    limits = {"min": 0, "max": 2, "step": 0.25, "continuous_update": False}
    sliders = [ipywidgets.FloatSlider(value, **limits) for value in (1.0, 0.5)]
    panel = ipywidgets.interactive(show, first=sliders[0], second=sliders[1])
    display(ipywidgets.VBox([panel, Accessibility()]))


def _name(first: float, second: float) -> str:
    return f"{first:g} / {second:g}"
