"""Three pictures with one box, which is dragged over any of them; the front end is `mask_picker.js`."""

from __future__ import annotations

import io
from pathlib import Path

import anywidget
import numpy as np
import traitlets
from PIL import Image

from serial_lora_course.plots.masks import BOX_COLOUR

HERE = Path(__file__).parent
SHOWN = 280
"""Screen pixels of a picture's longer side."""


class MaskPicker(anywidget.AnyWidget):
    """A picture beside two answers to one box.

    Attributes:
        picture, before, after: PNG bytes, shown ``shown_width`` screen pixels wide.
        titles, captions: over and under each of the three.
        width, height: of the picture whose pixels the box is in.
        box: x0, y0, x1, y1 at the picture's pixel edges, x0 below x1 and y0 below y1.
    """

    _esm = HERE / "mask_picker.js"
    _css = HERE / "mask_picker.css"
    picture = traitlets.Bytes().tag(sync=True)
    before = traitlets.Bytes().tag(sync=True)
    after = traitlets.Bytes().tag(sync=True)
    titles = traitlets.List(traitlets.Unicode(), ["", "", ""]).tag(sync=True)
    captions = traitlets.List(traitlets.Unicode(), ["", "", ""]).tag(sync=True)
    shown_width = traitlets.Int(SHOWN).tag(sync=True)
    width = traitlets.Int(1).tag(sync=True)
    height = traitlets.Int(1).tag(sync=True)
    box = traitlets.List(traitlets.Int(), [0, 0, 1, 1]).tag(sync=True)
    colour = traitlets.Unicode(BOX_COLOUR).tag(sync=True)

    def change(self, picture: Image.Image, box: list[int]) -> None:
        """Change to another picture, with this box over it."""
        with self.hold_sync():
            self.width, self.height = picture.size
            self.shown_width = round(SHOWN * picture.width / max(picture.size))
            self.picture = png_bytes(picture)
            self.box = box


def png_bytes(picture: Image.Image | np.ndarray) -> bytes:
    """A picture as PNG, with at most two pixels for one of the screen, as fine screens have."""
    picture = picture.copy() if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.thumbnail((2 * SHOWN, 2 * SHOWN))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
