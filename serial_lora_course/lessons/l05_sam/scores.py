"""What a mean Dice hides: how much of a thing is marked, and how much of what is marked is the thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from serial_lora_course.data.types import SegmentationExample


def recall_precision_and_inside(
    found: Sequence[Tensor], scenes: Sequence[SegmentationExample]
) -> list[float]:
    """Means over all things: recall, precision, and the share of the marks that lies in the thing's true box.

    Args:
        found: of each scene its masks, bool, (N, H, W).
    """
    shares = []
    for masks, scene in zip(found, scenes, strict=True):
        truth, box = torch.as_tensor(scene.masks), torch.zeros_like(masks)
        for sheet, (x0, y0, x1, y1) in zip(box, scene.boxes.astype(np.int64), strict=True):
            sheet[y0:y1, x0:x1] = True
        right, inside = ((masks & each).sum((1, 2)) for each in (truth, box))
        marks = masks.sum((1, 2)).clamp(min=1)
        shares.append(torch.stack([right / truth.sum((1, 2)), right / marks, inside / marks]))
    return torch.cat(shares, 1).mean(1).tolist()
