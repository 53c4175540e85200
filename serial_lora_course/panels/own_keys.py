"""A panel's keys: JupyterLab leaves them to the widgets of a panel that has this among its children."""

from __future__ import annotations

from pathlib import Path

import anywidget


class OwnKeys(anywidget.AnyWidget):
    """Shows nothing; what takes the focus in the box around it keeps its keys."""

    _esm = Path(__file__).resolve().parents[1] / "assets" / "own_keys.js"
