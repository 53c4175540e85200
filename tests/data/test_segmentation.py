"""Segmentation data: examples that are whole, and what is particular to a set."""

from dataclasses import replace

import pytest

from serial_lora_course.data import segmentation_sets as sets
from serial_lora_course.data.photographs import photographs
from serial_lora_course.data.registry import load_segmentation
from serial_lora_course.data.segmentation_sets import (
    SCENE_SETS,
    load_scene_set,
)
from serial_lora_course.data.types import SegmentationData

EVERY_SET = pytest.mark.parametrize("name", list(SCENE_SETS))


def freshly_made(name: str) -> SegmentationData:
    return load_scene_set.__wrapped__(name)


# --- the tiny sets -------------------------------------------------------------------------------


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
