"""Panels show what the lab computes, follow their controls, and leave the learner's model as it was."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora import LoRAConfig, SerialLoRAConfig, adapters, disabled, set_scale
from serial_lora_course.labs.sam import predict_masks
from serial_lora_course.lessons.l01_maths.panel import rank_panel
from serial_lora_course.lessons.l05_sam.panel import embedding_at, mask_panel, masks_in
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.plots.panel import LARGEST_SCALE, at_scale
from tests.labs.lab_models import state_of, unchanged
from tests.models.sam_models import adapted_sam, example


@pytest.fixture(params=["0", "1"], ids=["moving", "still"])
def either_form(request, monkeypatch):
    monkeypatch.setenv("SERIAL_LORA_STATIC", request.param)


def controls(panel) -> dict:
    """The controls of a panel by their description."""
    widgets = panel.children[0].children
    return {widget.description: widget for widget in widgets if hasattr(widget, "description")}


def said(capture_display) -> str:
    """The description of the last figure."""
    return [data["text/plain"] for data in capture_display if "text/html" in data][-1]


def test_what_a_rank_misses_follows_the_controls(monkeypatch, capture_display):
    monkeypatch.setenv("SERIAL_LORA_STATIC", "0")
    tall, low = torch.diag(torch.tensor([4.0, 3.0, 0.0]))[:, :2], torch.ones(5, 4)
    moved = controls(rank_panel({"tall": tall, "low": low}, rank=1))
    assert "misses 60%" in said(capture_display)
    moved["matrix"].value = "low"
    assert "misses 0%" in said(capture_display)
    moved["matrix"].value, moved["rank"].value = "tall", 4  # no rank above the full one
    assert "first 2 marked" in said(capture_display)


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
