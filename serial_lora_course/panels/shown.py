"""Showing a panel where somebody can move it, and its still form where nobody can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anywidget
import ipywidgets

from serial_lora_course.frontend import is_static

ASSETS = Path(__file__).resolve().parents[1] / "assets"


class Accessibility(anywidget.AnyWidget):
    """Shows nothing; among a panel's children it gives the others their keys, and sliders a name."""

    _esm = ASSETS / "accessibility.js"


def show(panel: Callable[[], ipywidgets.VBox], still: Callable[[], None]) -> ipywidgets.VBox | None:
    """Show a panel, or call what shows its still form (see `serial_lora_course.frontend`)."""
    from IPython.display import display

    if is_static():
        return still()
    made = panel()
    display(made)
    return made
