"""A copy of SAM to adapt, and how a training step of it takes less memory."""

from __future__ import annotations

import copy
from functools import partial

from torch.utils.checkpoint import checkpoint

from serial_lora_course.labs.lesson import Lesson
from serial_lora_course.models.sam import SamBackbone


def frozen_copy(lesson: Lesson) -> SamBackbone:
    """A copy of the lesson's SAM of which nothing learns.

    At the paper's scale its image encoder runs in the card's precision, and each block keeps nothing but its input:
    what it computed is computed again on the way back. Not by the re-entrant kind of checkpoint, which gives no
    gradient to an adapter behind a frozen stem.
    """
    copied = lesson.backbone.around(copy.deepcopy(lesson.model).requires_grad_(False))
    if copied.scale == "paper":
        encoder = copied.model.image_encoder
        encoder.forward = lesson.autocast()(encoder.forward)
        for block in encoder.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return copied
