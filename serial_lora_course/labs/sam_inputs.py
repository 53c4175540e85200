"""A picture's way into SAM: scaled to the model's square, with its boxes and masks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import SegmentationExample


class PreparedExample(NamedTuple):
    """An example in the model's input frame: the picture scaled until its longer side fits.

    Attributes:
        picture: uint8, (3, h, w); not yet normalised and padded, as `Sam.forward` takes it.
        boxes: float32, (N, 4): x0, y0, x1, y1 at pixel edges of ``picture``.
        truth: bool, (N, h, w).
        original_size: (height, width) before scaling.
    """

    picture: Tensor
    boxes: Tensor
    truth: Tensor
    original_size: tuple[int, int]

    @property
    def input_size(self) -> tuple[int, int]:
        """(h, w): the part of the square input that is not padding."""
        return tuple(self.picture.shape[-2:])


def prepare(example: SegmentationExample, image_size: int) -> PreparedExample:
    """Scale a picture, its boxes and its masks to the square of this side that the model sees."""
    picture, boxes = to_input_frame(example.picture, example.boxes, image_size)
    masks = torch.as_tensor(example.masks)
    truth = resize_masks(masks, tuple(picture.shape[-2:]))
    return PreparedExample(picture, boxes, truth, tuple(masks.shape[-2:]))


def to_input_frame(
    picture: Image.Image, boxes: Tensor | np.ndarray, image_size: int
) -> tuple[Tensor, Tensor]:
    """Picture (3, h, w), uint8, and boxes (N, 4), float32, as SAM's own predictor scales them."""
    resize = ResizeLongestSide(image_size)
    pixels = np.asarray(picture.convert("RGB"))  # (H, W, 3)
    if not min(resize.get_preprocess_shape(*pixels.shape[:2], image_size)):
        width, height = picture.size
        raise SerialLoRAError(
            f"A picture of {width} x {height} pixels is too narrow for a model that sees "
            f"{image_size} x {image_size}; crop it."
        )
    scaled = torch.from_numpy(resize.apply_image(pixels)).permute(2, 0, 1).contiguous()
    boxes = resize.apply_boxes(np.asarray(boxes, np.float32), pixels.shape[:2])
    return scaled, torch.as_tensor(boxes, dtype=torch.float32)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (N, H, W) at another size: a pixel belongs to the object if half of it does.

    A smaller object keeps the pixels of which it covers most: an empty mask would teach that its box is.
    """
    if masks.shape[-2:] == size:
        return masks
    coverage = F.interpolate(
        masks[:, None].float(), size, mode="bilinear", align_corners=False, antialias=True
    )[:, 0]
    enough = coverage.amax((-2, -1), keepdim=True).clamp(max=0.5)
    return (coverage >= enough) & (coverage > 0)


def jitter_boxes(prepared: PreparedExample, amount: float) -> PreparedExample:
    """The example with each edge of its boxes moved at random, inside the picture.

    An edge moves by a normal deviate of ``amount`` times the box's side, at most twice that, so a box with
    ``amount`` below a quarter stays a box. Draws from torch's generator unless the amount is 0.
    """
    if not amount:
        return prepared
    boxes, (height, width) = prepared.boxes, prepared.input_size
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)  # width, height, width, height
    moves = (torch.randn(boxes.shape) * amount).clamp(-2 * amount, 2 * amount).to(boxes)
    limit = boxes.new_tensor([width, height, width, height])
    return prepared._replace(boxes=torch.minimum((boxes + moves * sides).clamp(min=0), limit))
