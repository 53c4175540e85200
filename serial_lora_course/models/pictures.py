"""The forms in which pictures are handed to the networks that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from serial_lora.errors import SerialLoRAError

Pictures = np.ndarray | Tensor | Sequence[Any]
"""uint8 (N, height, width, 3), or N PIL pictures, which may differ in size."""


def as_pictures(pictures: Pictures) -> list[Image.Image]:
    """Pictures as PIL RGB."""
    if isinstance(pictures, np.ndarray | Tensor):
        array = np.asarray(pictures)
        if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
            raise SerialLoRAError(
                "Pictures are uint8 of shape (N, height, width, 3), not "
                f"{array.dtype} of shape {array.shape}."
            )
        pictures = [Image.fromarray(picture) for picture in array]
    if not len(pictures):
        raise SerialLoRAError("There are no pictures to judge; give at least one.")
    return [picture.convert("RGB") for picture in pictures]
