"""Pictures with captions in one style: what a text-to-picture model is tuned on.

    data = load_style("night")                             # tiny: nothing to download
    data = load_style("art_nouveau", scale="paper")        # ArtBench-10
    example = data.train[0]
    example.picture, example.caption                       # PIL RGB; "grinning face"

Captions tell what is to be seen and not in which style, so a model that follows them can show the
style only by having learnt it. The captions of the held-out pictures are the prompts of the
evaluation, and those pictures are what FID and KID compare with.

The tiny styles are the six groups of emoji whose things can be drawn (faces, animals and plants,
food, places, activities, objects; no flags, people or signs), each thing in its own style.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import STYLES, Concept, load_emoji
from serial_lora_course.data.parts import DividedData

GROUPS = (
    "Smileys & Emotion",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
)


@lru_cache
def things() -> tuple[Concept, ...]:
    """The concepts that every style draws, in Unicode's order."""
    drawn = [{concept.codepoints for concept in load_emoji(style).concepts} for style in STYLES]
    return tuple(
        concept
        for concept in load_emoji("twemoji").concepts
        if concept.group in GROUPS and all(concept.codepoints in codes for codes in drawn)
    )


def caption(concept: Concept) -> str:
    """The prompt that asks for a concept: its name, in the tiny tokenizer's letters."""
    return concept.name.replace("’", "'")


@dataclass(frozen=True)
class StyleExample:
    """A picture and what is to be seen in it.

    Attributes:
        picture: RGB, of any size.
        caption: in words, without the style; never empty.
        picture_id: a name that is unique in the data set and does not change.
    """

    picture: Image.Image
    caption: str
    picture_id: str

    def __post_init__(self) -> None:
        if self.picture.mode != "RGB":
            raise SerialLoRAError(
                f"{self.picture_id} is of mode {self.picture.mode}; convert the picture to RGB."
            )
        if not self.caption.strip():
            raise SerialLoRAError(
                f"{self.picture_id} has no caption; give it one, or leave the picture out."
            )


class CaptionedPictures(Protocol):
    """What the lab needs of a map-style data set; ``picture_ids[i]`` belongs to item ``i``."""

    picture_ids: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> StyleExample: ...


@dataclass(frozen=True, kw_only=True)
class StyleData(DividedData):
    """A data set for tuning on one style. No name occurs twice: what was computed of a picture is
    kept under its name."""

    train: CaptionedPictures
    test: CaptionedPictures
    purpose = "styles"

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in (self.train, self.test):
            picture_id, count = Counter(part.picture_ids).most_common(1)[0]
            if count > 1:
                raise SerialLoRAError(
                    f"{self.name} lists the picture {picture_id!r} {count} times; list it once."
                )


def style_names(scale: str = "tiny") -> tuple[str, ...]:
    """The names that :func:`load_style` knows at a scale.

    Raises:
        SerialLoRAError: for a scale other than "tiny" or "paper".
    """
    if scale == "tiny":
        from serial_lora_course.data.style_sets import TINY_STYLES

        return tuple(TINY_STYLES)
    if scale == "paper":
        from serial_lora_course.data.style_files import PAPER_STYLES

        return tuple(PAPER_STYLES)
    raise SerialLoRAError(f"there is no scale {scale!r}; use tiny or paper.")


def load_style(
    name: str, scale: str = "tiny", root: str | os.PathLike[str] | None = None
) -> StyleData:
    """A data set by its name.

    Args:
        name: one of :func:`style_names` at this scale.
        scale: ``"tiny"`` (drawings, nothing to download) or ``"paper"``.
        root: folder of the downloaded data; see :func:`serial_lora_course.data.download.data_root`.

    Raises:
        SerialLoRAError: unknown name or scale, data not there (says which command fetches them),
            or not complete.
    """
    names = style_names(scale)
    if name not in names:
        raise SerialLoRAError(
            f"unknown style {name!r}; at {scale} scale there are {', '.join(names)}."
        )
    if scale == "tiny":
        from serial_lora_course.data.style_sets import load_tiny_style

        return load_tiny_style(name)
    from serial_lora_course.data.style_files import load_style_files

    return load_style_files(name, root)
