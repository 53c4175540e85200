"""Which of the tiny styles a picture is in, told from its colours and its detail alone.

The verdict stands beside FID and is to be independent of it and of what was tuned: it looks at
pixels, not at CLIP's features. It was fitted by `data_scripts.pretraining.styles`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from serial_lora_course.data.style_sets import SIZE, TINY_STYLES
from serial_lora_course.models.weights import tiny_file

NAME = "tiny-styles"
BASE = "twemoji"  # what the tiny SD3 draws before it is tuned
STYLES = (BASE, *TINY_STYLES)
LEVELS = 5  # of each colour channel
EDGE = 3  # pixels at the border of a picture that count as its paper


class StyleClassifier:
    """Logistic regression over :func:`describe`.

    Attributes:
        names: the styles that it knows, in the order of :meth:`probabilities`.
    """

    def __init__(self, path: Path) -> None:
        with safe_open(path, "np") as file:
            self.names = tuple(file.metadata()["names"].split(","))
            self._weight, self._bias = file.get_tensor("weight"), file.get_tensor("bias")

    def probabilities(self, pictures: Tensor) -> Tensor:
        """How likely each style is, (N, styles), of pictures, uint8 (N, 3, height, width)."""
        if pictures.shape[-2:] != (SIZE, SIZE):
            pictures = v2.functional.resize(pictures, [SIZE, SIZE])
        scores = describe(pictures) @ self._weight.T + self._bias
        return torch.from_numpy(scores).softmax(1)


@lru_cache
def style_classifier() -> StyleClassifier:
    """The one that the package carries."""
    return StyleClassifier(tiny_file(f"{NAME}.safetensors"))


def describe(pictures: Tensor) -> np.ndarray:
    """What a picture looks like without what it shows: colours, paper, and fineness of detail.

    Args:
        pictures: uint8, (N, 3, height, width).

    Returns:
        float32, (N, numbers).
    """
    pixels = pictures.float() / 255
    return torch.cat([_colours(pixels), _paper(pixels), _detail(pixels)], dim=1).numpy()


def _colours(pixels: Tensor) -> Tensor:
    """Root of the share of each colour, (N, LEVELS^3), where near colours count a little too."""
    levels = (F.avg_pool2d(pixels, 2) * (LEVELS - 1)).round().long()  # (N, 3, height, width)
    red, green, blue = levels.flatten(2).unbind(1)
    cells = (red * LEVELS + green) * LEVELS + blue
    shares = torch.zeros(len(pixels), LEVELS**3)
    shares.scatter_add_(1, cells, torch.full(cells.shape, 1 / cells.shape[1]))
    near = torch.tensor([0.25, 0.5, 0.25])
    kernel = near[:, None, None] * near[:, None] * near
    cube = shares.view(-1, 1, LEVELS, LEVELS, LEVELS)
    return F.conv3d(cube, kernel[None, None], padding=1).flatten(1).clamp(min=0).sqrt()


def _paper(pixels: Tensor) -> Tensor:
    """Mean colour of the border and of the whole, (N, 6)."""
    inside = torch.zeros(pixels.shape[-2:], dtype=torch.bool)
    inside[EDGE:-EDGE, EDGE:-EDGE] = True
    return torch.cat([pixels[..., ~inside].mean(-1), pixels.mean((-2, -1))], dim=1)


def _detail(pixels: Tensor) -> Tensor:
    """Logarithm of the power of the brightness at each frequency, (N, side / 2), without the mean.

    Blur takes the high ones away, and cells of four pixels leave gaps at multiples of a quarter.
    """
    grey = pixels.mean(1)
    down = torch.fft.rfft(grey, dim=1).abs().square().mean(2)
    across = torch.fft.rfft(grey, dim=2).abs().square().mean(1)
    return ((down + across)[:, 1:] / 2 + 0.01).log()
