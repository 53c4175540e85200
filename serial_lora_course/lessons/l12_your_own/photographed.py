"""One object photographed often: a data set in which a division by picture leaks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product

from PIL import Image

from serial_lora_course.data.types import Pictures


class Photographed(Pictures):
    """Each picture several times, turned by some degrees, as one object that is photographed often.

    ``objects[i]`` is the name of what item ``i`` shows.
    """

    def __init__(self, pictures: Pictures, angles: Sequence[float] = (-9, -3, 3, 9)) -> None:
        turns = list(product(range(len(pictures)), angles))
        self.objects = [pictures.picture_ids[place] for place, _ in turns]
        names = [f"{name} {n}" for n, name in enumerate(self.objects)]
        labels = [pictures.labels[place] for place, _ in turns]
        super().__init__(names, partial(_turned, pictures), turns, labels)


def _turned(pictures: Pictures, turn: tuple[int, float]) -> Image.Image:
    place, angle = turn
    return pictures[place][0].rotate(angle, fillcolor="white")
