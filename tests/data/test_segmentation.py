"""Segmentation data: examples that are whole, and what is particular to a set."""

from dataclasses import replace

import numpy as np
import pytest

from serial_lora_course.data import segmentation_sets as sets
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.photographs import photographs
from serial_lora_course.data.registry import load_segmentation
from serial_lora_course.data.scenes import OPAQUE
from serial_lora_course.data.segmentation_sets import (
    DRAWING_SIZE,
    LONGER_SIDE,
    SCENE_SETS,
    SHORTEST_SIDE,
    filled_outlines,
    load_scene_set,
)
from serial_lora_course.data.types import SegmentationData, SegmentationExample

LOOKED_AT = 8  # scenes of each part
EVERY_SET = pytest.mark.parametrize("name", list(SCENE_SETS))


def scenes_of(name: str, part: str) -> list[SegmentationExample]:
    pictures = getattr(load_segmentation(name), part)
    return [pictures[index] for index in range(LOOKED_AT)]


def freshly_made(name: str) -> SegmentationData:
    return load_scene_set.__wrapped__(name)


# --- the tiny sets -------------------------------------------------------------------------------


@EVERY_SET
def test_masks_are_disjoint_named_and_large_enough(name):
    for part in ("train", "test"):
        known = {concept.name for concept in getattr(load_segmentation(name), part).concepts}
        for example in scenes_of(name, part):
            width, height = example.picture.size
            assert example.picture.mode == "RGB" and set(example.names) <= known
            assert LONGER_SIDE[0] <= max(width, height) <= LONGER_SIDE[1]
            assert min(width, height) >= SHORTEST_SIDE
            assert example.masks.shape == (len(example.names), height, width)
            assert example.masks.sum(0).max() <= 1 and example.masks.sum((1, 2)).min() >= 80


@EVERY_SET
def test_no_photograph_of_the_tests_lies_behind_a_training_scene(name, monkeypatch):
    asked = []

    def watched(split):
        asked.append(split)
        return photographs(split)

    monkeypatch.setattr(sets, "photographs", watched)
    sets._faded.cache_clear()
    for part in ("train", "test"):
        getattr(freshly_made(name), part)[0]
        assert set(asked) == {part}
        asked.clear()
        sets._faded.cache_clear()


def test_a_recipe_is_part_of_what_a_set_is(monkeypatch):
    before = load_segmentation("food").fingerprint()
    harder = replace(SCENE_SETS["food"].recipe, clutter=0.9)
    monkeypatch.setitem(SCENE_SETS, "food", replace(SCENE_SETS["food"], recipe=harder))
    assert freshly_made("food").fingerprint() != before


# --- what is particular to a set -----------------------------------------------------------------


def test_weather_changes_the_picture_and_leaves_the_masks(monkeypatch):
    seen = scenes_of("weather", "train")
    monkeypatch.setitem(SCENE_SETS, "weather", replace(SCENE_SETS["weather"], weather=()))
    clear = freshly_made("weather").train
    for index, example in enumerate(seen):
        assert np.array_equal(example.masks, clear[index].masks)
        pixels, unveiled = (np.asarray(e.picture, float) for e in (example, clear[index]))
        assert np.abs(pixels - unveiled).mean() > 5


def flooded(ink: np.ndarray) -> np.ndarray:
    """What a flood that starts at the border and cannot cross ink leaves dry."""
    height, width = ink.shape
    around = np.pad(ink, 1)  # a rim of water
    wet = np.zeros_like(around)
    front = [(0, 0)]
    while front:
        y, x = front.pop()
        if 0 <= y < height + 2 and 0 <= x < width + 2 and not (wet[y, x] or around[y, x]):
            wet[y, x] = True
            front += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return ~wet[1:-1, 1:-1]


def test_line_drawings_are_filled_as_far_as_their_ink_closes():
    alpha = load_emoji("openmoji-line", DRAWING_SIZE).pictures[::90, ..., 3]
    assert len(alpha) > 15
    for drawing, filled in zip(alpha, filled_outlines(alpha), strict=True):
        dry = flooded(drawing >= OPAQUE)
        assert np.array_equal(filled >= OPAQUE, dry)
        assert np.array_equal(filled[~dry], drawing[~dry])  # the soft edge outside stays
