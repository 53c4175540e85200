"""Five trips into SAM's frame and back, for a learner to judge from outside; one of them is right."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.sam import PreparedExample


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
