"""Scenes of drawings such as the tiny SAM was pretrained on, to see what an adapted one forgets."""

from __future__ import annotations

from dataclasses import replace

from serial_lora_course.data.emoji import ATTRIBUTION, load_emoji
from serial_lora_course.data.emoji_sets import kept_apart
from serial_lora_course.data.segmentation_sets import (
    DRAWING_SIZE,
    SCENE_SETS,
    THINGS,
    ScenePictures,
    drawings_of,
)
from serial_lora_course.data.types import SegmentationData

SCENES = 30
DRAWN = replace(
    SCENE_SETS["food"],
    description="things as Twemoji draws them",
    parts=THINGS,
    style="twemoji",
)


def with_drawings(data: SegmentationData) -> SegmentationData:
    """The same training scenes; tested on drawings in the hand of pretraining, which it did not show."""
    emoji = load_emoji(DRAWN.style, DRAWING_SIZE)
    hidden = kept_apart(emoji, drawings_of(DRAWN))["test"]
    names = [emoji.concepts[i].name for i in hidden]
    test = ScenePictures("drawings", "test", DRAWN, emoji.some(hidden), names, SCENES)
    return replace(data, name="drawings", test=test, attribution=ATTRIBUTION[DRAWN.style])
