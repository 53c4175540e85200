"""Drawings laid over photographs: pictures in which every object's mask is known exactly.

A scene is a crop of a real photograph with a few drawings on it, scaled, turned and partly hidden
by one another. An object's mask is what can still be seen of it. Weather may lie over all of it: the
same objects, seen badly, with the same masks. Everything follows from the random generator that is
passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from serial_lora.errors import SerialLoRAError

OPAQUE = 128  # an alpha of half or more belongs to the object
ATTEMPTS = 100  # scenes without an object before it must be the recipe's fault
HILLS = 5  # of fog, along a side


# --- photographs ---------------------------------------------------------------------------------

#: They come with scikit-image and scikit-learn. No model is trained on a scene over a "test"
#: photograph, neither in pretraining nor in adapting, and every test scene is over one.
PHOTOGRAPHS: dict[str, tuple[str, ...]] = {
    "train": tuple(
        "astronaut brick camera cell chelsea clock flower grass hubble_deep_field "
        "immunohistochemistry moon page retina stereo_motorcycle text".split()
    ),
    "test": ("china", "coffee", "coins", "gravel", "rocket"),
}
SCIKIT_LEARN = ("china", "flower")  # the others are scikit-image's


@lru_cache
def photographs(split: str) -> tuple[np.ndarray, ...]:
    """The photographs of "train" or "test", each uint8 of shape (height, width, 3)."""
    return tuple(photograph(name) for name in PHOTOGRAPHS[split])


def photograph(name: str) -> np.ndarray:
    """One photograph by its name, uint8 (height, width, 3)."""
    from skimage import data as skimage_data  # only who looks at a photograph waits for it

    if name in SCIKIT_LEARN:
        folder = Path(find_spec("sklearn").origin).parent  # importing it takes half a second
        return np.asarray(Image.open(folder / "datasets" / "images" / f"{name}.jpg"))
    picture = getattr(skimage_data, name)()
    if isinstance(picture, tuple):  # a stereo pair: the left view
        picture = picture[0]
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])


# --- scenes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A picture and what can be seen of each object in it."""

    picture: np.ndarray  # uint8, (height, width, 3)
    masks: np.ndarray  # bool, (objects, height, width); no pixel belongs to two objects
    drawings: tuple[int, ...]  # for each mask the index of its drawing


@dataclass(frozen=True)
class SceneRecipe:
    """How scenes are composed. Sizes are fractions of the picture's shorter side."""

    height: int = 128
    width: int = 128
    objects: tuple[int, int] = (2, 5)
    sizes: tuple[float, float] = (0.25, 0.65)
    turn: float = 40.0  # degrees, either way
    clutter: float = 0.3  # chance of each of three pieces of other photographs
    least_visible: float = 0.4  # objects of which less can be seen are no objects to find
    least_pixels: int = 80


def box_of(mask: np.ndarray) -> np.ndarray:
    """The tightest box round a mask: x0, y0, x1, y1 at pixel edges, float32.

    A mask of (height, width); for an empty mask, which has no box, all four are 0.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return np.asarray(edges, np.float32)


def compose(
    drawings: np.ndarray,
    photographs: Sequence[np.ndarray],
    chance: np.random.Generator,
    recipe: SceneRecipe,
    outlines: np.ndarray | None = None,
) -> Scene:
    """One scene with at least one object in it.

    Args:
        drawings: uint8, (N, size, size, 4): red, green, blue, alpha.
        photographs: uint8 pictures to lay them on.
        chance: where all choices come from.
        outlines: uint8, (N, size, size): what counts as the object, where that is not the
            drawing's own alpha (the inside of a line drawing is part of it).
    """
    for _ in range(ATTEMPTS):
        scene = _attempt(drawings, photographs, chance, recipe, outlines)
        if len(scene.drawings):
            return scene
    raise SerialLoRAError(
        f"{ATTEMPTS} scenes in a row had no object of {recipe.least_pixels} visible pixels in "
        f"{recipe.width} x {recipe.height}; choose larger drawings or a milder recipe."
    )


def _attempt(drawings, photographs, chance, recipe: SceneRecipe, outlines) -> Scene:
    height, width = recipe.height, recipe.width
    canvas = _background(photographs, chance, height, width)
    for _ in range(3):
        if chance.random() < recipe.clutter:
            _paste_clutter(canvas, photographs, chance)
    count = int(chance.integers(recipe.objects[0], recipe.objects[1] + 1))
    chosen = chance.choice(len(drawings), count, replace=len(drawings) < count)
    whole = np.zeros((count, height, width), bool)
    for layer, index in enumerate(chosen):
        side = round(min(height, width) * chance.uniform(*recipe.sizes))
        pose = side, chance.uniform(-recipe.turn, recipe.turn), chance.random() < 0.5
        corner = _corner(chance, *pose[:2], recipe)
        cut = _placed(Image.fromarray(drawings[index], "RGBA"), *pose)
        canvas.paste(cut.convert("RGB"), corner, cut.getchannel("A"))
        shape = cut.getchannel("A")
        if outlines is not None:
            shape = _placed(Image.fromarray(outlines[index], "L"), *pose)
        sheet = Image.new("L", (width, height))
        sheet.paste(shape, corner)
        whole[layer] = np.asarray(sheet) >= OPAQUE
    masks, kept = _visible(whole, recipe)
    return Scene(np.asarray(canvas), masks, tuple(int(i) for i in chosen[kept]))


def _visible(whole: np.ndarray, recipe: SceneRecipe) -> tuple[np.ndarray, np.ndarray]:
    """What later layers leave of each object, and which objects are left."""
    masks = whole.copy()
    covered = np.zeros(whole.shape[1:], bool)
    for layer in reversed(range(len(whole))):
        masks[layer] &= ~covered
        covered |= whole[layer]
    pixels, before = masks.sum((1, 2)), whole.sum((1, 2))
    kept = (pixels >= recipe.least_pixels) & (pixels >= recipe.least_visible * before)
    return masks[kept], kept


def _placed(drawing: Image.Image, side: int, degrees: float, mirrored: bool) -> Image.Image:
    """The drawing scaled, mirrored and turned, on a sheet just large enough."""
    mode = drawing.mode
    if mode == "RGBA":
        drawing = drawing.convert("RGBa")  # premultiplied: the edges stay free of a dark fringe
    if mirrored:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    drawing = drawing.resize((side, side), Image.Resampling.BILINEAR)
    return drawing.rotate(degrees, Image.Resampling.BILINEAR, expand=True).convert(mode)


def _corner(
    chance: np.random.Generator, side: int, degrees: float, recipe: SceneRecipe
) -> tuple[int, int]:
    """Where the object's sheet goes; its centre keeps a third of its size from the border."""
    reach = side / 3
    x = chance.uniform(reach, recipe.width - reach)
    y = chance.uniform(reach, recipe.height - reach)
    turned = np.deg2rad(abs(degrees))
    half = side * (np.cos(turned) + np.sin(turned)) / 2
    return round(x - half), round(y - half)


