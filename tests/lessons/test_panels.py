"""Panels show what the lab computes, follow their controls, and leave the learner's model as it was."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serial_lora import LoRAConfig, SerialLoRAConfig, adapters, disabled, set_scale
from serial_lora_course.labs.sam import predict_masks
from serial_lora_course.lessons.l05_sam.panel import (
    boxes_to_try,
    embedding_at,
    mask_panel,
    masks_in,
    object_in,
)
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.plots.panel import LARGEST_SCALE, at_scale
from tests.labs.lab_models import state_of, unchanged
from tests.models.sam_models import adapted_sam, example


@pytest.fixture(params=["0", "1"], ids=["moving", "still"])
def either_form(request, monkeypatch):
    monkeypatch.setenv("SERIAL_LORA_STATIC", request.param)


@settings(max_examples=10, deadline=None)
@given(
    kind=st.sampled_from([SerialLoRAConfig, LoRAConfig]),
    size=st.sampled_from([(37, 29), (51, 80), (97, 41)]),
    scale=st.floats(0, LARGEST_SCALE),
)
def test_every_scale_gives_the_masks_of_the_lab(kind, size, scale):
    backbone = SamBackbone(adapted_sam(config=kind(rank=2)), "small", "tiny")
    scene = example(size)
    box = [[2, 3, 20, 25]]
    without, after = (
        masks_in(backbone, scene, embedding_at(backbone, scene, s), box) for s in (None, scale)
    )
    with disabled(backbone.model):
        assert np.array_equal(without, predict_masks(backbone, scene.picture, np.array(box))[0])
    set_scale(backbone.model, scale)
    assert np.array_equal(after, predict_masks(backbone, scene.picture, np.array(box))[0])


def test_a_model_in_the_midst_of_training_is_as_it_was(either_form, capture_display):
    model = adapted_sam(config=SerialLoRAConfig(rank=4, scale=0.7, dropout=0.5))
    model.image_encoder.blocks[1].train()
    before, scales = state_of(model), {a.scale for a in adapters(model).values()}
    mask_panel(SamBackbone(model, "small", "tiny"), [example()])
    with pytest.raises(KeyboardInterrupt), at_scale(model, 0.2):
        raise KeyboardInterrupt
    assert unchanged(model, before)
    assert {a.scale for a in adapters(model).values()} == scales == {0.7}


def test_what_is_found_in_a_box_around_nothing_is_painted_as_false(monkeypatch, capture_display):
    monkeypatch.setenv("SERIAL_LORA_STATIC", "0")
    scene = example((37, 29))
    panel = mask_panel(SamBackbone(adapted_sam(), "small", "tiny"), [scene])
    panel.picker.box = [1, 20, 9, 28]  # beside both things
    grey = np.asarray(scene.picture.convert("L"), int)[..., None]
    sheet = np.asarray(Image.open(BytesIO(panel.picker.after)).convert("RGB"), int)
    painted = sheet[(sheet != grey).any(-1)]
    assert len(painted)
    assert (painted[:, 0] > painted[:, 2]).all()  # vermilion, no blue
    assert panel.picker.captions == ["no object in the box", "", ""]


def test_boxes_that_are_tried_are_the_picture_half_a_thing_and_one_around_nothing():
    scene = example((60, 80))
    whole, half, nothing = boxes_to_try(scene).values()
    assert whole.boxes.tolist() == [[0, 0, *scene.picture.size]]
    (x0, y0, x1, y1), thing = half.boxes[0], scene.boxes[0]
    assert (x0, y0, 2 * x1 - x0, y1) == pytest.approx(thing.tolist())
    assert np.array_equal(half.masks, scene.masks[:1]) and np.array_equal(whole.masks, half.masks)
    assert object_in(scene, nothing.boxes[0].tolist()) is None and not nothing.masks.any()
