"""Which of the tiny styles a picture is in, if it is in any: told from colours, detail and shapes.

Colours and detail are counted in pixels; shapes are what the tiny CLIP's image tower sees at three
depths. It was fitted by `data_scripts.pretraining.styles`, which showed it spoiled drawings too: tiles in
the wrong order, black bars, another style's colours. Those are in no style.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from serial_lora_course.data.style_sets import SIZE, TINY_STYLES
from serial_lora_course.models.clip import CLIPBackbone, look
from serial_lora_course.models.pictures import Pictures, as_pictures
from serial_lora_course.models.weights import tiny_file

NAME = "tiny-styles"
BASE = "twemoji"  # what the tiny SD3 draws before it is tuned
STYLES = (BASE, *TINY_STYLES)
NO_STYLE = "none"
BLOCKS = (1, 3, 5)  # of CLIP's image tower, counted from 0, that shapes are read from
LEVELS = 5  # of each colour channel
EDGE = 3  # pixels at the border of a picture that count as its paper


class StyleClassifier:
    """Logistic regression over :func:`describe`.

    Attributes:
        names: the styles that it knows and :data:`NO_STYLE`, in the order of :meth:`probabilities`.
    """

    def __init__(self, path: Path, clip: CLIPBackbone) -> None:
        with safe_open(path, "np") as file:
            self.names = tuple(file.metadata()["names"].split(","))
            self._weight, self._bias = file.get_tensor("weight"), file.get_tensor("bias")
        self._clip = clip

    def probabilities(self, pictures: Pictures) -> Tensor:
        """How likely each of ``names`` is, (N, names), of N pictures."""
        scores = describe(as_pictures(pictures), self._clip) @ self._weight.T + self._bias
        return torch.from_numpy(scores).softmax(1)

    def style_of(self, pictures: Pictures) -> np.ndarray:
        """The likeliest of ``names`` for each of N pictures."""
        return np.array(self.names)[self.probabilities(pictures).argmax(1).numpy()]


def style_classifier(clip: CLIPBackbone) -> StyleClassifier:
    """The one that the package carries; ``clip`` is the tiny CLIP."""
    return StyleClassifier(tiny_file(f"{NAME}.safetensors"), clip)


def describe(pictures: Sequence[Image.Image], clip: CLIPBackbone) -> np.ndarray:
    """What RGB pictures look like, float32 (N, numbers): colours, paper, fineness of detail, shapes."""
    square = [pil_to_tensor(picture.resize((SIZE, SIZE))) for picture in pictures]
    pixels = torch.stack(square).float() / 255
    parts = [_colours(pixels), _paper(pixels), _detail(pixels), _shapes(pictures, clip)]
    return torch.cat(parts, dim=1).numpy()


def _shapes(pictures: Sequence[Image.Image], clip: CLIPBackbone) -> Tensor:
    """Mean and spread over the patches of CLIP's tokens after three blocks, (N, 6 widths)."""
    tokens, _ = look(clip, pictures, BLOCKS)
    return torch.cat([part for each in tokens for part in (each.mean(1), each.std(1))], dim=1)


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