def _background(photographs, chance: np.random.Generator, height: int, width: int) -> Image.Image:
    """A crop of a photograph, between its whole and a close view, perhaps mirrored."""
    photograph = photographs[chance.integers(len(photographs))]
    rows, columns = photograph.shape[:2]
    closest = min(1.0, height / rows * 1.2, width / columns * 1.2)
    fits = min(rows / height, columns / width)
    scale = fits * chance.uniform(min(closest, 0.9), 1.0)
    tall, wide = int(height * scale), int(width * scale)
    top = int(chance.integers(rows - tall + 1))
    left = int(chance.integers(columns - wide + 1))
    crop = photograph[top : top + tall, left : left + wide]
    if chance.random() < 0.5:
        crop = crop[:, ::-1]
    return Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR)


def _paste_clutter(canvas: Image.Image, photographs, chance: np.random.Generator) -> None:
    """A piece of another photograph: an edge that belongs to no object."""
    width, height = canvas.size
    wide, tall = (int(side * chance.uniform(0.15, 0.5)) for side in (width, height))
    piece = _background(photographs, chance, tall, wide)
    stencil = Image.new("L", (wide, tall))
    pen = ImageDraw.Draw(stencil)
    if chance.random() < 0.5:
        pen.ellipse((0, 0, wide - 1, tall - 1), fill=255)
    else:
        corners = [(chance.uniform(0, wide), chance.uniform(0, tall)) for _ in range(4)]
        pen.polygon(corners, fill=255)
    corner = (
        int(chance.uniform(-wide / 2, width - wide / 2)),
        int(chance.uniform(-tall / 2, height - tall / 2)),
    )
    canvas.paste(piece, corner, stencil)


# --- weather: a picture, uint8 (height, width, 3), to a new one ----------------------------------


def fog(picture: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Banks of grey that hide 30 to 80% of what is behind them, thinner in some places."""
    thin, thick = sorted(chance.uniform(0.3, 0.8, 2))
    hills = chance.uniform(size=(HILLS, HILLS))
    weights = []  # of each row of hills for each row of pixels, and of each column
    for length in picture.shape[:2]:
        position = np.linspace(0, HILLS - 1, length)
        distance = np.clip(np.abs(position[:, None] - np.arange(HILLS)), 0, 1)
        weights.append((1 + np.cos(np.pi * distance)) / 2)
    density = thin + (thick - thin) * (weights[0] @ hills @ weights[1].T)
    return _blend(picture, chance.uniform(185, 225), density)


def rain(picture: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A darker picture crossed by bright streaks, all falling the same way."""
    height, width = picture.shape[:2]
    slant = chance.uniform(-0.5, 0.5)  # pixels to the side per pixel down
    streaks = np.zeros((height, width))
    for _ in range(round(height * width / 90)):
        length = int(chance.integers(6, 15))
        down = np.arange(length)
        rows = int(chance.integers(-length, height)) + down
        columns = np.round(chance.uniform(0, width) + slant * down).astype(int)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        streaks[rows[inside], columns[inside]] = chance.uniform(0.35, 0.75)
    return _blend(_blend(picture, 60, np.full((height, width), 0.25)), 220, streaks)


def snow(picture: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """White flakes of one to three pixels' radius, and a light haze."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    flakes = np.zeros((height, width))
    for _ in range(round(height * width / 170)):
        row, column = chance.uniform(0, height), chance.uniform(0, width)
        radius = chance.uniform(0.7, 2.6)
        near = np.s_[max(0, int(row - 4)) : int(row + 5), max(0, int(column - 4)) : int(column + 5)]
        distance = np.hypot(rows[near] - row, columns[near] - column)
        flakes[near] = np.maximum(flakes[near], np.clip(radius + 0.5 - distance, 0, 0.95))
    haze = np.full((height, width), chance.uniform(0.1, 0.3))
    return _blend(_blend(picture, 225, haze), 252, flakes)


WEATHER = {"fog": fog, "rain": rain, "snow": snow}


def _blend(picture: np.ndarray, grey: float, density: np.ndarray) -> np.ndarray:
    """The picture behind a grey of the given density, (height, width) from 0 to 1."""
    # As float: in uint8 a whole grey minus a brighter pixel would wrap round.
    mixed = picture + (grey - picture.astype(float)) * density[..., None]
    return np.round(mixed).clip(0, 255).astype(np.uint8)
