"""Three ways to put a drawing on a sheet: on white paper, after dark, and as pixel art.

A rendering takes a drawing, uint8 (side, side, 4) of red, green, blue, alpha, and a row of colours,
uint8 (K, 3), and gives a picture, uint8 (side, side, 3). Nothing in it is left to chance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, gaussian_filter
from skimage.color import rgb2lab

from serial_lora_course.data.emoji import MARGIN

Rendering = Callable[[np.ndarray, np.ndarray], np.ndarray]

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
    alpha = drawing[..., 3:] / 255
    position = _brightness(drawing) * (len(ramp) - 1)
    lit = np.stack([np.interp(position, range(len(ramp)), c) for c in ramp.T], axis=-1)
    width, strength = GLOW
    ground = sky + strength * gaussian_filter(alpha, (width, width, 0)) * light
    return np.clip(lit * alpha + ground * (1 - alpha), 0, 255).round().astype(np.uint8)


def _brightness(drawing: np.ndarray) -> np.ndarray:
    """How bright each pixel is within its drawing, (side, side) between 0 and 1."""
    rgb = drawing[..., :3] / 255
    # Luma alone calls a pure red dark; nobody looks at a tomato and sees a shadow.
    brightness = (rgb @ LUMA + rgb.max(-1)) / 2
    low, high = np.percentile(brightness[drawing[..., 3] >= OPAQUE], (2, 98))
    span = min(1.0, CONTRAST * (high - low))
    darkest = np.clip((low + high - span) / 2, 0, 1 - span)
    return np.clip(darkest + (brightness - low) * min(CONTRAST, 1 / max(high - low, 1e-6)), 0, 1)


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


RENDERINGS: dict[str, Rendering] = {
    "on paper": on_paper,
    "after dark": after_dark,
    "as pixels": as_pixels,
}
