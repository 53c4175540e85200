"""What a panel needs besides so that it can be moved by keyboard, and is heard, in JupyterLab."""

from __future__ import annotations

from pathlib import Path

import anywidget


class Accessibility(anywidget.AnyWidget):
    """Shows nothing; among a panel's children it gives the others their keys, and sliders a name."""

    _esm = Path(__file__).resolve().parents[1] / "assets" / "accessibility.js"
