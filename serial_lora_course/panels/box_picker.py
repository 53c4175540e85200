"""A picture over which a box is dragged: the widget of the panel of masks, in `box_picker.js`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image

from serial_lora_course.panels.shown import ASSETS
from serial_lora_course.plots.masks import BOX_COLOUR

SHOWN = 256
"""Screen pixels of a picture's longer side in the panel."""


class BoxPicker(anywidget.AnyWidget):
    """A picture over which a box is dragged, with a pointer or with the arrow keys.

    A box that is set is brought into order: reversed corners are sorted and what lies outside the
    picture is cut off. A box with no area in the picture leaves the one before in its place.

    Attributes:
        picture: PNG bytes; width, height: of the picture whose pixels the box is in.
        box: x0, y0, x1, y1 at the picture's pixel edges.
        label: what stands above the picture, and what a screen reader calls it.
        message: what stands below it and is read out when it changes.
        shown_width: in screen pixels; colour: of the box.
    """

    _esm = ASSETS / "box_picker.js"
    _css = ASSETS / "box_picker.css"
    _good = (0.0, 0.0, 1.0, 1.0)  # the last box that was one
    picture = traitlets.Bytes().tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    box = traitlets.Tuple(*[traitlets.Float()] * 4, default_value=_good).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    shown_width = traitlets.Int(SHOWN).tag(sync=True)
    colour = traitlets.Unicode(BOX_COLOUR).tag(sync=True)

    def show(self, picture: Image.Image, box: Sequence[float]) -> None:
        """Change to another picture, with this box over it."""
        with self.hold_sync():
            self.width, self.height = picture.size
            self.shown_width = shown_width(picture.size)
            self.picture = png_bytes(picture)
            self.box = tuple(box)

    @traitlets.validate("box")
    def _in_order(self, proposal: dict[str, Any]) -> tuple[float, ...]:
        # Not `self.box`: that is the new box already when it comes from the browser.
        self._good = tidy_box(proposal["value"], (self.width, self.height)) or self._good
        return self._good


def tidy_box(box: Sequence[float], size: tuple[int, int]) -> tuple[float, ...] | None:
    """A box with its corners sorted, cut to a picture of (width, height); None without area."""
    if not np.isfinite(box).all():
        return None
    x = np.clip(sorted((box[0], box[2])), 0, size[0])
    y = np.clip(sorted((box[1], box[3])), 0, size[1])
    (x0, x1), (y0, y1) = np.float32(x), np.float32(y)  # as the model takes them
    if x0 == x1 or y0 == y1:
        return None
    return tuple(float(edge) for edge in (x[0], y[0], x[1], y[1]))


def shown_width(size: tuple[int, int]) -> int:
    """Screen pixels of a picture of (width, height) from left to right."""
    return round(SHOWN * size[0] / max(size))


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as PNG, with at most two pixels for one of the screen, as fine screens have."""
    picture = picture.copy()
    picture.thumbnail((2 * SHOWN, 2 * SHOWN))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
