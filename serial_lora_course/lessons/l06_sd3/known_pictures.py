"""Pictures such as an SD3 was pretrained on, with captions: what it knows before it is tuned.

    known = known_pictures("tiny")
    known.examples                     # some of them, to measure the model on
    known.beside(captions)             # {"Twemoji": pictures of the same things}, where it has them

The tiny SD3 was pretrained on Twemoji. What SD3 medium saw is not published as a list; photographs of
everyday things were among it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.data.photographs import photograph
from serial_lora_course.data.style_sets import SIZE, caption, things
from serial_lora_course.data.types import StyleExample

EVERY = 16  # of the tiny things, to measure on
PHOTOGRAPHS = {
    "a photo of an astronaut": "astronaut",
    "a photo of a cat": "chelsea",
    "a photo of a cup of coffee": "coffee",
    "a photo of a flower": "flower",
    "a photo of a rocket on its launch pad": "rocket",
    "a photo of a motorcycle in a workshop": "stereo_motorcycle",
}


@dataclass(frozen=True)
class KnownPictures:
    """Captioned pictures of a kind that a model was pretrained on.

    Attributes:
        name: what they are called.
        pictures: caption -> picture.
        examples: some of them.
        attribution: whose they are.
    """

    name: str
    pictures: Mapping[str, Image.Image]
    examples: list[StyleExample]
    attribution: str

    def beside(self, captions: Sequence[str]) -> dict[str, list[Image.Image]]:
        """Its pictures for some captions, under its name; nothing where it lacks one."""
        if not all(words in self.pictures for words in captions):
            return {}
        return {self.name: [self.pictures[words] for words in captions]}


@lru_cache
def known_pictures(scale: str) -> KnownPictures:
    """What the SD3 of a scale knows."""
    if scale == "tiny":
        emoji = load_emoji("twemoji", SIZE)
        pictures = {caption(each): emoji.picture(i) for i, each in enumerate(emoji.concepts)}
        some = [(caption(thing), thing.codepoints) for thing in things()[::EVERY]]
        name, attribution = "Twemoji", ATTRIBUTION["twemoji"]
    else:
        pictures = {words: Image.fromarray(photograph(n)) for words, n in PHOTOGRAPHS.items()}
        some = list(PHOTOGRAPHS.items())
        name, attribution = "photographs", "photographs that come with scikit-image, scikit-learn"
    examples = [StyleExample(pictures[words], words, picture_id) for words, picture_id in some]
    return KnownPictures(name, pictures, examples, attribution)
