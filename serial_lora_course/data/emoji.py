"""The same 1,900 things drawn by several designers: pictures, captions, masks and *styles*.

The drawings lie in the package, one zip file a style, as ``data_scripts/drawings.py`` drew them.
Names, groups and subgroups are facts of Unicode's emoji list and stand in
``assets/emoji_subgroups.tsv``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from serial_lora.errors import require_choice

STYLES = ("twemoji", "openmoji", "openmoji-line", "noto-mono")
UNSEEN_STYLES = ("symbola", "unifont")
"""By designers whose hand no tiny model was pretrained on; they draw fewer things."""
ATTRIBUTION = {
    "twemoji": "Twemoji, copyright Twitter, Inc. and contributors, CC BY 4.0",
    "openmoji": "OpenMoji, openmoji.org, CC BY-SA 4.0",
    "openmoji-line": "OpenMoji, openmoji.org, CC BY-SA 4.0 (outlines only)",
    "noto-mono": "Noto Emoji, copyright Google, SIL Open Font License 1.1",
    "symbola": "Symbola, copyright George Douros, free for any use",
    "unifont": "GNU Unifont, copyright its contributors, SIL Open Font License 1.1",
    "photographs": "photographs: stamps of Tux Paint (tuxpaint.org), their contributors, GPL 2 or later",
}
INDEX = "index.json"  # in each zip file; data_scripts/drawings.py says what it holds
MARGIN = 0.04  # empty border on each side of a drawing, as a fraction of the picture


@dataclass(frozen=True)
class Concept:
    """One line of Unicode's list: what a picture shows, however it is drawn."""

    codepoints: str
    name: str
    group: str
    subgroup: str


@dataclass(frozen=True, eq=False)
class EmojiSet:
    """All drawings of one style, of one size; each is made ready when it is first asked for.

    ``draw`` makes uint8 (size, size, 4), red green blue alpha, not premultiplied, of a file's name.
    """

    style: str
    concepts: tuple[Concept, ...]  # what each drawing shows
    files: tuple[str, ...]  # one name for concepts that have one drawing between them
    draw: Callable[[str], np.ndarray]

    def __len__(self) -> int:
        return len(self.concepts)

    @property
    def names(self) -> list[str]:
        return [concept.name for concept in self.concepts]

    @cached_property
    def positions(self) -> dict[str, int]:
        """Code points of a concept -> position of its drawing."""
        return {concept.codepoints: index for index, concept in enumerate(self.concepts)}

    @cached_property
    def pictures(self) -> np.ndarray:
        """Every drawing, uint8 (N, size, size, 4); about a second for all of a style."""
        return self.some(range(len(self)))

    def some(self, indices: Sequence[int]) -> np.ndarray:
        """Only these drawings, uint8 (len(indices), size, size, 4)."""
        return np.stack([self.draw(self.files[index]) for index in indices])

    def picture(self, index: int) -> Image.Image:
        """Picture ``index`` laid on white paper, as an RGB image."""
        drawing = Image.fromarray(self.draw(self.files[index]), "RGBA")
        sheet = Image.new("RGBA", drawing.size, "white")
        return Image.alpha_composite(sheet, drawing).convert("RGB")


@lru_cache
def emoji_concepts() -> tuple[Concept, ...]:
    """Every concept of the list that the package carries, in Unicode's order."""
    table = files("serial_lora_course") / "assets" / "emoji_subgroups.tsv"
    lines = [line for line in table.read_text("utf-8").splitlines() if not line.startswith("#")]
    return tuple(Concept(*line.split("\t")) for line in lines[1:])


@lru_cache
def load_emoji(style: str, size: int = 64) -> EmojiSet:
    """All pictures of ``style``, ``size`` pixels square."""
    require_choice("emoji style", style, STYLES + UNSEEN_STYLES)
    drawn = _index(style)["drawn"]
    concepts = tuple(concept for concept in emoji_concepts() if concept.codepoints in drawn)
    names = tuple(drawn[concept.codepoints] for concept in concepts)
    return EmojiSet(style, concepts, names, partial(_drawing, style, size))


def shipped_file(style: str) -> Path:
    """The file of the package that holds a style's drawings."""
    return Path(str(files("serial_lora_course") / "assets" / "drawings" / f"{style}.zip"))


@lru_cache
def shipped_zip(style: str) -> zipfile.ZipFile:
    """That file, opened."""
    # In memory: processes that a data loader forks must not share one place in an open file.
    return zipfile.ZipFile(io.BytesIO(shipped_file(style).read_bytes()))


@lru_cache
def _index(style: str) -> dict[str, dict]:
    return json.loads(shipped_zip(style).read(INDEX))


@lru_cache(maxsize=16)  # neighbours in the list lie on one sheet; all would take 100 MB
def _sheet(style: str, name: str) -> Image.Image:
    with Image.open(io.BytesIO(shipped_zip(style).read(name))) as sheet:
        return sheet.convert("RGBA")


@cache
def _drawing(style: str, size: int, name: str) -> np.ndarray:
    sheet, *box = _index(style)["places"][name]
    drawing = np.asarray(fit(_sheet(style, sheet).crop(box), size))
    drawing.flags.writeable = False  # everybody who asks for it gets this one
    return drawing


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
