"""Photographs of things, cut out by hand: what no tiny model has seen, for all of them know drawings.

They are stamps of the painting program Tux Paint, packed by ``data_scripts/photographs.py``. As
``photographs`` they are a data set for CLIP, nine kinds of things on white paper, and one for SAM
(:mod:`serial_lora_course.data.segmentation_sets`): the same things laid over other photographs, where
what was cut out is the true mask.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
from PIL import Image

from serial_lora_course.data.emoji import ATTRIBUTION, INDEX, fit, shipped_zip
from serial_lora_course.data.subsets import SPLIT_SEED, hash_order
from serial_lora_course.data.types import ClassificationData, Pictures

PHOTOGRAPHS = "photographs"

TEMPLATE = "a photo of {}."
SIZE = 64  # pixels, as the other classification sets
MOST_TO_TEST = 10  # photographs of a class, so that none is most of the test


@dataclass(frozen=True)
class Thing:
    """One photograph: its file, what its maker called it, and its class, or none."""

    file: str
    name: str
    kind: str


@lru_cache
def photographed_things() -> tuple[Thing, ...]:
    """Every photograph that the package carries."""
    listed = json.loads(shipped_zip(PHOTOGRAPHS).read(INDEX))["photographs"]
    return tuple(Thing(row["file"], row["name"], row["class"]) for row in listed)


@cache
def cut_out(file: str, size: int) -> np.ndarray:
    """A photograph in the middle of a square, uint8 (size, size, 4): red, green, blue, alpha."""
    with Image.open(io.BytesIO(shipped_zip(PHOTOGRAPHS).read(f"{file}.webp"))) as picture:
        drawing = np.asarray(fit(picture.convert("RGBA"), size))
    drawing.flags.writeable = False  # everybody who asks for it gets this one
    return drawing


@lru_cache
def load_photograph_classes(name: str = PHOTOGRAPHS) -> ClassificationData:
    """The photographs that have a class, on white paper; of each class half, at most ten, to test on."""
    by_kind: dict[str, list[Thing]] = {}
    for thing in photographed_things():
        if thing.kind:
            by_kind.setdefault(thing.kind, []).append(thing)
    parts: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for label, things in enumerate(by_kind.values()):
        count = min(len(things) // 2, MOST_TO_TEST)
        for part, chosen in zip(("test", "train"), kept_apart(things, count), strict=True):
            parts[part] += [(thing.file, label) for thing in chosen]
    train, test = (
        Pictures(files, partial(on_white, SIZE), labels=labels)
        for files, labels in (zip(*part, strict=True) for part in parts.values())
    )
    return ClassificationData(
        name=name,
        class_names=list(by_kind),
        template=TEMPLATE,
        generic_template=TEMPLATE,
        train=train,
        test=test,
        scale="tiny",
        attribution=ATTRIBUTION[PHOTOGRAPHS],
    )


def kept_apart(things: Sequence[Thing], count: int) -> tuple[list[Thing], list[Thing]]:
    """About ``count`` things to test on, and the others; two of one name are on one side."""
    names, chosen = sorted({thing.name for thing in things}), set()
    for position in hash_order(names, SPLIT_SEED, PHOTOGRAPHS):
        if sum(thing.name in chosen for thing in things) < count:
            chosen.add(names[position])
    return (
        [thing for thing in things if thing.name in chosen],
        [thing for thing in things if thing.name not in chosen],
    )


def on_white(size: int, file: str) -> Image.Image:
    """A photograph in the middle of a white square, RGB of (size, size)."""
    drawing = Image.fromarray(cut_out(file, size), "RGBA")
    return Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")
