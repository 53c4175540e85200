"""What panels share: a figure that is drawn again when a control moves, and an adapter at any scale.

A panel is ipywidgets over the function that draws a lesson's figure. Where no kernel and browser are there
to move it (see `is_static`), the same function draws a few settings side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
from IPython import display, get_ipython
from torch import nn

from serial_lora import adapters, disabled, set_scale

LARGEST_SCALE = 1.5


class Accessibility(anywidget.AnyWidget):
    """Shows nothing; among a panel's children it gives the others their keys, and sliders a name.

    JupyterLab would take the arrow keys of a slider to move between cells.
    """

    _esm = Path(__file__).with_name("accessibility.js")


def movable(draw: Callable[..., Any], controls: dict[str, ipywidgets.Widget]) -> ipywidgets.VBox:
    """Controls over what ``draw`` shows, which is called again, with their values, when one moves."""
    moved = ipywidgets.interactive(draw, **controls)
    moved.update()
    return ipywidgets.VBox([moved, Accessibility()])


def is_static() -> bool:
    """Whether panels are still: where `SERIAL_LORA_STATIC=1` asks for it, and where no kernel runs."""
    asked = os.environ.get("SERIAL_LORA_STATIC")
    return asked == "1" if asked else getattr(get_ipython(), "kernel", None) is None


def show(panel: Callable[[], ipywidgets.VBox], still: Callable[[], None]) -> ipywidgets.VBox | None:
    """Display a panel and return it, or call what shows its still form."""
    if is_static():
        return still()
    made = panel()
    display.display(made)
    return made


def slider(value: float, low: float, high: float, step: float, name: str) -> ipywidgets.Widget:
    """A slider of whole numbers, or of others where ``step`` is no whole number; moved by keys too."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    return kind(
        value=min(max(value, low), high),
        min=low,
        max=high,
        step=step,
        description=name,
        continuous_update=False,
        style={"description_width": "initial"},
        layout={"width": "480px", "max_width": "100%"},
    )


def scale_slider(model: nn.Module) -> ipywidgets.Widget:
    """A slider for the scale of a model's adapters, from where it is now."""
    own = _own_scale(model)
    set_scale(model, own)  # refuses a model without adapters, or with merged ones
    name = f"scale (0: no adapter, {own:g}: its own)"
    return slider(own, 0.0, LARGEST_SCALE, 0.05, name)


@contextmanager
def at_scale(model: nn.Module, scale: float | None) -> Iterator[nn.Module]:
    """The model in evaluation mode, its adapters at ``scale`` (None: without them), and as it was after."""
    own = _own_scale(model)
    modes = {module: module.training for module in model.modules()}
    set_scale(model, own if scale is None else scale)
    try:
        model.eval()
        with disabled(model) if scale is None else nullcontext():
            yield model
    finally:
        set_scale(model, own)
        for module, training in modes.items():
            module.training = training


def _own_scale(model: nn.Module) -> float:
    return next((adapter.scale for adapter in adapters(model).values()), 1.0)
