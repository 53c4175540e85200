"""Trips into SAM's frame and back: two mistakes at first sight, and five to judge from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.sam import PreparedExample, predict_logits, prepare


@torch.no_grad()
def on_that_evening(model: Sam, scenes: Iterable[SegmentationExample]) -> dict[str, list[Tensor]]:
    """The masks of each scene with the right code and with the lesson's two mistakes, bool, (N, H, W)."""
    side, masks = model.image_encoder.img_size, {}
    for each in scenes:
        ready = prepare(each, side)
        picture, boxes = ready.picture.to(model.device), ready.boxes.to(model.device)
        ready = ready._replace(picture=picture, boxes=boxes)
        turned = ready._replace(boxes=boxes[:, [1, 0, 3, 2]])
        right, wrong = predict_logits(model, [ready, turned])
        for name, logits, cut in (
            ("the right code", right, ready.input_size),
            ("padding left on", right, (side, side)),
            ("x and y exchanged", wrong, ready.input_size),
        ):
            back = model.postprocess_masks(logits, cut, ready.original_size)
            masks.setdefault(name, []).append((back[:, 0] > 0).cpu())
    return masks


def sealed_trips(there: Callable, back: Callable) -> dict[str, tuple[Callable, Callable]]:
    """Letter -> a way there and a way back, each made of the right ones."""

    def whole_pixels(each: SegmentationExample) -> PreparedExample:
        ready = there(each)
        return ready._replace(boxes=ready.boxes.floor())

    def blue_first(each: SegmentationExample) -> PreparedExample:
        ready = there(each)
        return ready._replace(picture=ready.picture.flip(0))

    def exchanged_in_tall(each: SegmentationExample) -> PreparedExample:
        ready, (height, width) = there(each), each.masks.shape[1:]
        return ready._replace(boxes=ready.boxes[:, [1, 0, 3, 2]]) if height > width else ready

    def padded_first(logits: Tensor, cut: tuple[int, int], size: tuple[int, int]) -> Tensor:
        return back(logits.roll(cut, (-2, -1)), cut, size)  # keeps the lower right corner

    ways = {"A": exchanged_in_tall, "B": there, "C": there, "D": blue_first, "E": whole_pixels}
    return {letter: (way, padded_first if letter == "B" else back) for letter, way in ways.items()}
