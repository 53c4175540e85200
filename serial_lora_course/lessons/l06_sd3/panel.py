"""A slider over drawings that were made before, with one setting after another.

It is plain HTML: a range input that moves strips of drawings behind windows. So it moves at once, and without
a kernel: in an exported page and on the site as well as in JupyterLab. Where a page takes the style sheet
away (as of a notebook that is not trusted yet), the strips themselves are left, a row for each prompt.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from zlib import crc32

import numpy as np
from IPython import display
from PIL import Image

CELL = 128  # pixels of a drawing on the screen
PAIR = 2 * CELL + 4  # and of two
LARGEST = 256  # pixels of a drawing in the page: larger ones would fill a notebook

SHEET = """
.{name} label {{ display: flex; gap: 12px; align-items: center; margin: 0 0 10px; }}
.{name} input {{ width: 320px; }}
.{name} figure {{ margin: 0; width: {pair}px; }}
.{name} .pair {{ display: flex; gap: 4px; }}
.{name} .pair > img {{ width: {cell}px; height: {cell}px; margin: 0; image-rendering: pixelated; }}
.{name} .drawings {{ display: flex; flex-wrap: wrap; gap: 12px; max-width: {width}px; }}
.{name} .window {{ width: {cell}px; height: {cell}px; overflow: hidden; }}
.{name} .window img {{ display: block; height: {cell}px !important; width: {strip}px !important;
  max-width: none !important; margin: 0; transform: translateX(calc(var(--at) * -{cell}px));
  image-rendering: pixelated; }}
.{name} figcaption {{ font-size: 12px; line-height: 1.2; }}
"""
# JupyterLab takes arrow keys for its cells, but for what says that it wants them.
MOVE = (
    "const panel = this.closest('[data-settings]');"
    "panel.style.setProperty('--at', this.value);"
    "panel.querySelector('output').value = panel.dataset.settings.split(' ')[this.value];"
)


def drawings_panel(
    strips: Sequence[np.ndarray],
    label: str,
    settings: Sequence[float],
    captions: Sequence[str],
    goal: np.ndarray,
) -> None:
    """Show drawings of N prompts under a slider for a setting, beside what they should be.

    Args:
        strips: for each setting the N drawings, uint8 (N, side, side, 3).
        label: what the setting is.
        settings: as many as there are strips.
        captions: of the N prompts.
        goal: the style's own N drawings, as large.
    """
    written = [f"{setting:.3g}" for setting in settings]
    places = zip(*strips, goal, captions, strict=True)
    figures = "".join(_figure(drawings, hers, words) for *drawings, hers, words in places)
    name = f"drawings-{crc32(figures.encode()):08x}"
    sheet = SHEET.format(
        name=name, cell=CELL, pair=PAIR, strip=CELL * len(settings), width=4 * (PAIR + 12)
    )
    slider = (
        f'<input type="range" min="0" max="{len(settings) - 1}" value="0" step="1" '
        f'aria-label="{escape(label)}" data-lm-suppress-shortcuts="true" oninput="{MOVE}">'
    )
    page = (
        f'<div class="{name}" style="--at: 0" data-settings="{" ".join(written)}">'
        f"<style>{sheet}</style>"
        f"<label>{escape(label)} {slider}<output>{written[0]}</output></label>"
        f'<div class="drawings">{figures}</div></div>'
    )
    text = f"[Panel: {'; '.join(captions)}, {label} {', '.join(written)}]"
    display.display({"text/html": page, "text/plain": text}, raw=True)


def _figure(drawings: Sequence[np.ndarray], goal: np.ndarray, caption: str) -> str:
    """One prompt's drawings, side by side, behind a window as large as one of them, and the goal."""
    words = escape(caption)
    strip = _image(drawings, f"{words}, one drawing for each setting")
    pair = f'<div class="window">{strip}</div>{_image([goal], f"{words}, as it should be")}'
    return f'<figure><div class="pair">{pair}</div><figcaption>{words}</figcaption></figure>'


def _image(drawings: Sequence[np.ndarray], alt: str) -> str:
    """Drawings side by side in the page itself."""
    side = min(drawings[0].shape[0], LARGEST)
    strip = Image.fromarray(np.concatenate(drawings, axis=1))
    strip = strip.resize((side * len(drawings), side))
    buffer = io.BytesIO()
    strip.quantize(128, Image.Quantize.MAXCOVERAGE).save(buffer, "png", optimize=True)
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{source}">'
