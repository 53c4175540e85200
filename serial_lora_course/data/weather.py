"""Fog, rain and snow over a picture: the same objects, seen badly.

Each function takes a uint8 picture of (height, width, 3) and a random generator, and returns a new
picture of the same shape. Masks stay what they were: an object in fog is still there.
"""

from __future__ import annotations

import numpy as np


def fog(picture: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Banks of grey that hide 30 to 80% of what is behind them, thinner in some places."""
    thin, thick = sorted(chance.uniform(0.3, 0.8, 2))
    density = thin + (thick - thin) * smooth_noise(picture.shape[:2], chance)
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


def smooth_noise(shape: tuple[int, int], chance: np.random.Generator) -> np.ndarray:
    """Values from 0 to 1 that change slowly over (height, width): random hills of one size."""
    grid = chance.uniform(size=(5, 5))
    rows = _between(shape[0], grid.shape[0])
    columns = _between(shape[1], grid.shape[1])
    return rows @ grid @ columns.T


def _between(length: int, knots: int) -> np.ndarray:
    """Weights (length, knots) that pass smoothly from each of evenly spaced knots to the next."""
    position = np.linspace(0, knots - 1, length)
    distance = np.clip(np.abs(position[:, None] - np.arange(knots)), 0, 1)
    return (1 + np.cos(np.pi * distance)) / 2


def _blend(picture: np.ndarray, grey: float, density: np.ndarray) -> np.ndarray:
    """The picture behind a grey of the given density, (height, width) from 0 to 1."""
    # As float: in uint8 a whole grey minus a brighter pixel would wrap round.
    mixed = picture + (grey - picture.astype(float)) * density[..., None]
    return np.round(mixed).clip(0, 255).astype(np.uint8)
