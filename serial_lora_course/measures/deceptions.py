"""Wrong pictures that a measure of style should not fall for, made from right ones.

All take pictures, uint8 (N, side, side, 3), and give as many of the same shape.
"""

from __future__ import annotations

import numpy as np
from skimage.exposure import match_histograms


def in_tiles(pictures: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Cut into count x count tiles that lie in another order: every colour and line, and no shape."""
    whole, (number, side) = pictures.shape, pictures.shape[:2]
    cut = pictures.reshape(number, count, side // count, count, side // count, 3)
    tiles = cut.swapaxes(2, 3).reshape(number, count**2, side // count, side // count, 3)
    mixed = np.stack([own[rng.permutation(count**2)] for own in tiles])
    return mixed.reshape(cut.swapaxes(2, 3).shape).swapaxes(2, 3).reshape(whole)


def under_bars(
    pictures: np.ndarray, width: int, every: int, rng: np.random.Generator
) -> np.ndarray:
    """Under black bars of some pixels' width, upright or lying."""
    barred = pictures.copy()
    for sheet in barred:
        across = sheet if rng.random() < 0.5 else sheet.swapaxes(0, 1)  # a view: it changes `sheet`
        for start in range(rng.integers(every), len(across), every):
            across[start : start + width] = 0
    return barred


def in_colours_of(pictures: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each with the histogram, channel by channel, of one of the other pictures (M, side, side, 3)."""
    chosen = others[rng.integers(len(others), size=len(pictures))]
    matched = [
        match_histograms(own, other, channel_axis=2)
        for own, other in zip(pictures, chosen, strict=True)
    ]
    return np.stack(matched).astype(np.uint8)
