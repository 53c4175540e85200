"""What lesson 06 paints with: words that are read, pictures as latents, noise, and the way back to pixels.

Words and latents stay on the CPU, since at the paper's scale those of a whole style are large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.scenes import photograph
from serial_lora_course.data.style_sets import SIZE, caption
from serial_lora_course.data.types import StyleExample
from serial_lora_course.labs.lesson import Lesson
from serial_lora_course.labs.sd3 import held_out
from serial_lora_course.labs.sd3_pictures import (
    DRAWN_AT_ONCE,
    Prompts,
    decode_latents,
    draw,
    encode_pictures,
    read_prompts,
    starting_noise,
    to_square,
)

PHOTOGRAPHS = {
    "a photo of a cat": "chelsea",
    "a photo of an astronaut": "astronaut",
    "a photo of a cup of coffee": "coffee",
    "a photo of a rocket on its launch pad": "rocket",
}


class Encoded(NamedTuple):
    """N pictures: their latents (N, c, h, w) and their captions as the transformer reads them."""

    latents: Tensor
    words: Prompts


class Studio:
    """The lesson's words and pictures, read and encoded once.

    Attributes:
        captions, asked, real: the test prompts in words and read, and the style's own pictures of them.
        empty: the empty prompt, read, one row.
        style: the training pictures of a run.
        titles: their captions.
        at_once: drawings that fit the memory together.

    With `others` the test prompts are, instead, every second one of those that are left over.
    """

    def __init__(self, lesson: Lesson, others: bool = False) -> None:
        self.lesson, self.side = lesson, lesson.config.resolution
        self.at_once = DRAWN_AT_ONCE[lesson.scale]
        tests = held_out(lesson.data)
        if lesson.tests:  # as many, from the whole list
            step = max(1, len(tests) // lesson.tests)
            left = [test for i, test in enumerate(tests) if i % step]
            tests = left[3::2] if others else tests[::step][: lesson.tests]
        self.captions = [example.caption for example in tests]
        self.real = [example.picture for example in tests]
        self.asked, self.empty = self.read(self.captions), self.read([""])
        chosen = lesson.kind.indices(lesson.data, lesson.amount, 1)
        examples = [lesson.data.train[index] for index in chosen]
        self.style, self.titles = self.encode(examples), [each.caption for each in examples]

    def read(self, prompts: Sequence[str]) -> Prompts:
        """Prompts through the text encoders."""
        return read_prompts(self.lesson.backbone, prompts)

    def encode(self, examples: Sequence[StyleExample]) -> Encoded:
        """Pictures and captions as the transformer meets them."""
        pictures = [example.picture for example in examples]
        latents = encode_pictures(self.lesson.backbone, pictures, self.side)
        words = self.read([example.caption for example in examples])
        return Encoded(latents, words)

    def encode_known(self, words: str) -> Encoded:
        """The same of one picture that the model was pretrained on, or is much like them."""
        return self.encode([StyleExample(known_picture(self.lesson.scale, words), words, words)])

    def network(self) -> nn.Module:
        """The model once more, on the same frozen weights."""
        network = self.lesson.twin().model
        if self.lesson.config.gradient_checkpointing:  # at the paper's scale, to save memory
            network.enable_gradient_checkpointing()
        return network

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Noise (N, c, h, w), each out of a seed of its own."""
        return starting_noise(self.lesson.backbone, seeds, self.side)

    def pictures(self, latents: Tensor) -> np.ndarray:
        """Latents (N, c, h, w) through the autoencoder: uint8, (N, side, side, 3)."""
        return decode_latents(self.lesson.backbone, latents.cpu())

    def as_drawn(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        """Pictures in the form of drawings: uint8, (N, side, side, 3), the middle square."""
        square = torch.stack([to_square(picture, self.side) for picture in pictures])
        return ((square + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()

    def stock(self, words: Prompts, seeds: Sequence[int], guidance: float) -> np.ndarray:
        """What diffusers' own pipeline draws: uint8, (N, side, side, 3)."""
        steps, precision = self.lesson.config.drawing_steps, self.lesson.precision
        options = (steps, guidance, self.side, self.empty, precision)
        return draw(self.lesson.backbone, words, seeds, *options)


def known_picture(scale: str, words: str) -> Image.Image:
    """A picture such as an SD3 was pretrained on, by its caption.

    The tiny SD3 was pretrained on Twemoji. What SD3 medium saw is not published as a list; photographs of
    everyday things were among it.
    """
    if scale != "tiny":
        return Image.fromarray(photograph(PHOTOGRAPHS[words]))
    emoji = load_emoji("twemoji", SIZE)
    return emoji.picture([caption(each) for each in emoji.concepts].index(words))
