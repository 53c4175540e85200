"""Which of the tiny styles a picture is in, told from its colours and its detail alone.

The verdict stands beside FID and is to be independent of it and of what was tuned: it looks at
pixels, not at CLIP's features, and it learns from drawings of things that no adapter trains on and
no evaluation prompt asks for. Generated pictures are not as clean as a designer's, so it learns
from worn copies too: bent, blurred, noisy, and in colours that are slightly off.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from serial_lora_course.data.emoji import Concept, load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.style_sets import SIZE, TINY_STYLES, choose_things, render
from serial_lora_course.data.styles import things

BASE = "twemoji"  # what the tiny SD3 draws before it is tuned
STYLES = (BASE, *TINY_STYLES)
LEVELS = 5  # of each colour channel
EDGE = 3  # pixels at the border of a picture that count as its paper
WORN_ALIKE = 4  # pictures that are worn in one way; one by one would take four times as long


class StyleClassifier:
    """Logistic regression over :func:`describe`; fitted, in seconds, when it is made.

    Attributes:
        names: the styles that it knows, in the order of :meth:`probabilities`.
    """

    def __init__(self) -> None:
        pictures, labels = _drawings(spare_things())
        order = np.random.default_rng(0).permutation(len(pictures))
        pictures, labels = pictures[order], labels[order]  # so that no style is worn in its own way
        both = torch.cat([pictures, worn(pictures, seed=0)])
        self._model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        self._model.fit(describe(both), np.tile(labels, 2))
        self.names: tuple[str, ...] = tuple(self._model.classes_.tolist())

    def probabilities(self, pictures: Tensor) -> Tensor:
        """How likely each style is, (N, styles), of pictures, uint8 (N, 3, height, width)."""
        if pictures.shape[-2:] != (SIZE, SIZE):
            pictures = v2.functional.resize(pictures, [SIZE, SIZE])
        return torch.from_numpy(self._model.predict_proba(describe(pictures)))

    @cached_property
    def held_out_accuracy(self) -> dict[str, float]:
        """Style -> share of its real held-out pictures that are put into it.

        Not 1 even for a perfect eye: OpenMoji's drawings of colourless things are its line
        drawings.
        """
        pictures, labels = _drawings(choose_things()["test"])
        found = np.asarray(self.names)[self.probabilities(pictures).argmax(1).numpy()]
        return {name: float((found == name)[labels == name].mean()) for name in STYLES}


@lru_cache
def style_classifier() -> StyleClassifier:
    """The one classifier, made when it is first asked for."""
    return StyleClassifier()


def spare_things() -> tuple[Concept, ...]:
    """The things that no adapter trains on and no evaluation prompt asks for."""
    taken = hidden_codepoints() | {concept.codepoints for concept in choose_things()["train"]}
    return tuple(concept for concept in things() if concept.codepoints not in taken)


def _drawings(concepts: tuple[Concept, ...]) -> tuple[Tensor, np.ndarray]:
    """Every concept in every style: pictures, uint8 (N, 3, SIZE, SIZE), and their styles."""
    pictures = []
    for name in STYLES:
        emoji = load_emoji(BASE if name == BASE else TINY_STYLES[name].drawn_by, SIZE)
        position = {concept.codepoints: index for index, concept in enumerate(emoji.concepts)}
        for index in (position[concept.codepoints] for concept in concepts):
            drawing = emoji.pictures[index]
            pictures.append(emoji.picture(index) if name == BASE else render(name, drawing))
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).contiguous(), np.repeat(STYLES, len(concepts))


@torch.no_grad()
def worn(pictures: Tensor, seed: int) -> Tensor:
    """Pictures, uint8 (N, 3, height, width), as an imperfect model might draw them."""
    wear = v2.Compose(
        [
            v2.ElasticTransform(alpha=20.0, sigma=4.0),
            v2.RandomApply([v2.GaussianBlur(7, (0.3, 2.0))], 0.7),
            v2.ColorJitter(brightness=0.3, contrast=0.3, saturation=0.5, hue=0.05),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.GaussianNoise(sigma=0.04)], 0.5),
            v2.ToDtype(torch.uint8, scale=True),
        ]
    )
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return torch.cat([wear(part) for part in pictures.split(WORN_ALIKE)])


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
