"""What a data set is: whole examples, two parts that share nothing, a fingerprint that tells."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from torchvision.ops import masks_to_boxes

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.scenes import box_of
from serial_lora_course.data.types import (
    ClassificationData,
    Pictures,
    SegmentationData,
    SegmentationExample,
    StyleData,
    StyleExample,
)

TYPES = {"classification": ClassificationData, "masks": SegmentationData, "style": StyleData}
each_kind = pytest.mark.parametrize("kind", TYPES)


def make(kind, train="ab", test="cd", labels=(0, 1), colour=(1, 2, 3), words="a dot", **changes):
    """A data set of one-pixel pictures; the last is of the colour."""

    def item(picture_id):
        picture = Image.new("RGB", (1, 1), colour if picture_id == "d" else (0, 0, 0))
        if kind == "style":
            return StyleExample(picture, words, picture_id)
        if kind == "masks":
            return SegmentationExample(picture, np.ones((1, 1, 1), bool), (words,), picture_id)
        return picture

    if kind == "classification":
        changes = {"class_names": ["cat", "dog"]} | changes
    else:
        labels = None
    parts = {
        part: Pictures(ids, item, labels=labels and labels[: len(ids)])
        for part, ids in (("train", train), ("test", test))
    }
    return TYPES[kind](**{"name": "mine"} | parts | changes)


@each_kind
@pytest.mark.parametrize(
    "train, test, message",
    [
        ("", "a", "no train pictures"),
        ("a", "", "no test pictures"),
        ("ab", "bc", "'b' in train and in test"),
        ("aa", "c", "'a' twice"),
    ],
)
def test_parts_that_are_empty_or_share_a_picture_are_refused(kind, train, test, message):
    with pytest.raises(SerialLoRAError, match=message):
        make(kind, train, test)


@each_kind
def test_a_fingerprint_changes_with_what_the_data_are_and_not_with_their_order(kind):
    same = [make(kind), make(kind, attribution="other words"), make(kind, colour=(1, 2, 4))]
    same += [make(kind, train="ba", test="dc", labels=(1, 0))]
    changes = [{"train": "a"}, {"train": "cd", "test": "ab"}]
    if kind == "classification":
        changes += [{"labels": (1, 0)}, {"class_names": ["cat", "god"]}, {"template": "a {}."}]
    else:
        changes += [{"name": "yours"}, {"scale": "paper"}, {"content": "drawn otherwise"}]
    others = {make(kind, **change).fingerprint() for change in changes}
    (own,) = {data.fingerprint() for data in same}
    assert own not in others and len(others) == len(changes)


@each_kind
def test_a_fingerprint_of_pictures_sees_one_pixel_and_one_word(kind):
    own = make(kind).picture_fingerprint()
    assert own == make(kind).picture_fingerprint()
    assert own != make(kind, colour=(1, 2, 4)).picture_fingerprint()
    renamed = make(kind, words="a dash").picture_fingerprint()
    assert (own != renamed) == (kind != "classification")


@pytest.mark.parametrize("count, dtype, filled", [(1, float, 1), (1, bool, 0), (2, bool, 1)])
def test_masks_that_are_no_masks_of_their_picture_are_refused(count, dtype, filled):
    masks = np.full((count, 2, 1), filled, dtype)
    with pytest.raises(SerialLoRAError, match="a needs masks of 2 x 1 bools"):
        SegmentationExample(Image.new("RGB", (1, 2)), masks, ("dot",), "a")


@given(array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(lambda s: arrays(bool, s)))
def test_a_box_is_the_tightest_round_its_mask(mask):
    expected = [0, 0, 0, 0]
    if mask.any():
        (first,) = masks_to_boxes(torch.from_numpy(mask)[None])  # ends at the last pixel, not after
        expected = (first + torch.tensor([0, 0, 1, 1])).tolist()
    assert box_of(mask).tolist() == expected and box_of(mask).dtype == np.float32
