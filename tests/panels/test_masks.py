"""The panel of masks: what it shows is what the lab computes, and the model never notices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    adapters,
    disabled,
    eject,
    inject,
    merge,
    set_scale,
)
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import SegmentationExample
from serial_lora_course.labs.sam import predict_masks
from serial_lora_course.models.sam import SamBackbone
from serial_lora_course.panels.adapted import LARGEST_SCALE, at_scale
from serial_lora_course.panels.box_picker import tidy_box
from serial_lora_course.panels.masks import (
    CURVE_SCALES,
    MaskPanel,
    MasksAtScales,
    dice_by_scale,
    mask_panel,
)
from serial_lora_course.plots.masks import overlay
from tests.models.sam_models import adapted_sam, example, small_sam
from tests.panels.panel_probes import assert_untouched, fingerprint, shown_picture, shown_words


def backbone_of(model) -> SamBackbone:
    return SamBackbone(model, "small", "tiny")


@pytest.fixture
def backbone() -> SamBackbone:
    return backbone_of(adapted_sam())


@pytest.fixture
def panel(backbone) -> MaskPanel:
    return MaskPanel(backbone, [example(), example((29, 37), 3, seed=1)])


def encodings(model) -> list[int]:
    """Grows by one number, the pictures at once, each time the image encoder runs."""
    seen = []
    model.image_encoder.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    return seen


def slow_dice(found, truth) -> float:
    """Dice by a loop over pixels."""
    both = sum(bool(f and t) for f, t in zip(found.flat, truth.flat, strict=True))
    area = sum(map(bool, found.flat)) + sum(map(bool, truth.flat))
    return 2 * both / area if area else 1.0


# -------------------------------------------------------------------------------- the masks


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_box_and_scale_gives_the_masks_of_the_lab(data):
    width, height = data.draw(st.sampled_from([(37, 29), (29, 37), (51, 80), (97, 41)]))
    kind = data.draw(st.sampled_from([SerialLoRAConfig, LoRAConfig]))
    scale = data.draw(st.floats(0, LARGEST_SCALE))
    edges = [data.draw(st.floats(0, limit)) for limit in (width, height, width, height)]
    box = tidy_box(edges, (width, height)) or (0, 0, width, height)
    backbone = backbone_of(adapted_sam(config=kind(rank=2)))
    scene = example((width, height))
    masks = MasksAtScales(backbone)
    without, after = (masks.find(scene, [box], s) for s in (None, scale))
    with disabled(backbone.model):
        assert np.array_equal(without, predict_masks(backbone, scene.picture, [box])[0])
    set_scale(backbone.model, scale)
    assert np.array_equal(after, predict_masks(backbone, scene.picture, [box])[0])


def test_a_picture_is_encoded_once_for_each_scale_however_the_box_moves(panel, backbone):
    seen = encodings(backbone.model)
    for left in range(10):
        panel.picker.box = (left, 3, left + 12, 25)
    assert seen == []  # its first box had both embeddings made
    panel.scale.value = 0.5
    panel.scale.value = 1.0
    panel.scale.value = 0.5
    assert seen == [1]
    panel.choice.value = 1
    assert seen == [1, 1, 1]  # without the adapter, and at scale 0.5
    panel.choice.value = 0
    assert seen == [1, 1, 1]


def test_an_adapter_that_was_changed_or_exchanged_is_seen(panel, backbone):
    for adapter in adapters(backbone.model).values():
        adapter.lora_B.data.mul_(-3)
    panel.picker.box = (3, 3, 20, 20)
    expected, _ = predict_masks(backbone, panel.scene.picture, [panel.picker.box])
    assert np.array_equal(panel.found[1], expected[0])
    eject(backbone.model)
    inject(backbone.model, LoRAConfig(rank=2))  # as it begins, it changes nothing
    panel.picker.box = (3, 3, 20, 21)
    assert np.array_equal(*panel.found)


# ------------------------------------------------------------------- the learner's own model


@pytest.fixture
def unusual() -> SamBackbone:
    """A model in the midst of something: training in part, its adapters at different scales."""
    model = adapted_sam(config=SerialLoRAConfig(rank=4, scale=0.7, dropout=0.5))
    model.image_encoder.blocks[1].train()
    next(iter(adapters(model).values())).scale = 0.3
    return backbone_of(model)


def test_the_model_is_as_it_was_after_the_panel_was_used(unusual):
    before = fingerprint(unusual.model)
    panel = MaskPanel(unusual, [example(), example((40, 40))])
    assert panel.scale.value == 0.7
    panel.scale.value = 1.2
    panel.picker.box = (1, 1, 9, 9)
    panel.choice.value = 1
    assert_untouched(unusual.model, before)
    mask_panel(unusual, [example()])
    assert_untouched(unusual.model, before)


@pytest.mark.parametrize("scale", [None, 0.0, 1.5])
def test_the_model_is_as_it_was_after_an_error_too(unusual, scale):
    before = fingerprint(unusual.model)
    with pytest.raises(KeyboardInterrupt):
        with at_scale(unusual.model, scale):
            assert not any(module.training for module in unusual.model.modules())
            raise KeyboardInterrupt
    assert_untouched(unusual.model, before)
    with pytest.raises(SerialLoRAError):
        with at_scale(unusual.model, float("nan")):
            pass
    assert_untouched(unusual.model, before)


# ------------------------------------------------------------------------- what is said of it


def test_the_dice_is_that_of_the_object_whose_box_overlaps_most(panel):
    panel.choice.value = 1
    scene = panel.scene
    for number, box in enumerate(scene.boxes):
        panel.picker.box = tuple(map(float, box))
        assert scene.names[number] in panel.picker.message
        for html, found in zip((panel.before.value, panel.after.value), panel.found, strict=True):
            expected = f"Dice {slow_dice(found, scene.masks[number]):.2f}"
            assert shown_words(html) == expected
            assert np.array_equal(
                shown_picture(html), overlay(scene.picture, scene.masks[number], found)
            )
            assert f"{expected}'" in html  # the alternative text says it as well


def test_a_box_beside_every_object_has_no_dice(backbone):
    mask = np.zeros((1, 30, 40), bool)
    mask[0, 2:8, 2:8] = True
    picture = Image.new("RGB", (40, 30), "teal")
    panel = MaskPanel(backbone, [SegmentationExample(picture, mask, ("star",), "one")])
    panel.picker.box = (8, 8, 30, 28)  # shares a corner with the star's box, and no area
    assert "no Dice" in panel.picker.message
    picture = shown_picture(panel.after.value)
    assert np.array_equal(picture, overlay(panel.scene.picture, None, panel.found[1]))


# ------------------------------------------------------------------------------- shown, or not


def test_the_still_form_shows_what_the_slider_would(backbone, capture_display):
    items = [example(), example((29, 37), 3, seed=1)]
    assert mask_panel(backbone, items) is None
    rows, curve = (data["text/plain"] for data in capture_display if "<img " in str(data))
    for scale in (0, 0.5, 1, 1.5):
        set_scale(backbone.model, scale)
        found, _ = predict_masks(backbone, items[0].picture, items[0].boxes[:1])
        assert f"scale {scale:g}: {slow_dice(found[0], items[0].masks[0]):.2f}" in rows
    assert "2 pictures" in curve
    assert not any("widget-view" in kind for data in capture_display for kind in data)


def test_the_curve_is_the_mean_dice_of_the_lab_at_every_scale(backbone):
    items = [example(), example((51, 80), 3, seed=2)]
    scores = dice_by_scale(MasksAtScales(backbone), items)
    for values, item in zip(scores.values(), items, strict=True):
        for value, scale in zip(values, CURVE_SCALES, strict=True):
            set_scale(backbone.model, scale)
            found, _ = predict_masks(backbone, item.picture, item.boxes)
            each = [slow_dice(f, t) for f, t in zip(found, item.masks, strict=True)]
            assert value == pytest.approx(np.mean(each), abs=1e-6)


# ------------------------------------------------------------------------------------- misuse


@pytest.mark.parametrize("static", "10")
def test_what_cannot_be_shown_is_refused_in_a_sentence(static, monkeypatch, capture_display):
    monkeypatch.setenv("SERIAL_LORA_STATIC", static)
    good = backbone_of(adapted_sam())
    merged = backbone_of(merge(adapted_sam()))
    for backbone, items, words in (
        (good, [], "no pictures"),
        (good, [example(), np.zeros((4, 4))], "ndarray is no example"),
        (good.model, [example()], "Sam is no SAM backbone"),
        (backbone_of(small_sam()), [example()], "no adapters"),
        (merged, [example()], "merged"),
    ):
        with pytest.raises(SerialLoRAError, match=words) as refused:
            mask_panel(backbone, items)
        assert str(refused.value).count(".") <= 2 and str(refused.value).endswith(".")
    assert capture_display == []


def test_an_adapter_that_was_taken_out_meanwhile_is_missed_in_words(panel, backbone):
    eject(backbone.model)
    panel.picker.box = (1, 1, 9, 9)
    assert "no adapters" in panel.picker.message
    assert panel.before.value == panel.after.value == ""
