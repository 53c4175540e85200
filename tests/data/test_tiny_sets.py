"""What holds for every tiny set of pictures to segment or to draw."""

import pytest

from serial_lora_course.data import segmentation_sets
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.photographs import PHOTOGRAPHS, photographs
from serial_lora_course.data.segmentation_sets import PICTURES, SCENE_SETS, load_scene_set
from serial_lora_course.data.style_sets import TINY_STYLES, load_tiny_style

LOADERS = {
    **dict.fromkeys(SCENE_SETS, load_scene_set),
    **{f"style {name}": load_tiny_style for name in TINY_STYLES},
}


@pytest.fixture(params=LOADERS)
def kept_and_fresh(request):
    """A set as it is kept, and made anew."""
    load, name = LOADERS[request.param], request.param.removeprefix("style ")
    return load(name), load.__wrapped__(name)


def test_training_and_test_share_neither_concepts_nor_drawings(kept_and_fresh):
    data, hidden = kept_and_fresh[0], hidden_codepoints()
    codes = [{concept.codepoints for concept in part.concepts} for part in (data.train, data.test)]
    assert not codes[0] & hidden and codes[1] <= hidden
    drawn = [{drawing.tobytes() for drawing in part.drawings} for part in (data.train, data.test)]
    assert not drawn[0] & drawn[1]  # not even under another name
    assert len(codes[0]) >= 40 and len(codes[1]) >= 20
    if data.name in SCENE_SETS:
        assert (len(data.train), len(data.test)) == (PICTURES["train"], PICTURES["test"])
    else:  # not even when reduced to a few cells
        shown = [{e.picture.tobytes() for e in part} for part in (data.train, data.test)]
        assert not shown[0] & shown[1]


def test_a_set_is_the_same_whenever_and_in_whatever_order_it_is_made(kept_and_fresh):
    kept, fresh = kept_and_fresh
    assert kept is not fresh and kept.fingerprint() == fresh.fingerprint()
    for index in (5, 0, 2):
        one, two = kept.train[index], fresh.train[index]
        assert one.picture.tobytes() == two.picture.tobytes() and one.picture_id == two.picture_id
        if hasattr(one, "masks"):
            assert one.names == two.names and (one.masks == two.masks).all()
    assert kept.train[0].picture.tobytes() != kept.train[1].picture.tobytes()
    with pytest.raises(IndexError):
        kept.train[len(kept.train)]


@pytest.mark.parametrize("name", SCENE_SETS)
def test_no_photograph_of_the_tests_lies_behind_a_training_scene(name, monkeypatch):
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])
    asked = []

    def watched(split):
        asked.append(split)
        return photographs(split)

    monkeypatch.setattr(segmentation_sets, "photographs", watched)
    for part in ("train", "test"):
        segmentation_sets._faded.cache_clear()
        getattr(load_scene_set.__wrapped__(name), part)[0]
        assert set(asked) == {part}
        asked.clear()
    segmentation_sets._faded.cache_clear()
