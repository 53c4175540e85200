"""The tiny styles: four, as the paper has four, of the same things.

The tiny SD3 was pretrained on other designers' drawings: it knows every thing here, and none of these
styles. Two of them change who draws, two how a drawing is rendered. Things are the same in every style,
so that styles differ in nothing else: a fixed 300 of the visible concepts to train on, and 200 of the
hidden ones (see :mod:`serial_lora_course.data.emoji_sets`). No thing and no drawing is on both sides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.color import rgb2lab

from serial_lora_course.data.emoji import ATTRIBUTION, MARGIN, STYLES, Concept, load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints, unseen_drawings
from serial_lora_course.data.subsets import hash_order
from serial_lora_course.data.types import Pictures, StyleData, StyleExample

SIZE = 64  # pixels, as in pretraining
PICTURES = {"train": 300, "test": 200}

# Those that can be drawn: no people, signs or flags.
GROUPS = (
    "Smileys & Emotion",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
)

WHITE = ("ffffff",)
# Without greens and purples, which the first tiny SD3's autoencoder lost.
LAMPLIGHT = tuple(  # sky, glow, then from dark to bright
    "060910 1c4488 183468 2c62a8 6a94c0 c09a70 e8a44c fcc868 fdeab0".split()
)
ARCADE = tuple(  # paper, line, then row by row: greys, reds, browns, yellows, greens, blues, others
    """
    ffffff 1b1a2e
    1b1a2e 3d4460 6b7590 a3b1c2 d6dfe8 ffffff
    7c1c34 c8283f f0645f
    5b3428 9a5a3c cf8f63 f5cba2
    df6f1b f8a428 ffd54a fff0b0
    1d5a3a 3b9c48 93d35c
    1b4176 2f77c8 58b0f0 b0e0fa
    117a80 54cdbb 4c2c80 8a5fca c0a0ec a92f74 ec6aa4 fab8d4
    """.split()
)


@dataclass(frozen=True)
class TinyStyle:
    """What is particular to one style."""

    description: str
    drawn_by: str  # a style of serial_lora_course.data.emoji
    rendering: str = "on paper"  # a key of RENDERINGS
    colours: tuple[str, ...] = WHITE  # the rendering's, in hex
    changes: str = ""  # what was done to the drawings, for the attribution


TINY_STYLES: dict[str, TinyStyle] = {
    "openmoji": TinyStyle("things as OpenMoji draws them, in colour", drawn_by="openmoji"),
    "line": TinyStyle(
        "things in OpenMoji's outlines, black ink on white paper", drawn_by="openmoji-line"
    ),
    "night": TinyStyle(
        "things as Twemoji draws them, after dark",
        drawn_by="twemoji",
        rendering="after dark",
        colours=LAMPLIGHT,
        changes="recoloured",
    ),
    "pixel": TinyStyle(
        "things as Twemoji draws them, made pixel art of 16 x 16 cells",
        drawn_by="twemoji",
        rendering="as pixels",
        colours=ARCADE,
        changes="reduced to pixel art",
    ),
}


def caption(concept: Concept) -> str:
    """The prompt that asks for a concept: its name, in the tiny tokenizer's letters."""
    return concept.name.replace("’", "'")


@lru_cache
def things() -> tuple[Concept, ...]:
    """The concepts that every style draws, of the groups that can be drawn, in Unicode's order."""
    drawn = [{concept.codepoints for concept in load_emoji(style).concepts} for style in STYLES]
    return tuple(
        concept
        for concept in load_emoji("twemoji").concepts
        if concept.group in GROUPS and all(concept.codepoints in codes for codes in drawn)
    )


def _example(name: str, concept: Concept) -> StyleExample:
    """A concept in one style."""
    emoji = load_emoji(TINY_STYLES[name].drawn_by, SIZE)
    (drawing,) = emoji.some([emoji.positions[concept.codepoints]])
    picture = Image.fromarray(render(name, drawing))
    return StyleExample(picture, caption(concept), f"{name}/{concept.codepoints}")


def render(name: str, drawing: np.ndarray) -> np.ndarray:
    """A drawing of the style's own hand, uint8 (side, side, 4), as (side, side, 3)."""
    style = TINY_STYLES[name]
    colours = np.array([list(bytes.fromhex(colour)) for colour in style.colours], np.uint8)
    return RENDERINGS[style.rendering](drawing, colours)


@lru_cache
def load_tiny_style(name: str) -> StyleData:
    """One tiny style, a key of :data:`TINY_STYLES`; the sources of its pictures are concepts."""
    style = TINY_STYLES[name]
    parts = {
        part: Pictures([f"{name}/{c.codepoints}" for c in chosen], partial(_example, name), chosen)
        for part, chosen in choose_things().items()
    }
    return StyleData(
        name=name,
        scale="tiny",
        train=parts["train"],
        test=parts["test"],
        attribution=", ".join(filter(None, (ATTRIBUTION[style.drawn_by], style.changes))),
        content=repr((style, SIZE)),
    )


