"""The house style of every picture, and how a figure is described, shown and saved.

Each function of this room returns a `matplotlib.figure.Figure` that carries its own description in
words as `figure.alt_text`. In a notebook, show it with `display_figure(figure)`.

JupyterLab shows a stored ``image/png`` without alternative text. So `display_figure` shows HTML, an
`<img>` with its `alt`; terminals and diffs get the description as ``text/plain``, and `save_figure` writes it
into the file.

Colours are Okabe and Ito's, which people with any of the common colour-vision deficiencies can
tell apart; methods also differ by marker and line, so no figure depends on colour alone.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.labs.methods import METHOD_TITLES

INK = "#222222"
QUIET = "#6b6b6b"
BLUE = "#0072b2"
VERMILION = "#d55e00"
GREEN = "#009e73"
PURPLE = "#cc79a7"
DASHED = (0, (5, 3))

METHOD_LOOKS: dict[str, dict[str, str]] = {
    "lora": {"color": BLUE, "marker": "o", "linestyle": "-"},
    "serial_lora": {"color": VERMILION, "marker": "s", "linestyle": "-"},
    "lora_plus": {"color": "#56b4e9", "marker": "^", "linestyle": "--"},
    "serial_lora_plus": {"color": "#e69f00", "marker": "D", "linestyle": "--"},
    "lora_equal_budget": {"color": GREEN, "marker": "v", "linestyle": ":"},
}
OTHER_LOOK = {"color": PURPLE, "marker": "P", "linestyle": "-."}

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 11,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "serial-lora",  # the same figure gives the same file
}
"""Matplotlib settings that every figure is drawn and saved under."""

SCREEN_DPI = 110
LARGE = 10_000
ASSETS = Path(__file__).resolve().parents[1] / "assets"


def house_style() -> AbstractContextManager[None]:
    """Draw under the course's settings, and put matplotlib's own back afterwards."""
    return matplotlib.rc_context(STYLE)


@contextmanager
def styled_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many inches, to be drawn on in the block, under these settings."""
    with house_style():
        yield Figure(figsize=(width, height), layout="constrained")


def method_look(name: str) -> dict[str, str]:
    """A method's color, marker, linestyle and label."""
    return METHOD_LOOKS.get(name, OTHER_LOOK) | {"label": METHOD_TITLES.get(name, name)}


def with_description(figure: Figure, text: str) -> Figure:
    """The figure, with its description in words."""
    figure.alt_text = " ".join(text.split())  # type: ignore[attr-defined]
    return figure


def describe(figure: Figure) -> str:
    """The figure in words: its `alt_text`, or the empty string when it has none."""
    return getattr(figure, "alt_text", "")


def figure_png(figure: Figure) -> bytes:
    """The figure as PNG bytes, its description kept in the file's metadata.

    One of more than `LARGE` bytes, such as with photographs in it, gets 256 colours, near enough to its own
    that a drawing's flat colour looks the same in every figure: a third of the size, for light notebooks.
    """
    buffer = io.BytesIO()
    text = describe(figure)
    with house_style():
        metadata = {"Description": text, "Software": None}
        figure.savefig(buffer, format="png", dpi=SCREEN_DPI, metadata=metadata)
    if buffer.tell() <= LARGE:
        return buffer.getvalue()
    information = PngInfo()
    information.add_itxt("Description", text)
    small = io.BytesIO()
    picture = Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
    picture.save(small, "png", optimize=True, pnginfo=information)
    return small.getvalue()


def save_figure(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Write a figure as .png or .svg, with its description inside; returns the path."""
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in ("png", "svg"):
        raise SerialLoRAError(f"a figure is saved as .png or .svg, not {path.name!r}; rename it.")
    metadata: dict[str, Any] = {"Description": describe(figure)}
    metadata |= {"Date": None} if kind == "svg" else {"Software": None}  # no dates in the file
    content = io.BytesIO()
    with house_style():
        figure.savefig(content, format=kind, dpi=dpi, metadata=metadata)
    return write_whole(path, content.getvalue())


def display_figure(figure: Figure, alt: str | None = None) -> None:
    """Show any figure of matplotlib in a notebook, with ``alt`` or its own `alt_text` as its description."""
    text = describe(with_description(figure, alt or describe(figure)))
    if not text:
        raise SerialLoRAError(
            "this figure has no description; pass alt='...' in a sentence or two."
        )
    _display("image/png", figure_png(figure), text)


def display_drawing(name: str) -> None:
    """Show a drawing that comes with the course, such as ``serial_vs_lora``, and its description."""
    svg = (ASSETS / f"{name}.svg").read_bytes()
    _display("image/svg+xml", svg, ElementTree.fromstring(svg).findtext("{*}desc", ""))


def _display(kind: str, image: bytes, text: str) -> None:
    from IPython.display import display

    source = base64.b64encode(image).decode()
    page = f'<img alt="{escape(text)}" src="data:{kind};base64,{source}">'
    display({"text/html": page, "text/plain": f"[Figure: {text}]"}, raw=True)
