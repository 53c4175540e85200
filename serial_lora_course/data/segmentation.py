"""Segmentation data: pictures with the masks of the objects in them, at either scale.

    data = load_segmentation("food")                       # tiny: nothing to download
    data = load_segmentation("icecream", scale="paper")    # FoodSeg103
    example = data.train[0]
    example.picture, example.masks, example.boxes          # PIL RGB; bool (N, H, W); (N, 4)

Masks have the picture's own size, and every mask has at least one pixel. The box of an object is
the tightest one round its mask, at pixel edges: the prompt that an exact annotator would draw.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.parts import DividedData
from serial_lora_course.data.scenes import box_of


@dataclass(frozen=True)
class SegmentationExample:
    """A picture and its objects.

    Attributes:
        picture: RGB, of (width, height) W, H.
        masks: bool, (N, H, W), N at least 1, each with at least one pixel.
        names: what each mask shows, N words.
        picture_id: a name that is unique in the data set and does not change.
    """

    picture: Image.Image
    masks: np.ndarray
    names: tuple[str, ...]
    picture_id: str

    def __post_init__(self) -> None:
        width, height = self.picture.size
        if self.masks.shape[1:] != (height, width) or self.masks.dtype != bool:
            raise SerialLoRAError(
                f"{self.picture_id}: masks must be bool of (N, {height}, {width}) like their "
                f"picture, not {self.masks.dtype} of {self.masks.shape}."
            )
        if not len(self.masks) or not self.masks.any((1, 2)).all():
            raise SerialLoRAError(
                f"{self.picture_id} has an empty mask or none at all; leave the picture out, as "
                "there is nothing to find in it."
            )
        if len(self.names) != len(self.masks):
            raise SerialLoRAError(
                f"{self.picture_id} has {len(self.masks)} masks and {len(self.names)} names; give "
                "one name per mask."
            )

    @cached_property
    def boxes(self) -> np.ndarray:
        """The tightest box round each mask: x0, y0, x1, y1 at pixel edges, float32 (N, 4)."""
        return np.stack([box_of(mask) for mask in self.masks])


class SegmentedPictures(Protocol):
    """What the lab needs of a map-style data set; ``picture_ids[i]`` belongs to item ``i``."""

    picture_ids: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SegmentationExample: ...


@dataclass(frozen=True, kw_only=True)
class SegmentationData(DividedData):
    """A data set for segmentation; ``description`` says what the masks cover too."""

    train: SegmentedPictures
    test: SegmentedPictures
    purpose = "segmentation"


def segmentation_names(scale: str = "tiny") -> tuple[str, ...]:
    """The names that :func:`load_segmentation` knows at a scale.

    Raises:
        SerialLoRAError: for a scale other than "tiny" or "paper".
    """
    if scale == "tiny":
        from serial_lora_course.data.segmentation_sets import SCENE_SETS

        return tuple(SCENE_SETS)
    if scale == "paper":
        from serial_lora_course.data.segmentation_files import PAPER_SETS

        return tuple(PAPER_SETS)
    raise SerialLoRAError(f"there is no scale {scale!r}; use tiny or paper.")


def load_segmentation(
    name: str, scale: str = "tiny", root: str | os.PathLike[str] | None = None
) -> SegmentationData:
    """A data set by its name.

    Args:
        name: one of :func:`segmentation_names` at this scale.
        scale: ``"tiny"`` (drawings over photographs, nothing to download) or ``"paper"``.
        root: folder of the downloaded data; see :func:`serial_lora_course.data.download.data_root`.

    Raises:
        SerialLoRAError: unknown name or scale, data not there (says which command fetches them),
            or not complete.
    """
    names = segmentation_names(scale)
    if name not in names:
        raise SerialLoRAError(
            f"unknown segmentation data set {name!r}; at {scale} scale there are "
            f"{', '.join(names)}."
        )
    if scale == "tiny":
        from serial_lora_course.data.segmentation_sets import load_scene_set

        return load_scene_set(name)
    from serial_lora_course.data.segmentation_files import load_segmentation_files

    return load_segmentation_files(name, root)