@lru_cache
def choose_things() -> dict[str, tuple[Concept, ...]]:
    """The concepts of train and of test, the same for every style, in Unicode's order.

    Those of test share their drawing with no visible concept, whoever draws.
    """
    drawers = [load_emoji(style.drawn_by, SIZE) for style in TINY_STYLES.values()]
    unseen = [{e.concepts[i].codepoints for i in unseen_drawings(e)} for e in drawers]
    hidden, unseen = hidden_codepoints(), set.intersection(*unseen)
    pools = {
        "train": [concept for concept in things() if concept.codepoints not in hidden],
        "test": [concept for concept in things() if concept.codepoints in unseen],
    }
    return {part: _from_every_group(pool, PICTURES[part]) for part, pool in pools.items()}


def _from_every_group(concepts: list[Concept], count: int) -> tuple[Concept, ...]:
    """The first ``count`` in hashed order, taken from all groups at an equal pace."""
    sizes = Counter(concept.group for concept in concepts)
    taken: Counter[str] = Counter()
    pace = {}
    for position in hash_order([concept.codepoints for concept in concepts], 0, "styles"):
        group = concepts[position].group
        pace[position] = (taken[group] + 0.5) / sizes[group]
        taken[group] += 1
    kept = sorted(sorted(pace, key=pace.__getitem__)[:count])
    return tuple(concepts[position] for position in kept)


# --- renderings ----------------------------------------------------------------------------------
#
# A rendering takes a drawing, uint8 (side, side, 4) of red, green, blue, alpha, and a row of colours,
# uint8 (K, 3), and gives a picture, uint8 (side, side, 3). Nothing in it is left to chance.

OPAQUE = 128
CELLS = 16  # along a side of a picture in pixel art
SAMPLES = 5  # points along a side of a cell that vote for its colour
LEAST_COVER = 0.45  # share of a cell's points that must be drawn on; else it stays empty
LUMA = np.array([0.299, 0.587, 0.114])  # BT.601
CONTRAST = 1.6  # times a drawing's own, as far as the colours reach
GLOW = 3.2, 0.55  # standard deviation in pixels, strength


def on_paper(drawing: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The drawing as it is, on paper of the first colour."""
    sheet = Image.new("RGBA", drawing.shape[1::-1], (*map(int, colours[0]), 255))
    return np.asarray(Image.alpha_composite(sheet, Image.fromarray(drawing)).convert("RGB"))


def after_dark(drawing: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The drawing in other colours, glowing in the dark.

    Its own colours count only by their brightness, which picks a place on the ramp that all but
    the first two colours make. The first is the sky and the second the light round the drawing.
    """
    sky, light, ramp = colours[0], colours[1], colours[2:]
    rgb, alpha = drawing[..., :3] / 255, drawing[..., 3:] / 255
    # Luma alone calls a pure red dark; nobody looks at a tomato and sees a shadow.
    brightness = (rgb @ LUMA + rgb.max(-1)) / 2
    low, high = np.percentile(brightness[drawing[..., 3] >= OPAQUE], (2, 98))
    span = min(1.0, CONTRAST * (high - low))
    darkest = np.clip((low + high - span) / 2, 0, 1 - span)
    scaled = darkest + (brightness - low) * min(CONTRAST, 1 / max(high - low, 1e-6))
    position = np.clip(scaled, 0, 1) * (len(ramp) - 1)
    lit = np.stack([np.interp(position, range(len(ramp)), c) for c in ramp.T], axis=-1)
    width, strength = GLOW
    ground = sky + strength * gaussian_filter(alpha, (width, width, 0)) * light
    return np.clip(lit * alpha + ground * (1 - alpha), 0, 255).round().astype(np.uint8)


def as_pixels(drawing: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The drawing as pixel art of 16 x 16 cells, each of one of the colours.

    A cell takes the colour that most of it comes nearest to; a mean would muddy edges. The first
    colour is the paper and the second the line, one cell wide, drawn round what is there.
    """
    inside = _vote(drawing, colours[2:], CELLS - 2) + 2  # the line needs a cell on each side
    cells = np.pad(inside, 1, constant_values=1)
    drawn = cells > 1
    cells[~drawn] = 0
    cells[binary_dilation(drawn) & ~drawn] = 1
    scale = drawing.shape[0] // CELLS
    return colours[cells].repeat(scale, 0).repeat(scale, 1)


def _vote(drawing: np.ndarray, palette: np.ndarray, cells: int) -> np.ndarray:
    """The commonest colour in each cell, as its place in the palette; -1 where little is drawn."""
    fractions = (np.arange(cells * SAMPLES) + 0.5) / (cells * SAMPLES)
    points = (len(drawing) * (MARGIN + (1 - 2 * MARGIN) * fractions)).astype(int)
    voters = drawing[points][:, points]
    seen, known = (torch.from_numpy(rgb2lab(each)) for each in (voters[..., :3], palette))
    exact = "donot_use_mm_for_euclid_dist"
    nearest = torch.cdist(seen, known, compute_mode=exact).argmin(-1).numpy()  # (side, side)
    ballots = np.eye(len(palette))[nearest] * (voters[..., 3:] >= OPAQUE)
    votes = ballots.reshape(cells, SAMPLES, cells, SAMPLES, len(palette)).sum((1, 3))
    return np.where(votes.sum(-1) >= LEAST_COVER * SAMPLES**2, votes.argmax(-1), -1)


RENDERINGS = {"on paper": on_paper, "after dark": after_dark, "as pixels": as_pixels}
