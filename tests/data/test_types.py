"""What a data set is: whole examples, two parts that share nothing, a fingerprint that tells."""

import numpy as np
import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import (
    ClassificationData,
    Pictures,
    SegmentationData,
    SegmentationExample,
    StyleData,
    StyleExample,
)


def named(*picture_ids, labels=None):
    """Pictures that have names only, and one label each."""
    return Pictures(picture_ids, None, labels=labels or range(len(picture_ids)))


def make(kind, train=("a", "b"), test=("c", "d"), labels=None, **changes):
    own = {"classification": {"class_names": ["cat", "dog", "cow"], "template": "a {}."}}
    types = {"classification": ClassificationData, "masks": SegmentationData, "style": StyleData}
    parts = {
        "train": train if isinstance(train, Pictures) else named(*train, labels=labels),
        "test": test if isinstance(test, Pictures) else named(*test),
    }
    return types[kind](**({"name": "mine"} | parts | own.get(kind, {}) | changes))


@pytest.mark.parametrize("kind", ["classification", "masks", "style"])
@pytest.mark.parametrize(
    "train, test, message",
    [
        ((), ("a",), "no train pictures"),
        (("a",), (), "no test pictures"),
        (("a", "b"), ("b", "c"), "'b' in train and in test"),
    ],
)
def test_parts_that_are_empty_or_share_a_picture_are_refused(kind, train, test, message):
    with pytest.raises(SerialLoRAError, match=message):
        make(kind, train, test)


@pytest.mark.parametrize("kind", ["classification", "masks", "style"])
def test_a_fingerprint_changes_with_what_the_data_are_and_not_with_their_order(kind):
    same = [make(kind), make(kind, attribution="other words")]
    same += [make(kind, train=("b", "a"), labels=(1, 0))]
    changes = [{"train": ("a",)}, {"train": ("c", "d"), "test": ("a", "b")}]
    if kind == "classification":
        changes += [{"labels": (1, 0)}, {"class_names": ["cat", "god", "cow"]}]
    else:
        changes += [{"name": "yours"}, {"scale": "paper"}, {"content": "drawn otherwise"}]
    others = {make(kind, **change).fingerprint() for change in changes}
    (own,) = {data.fingerprint() for data in same}
    assert own not in others and len(others) == len(changes)


def shown(kind, colour=(1, 2, 3), words="a dot"):
    """A data set of one-pixel pictures of a kind."""

    def item(picture_id):
        picture = Image.new("RGB", (1, 1), colour if picture_id == "d" else (0, 0, 0))
        if kind == "classification":
            return picture
        if kind == "style":
            return StyleExample(picture, words, picture_id)
        return SegmentationExample(picture, np.ones((1, 1, 1), bool), (words,), picture_id)

    labels = (0, 0) if kind == "classification" else None
    return make(kind, *(Pictures(names, item, labels=labels) for names in ("ab", "cd")))


@pytest.mark.parametrize("kind", ["classification", "masks", "style"])
def test_a_fingerprint_of_pictures_sees_one_pixel_and_one_word(kind):
    data, repainted, renamed = shown(kind), shown(kind, (1, 2, 4)), shown(kind, words="a dash")
    assert data.fingerprint() == repainted.fingerprint() == renamed.fingerprint()
    assert data.picture_fingerprint() == shown(kind).picture_fingerprint()
    assert data.picture_fingerprint() != repainted.picture_fingerprint()
    assert (data.picture_fingerprint() != renamed.picture_fingerprint()) == (
        kind != "classification"
    )
