"""What holds for the tiny sets: training and test are apart, and order does not matter."""

import pytest

from serial_lora_course.data import segmentation_sets
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.emoji_sets import (
    EMOJI_SETS,
    hidden_codepoints,
    load_emoji_set,
    unseen_drawings,
)
from serial_lora_course.data.scenes import PHOTOGRAPHS, photographs
from serial_lora_course.data.segmentation_sets import SCENE_SETS, load_scene_set
from serial_lora_course.data.style_sets import SIZE, TINY_STYLES, load_tiny_style


def test_drawings_have_one_name_where_they_are_the_same_and_only_there():
    emoji, hidden = load_emoji("openmoji"), hidden_codepoints()
    contents = [drawing.tobytes() for drawing in emoji.pictures]
    pairs = set(zip(contents, emoji.files, strict=True))
    assert len(pairs) == len(set(contents)) == len(set(emoji.files))
    is_hidden = [concept.codepoints in hidden for concept in emoji.concepts]
    seen = {content for content, unseen in zip(contents, is_hidden, strict=True) if not unseen}
    expected = {i for i, content in enumerate(contents) if is_hidden[i] and content not in seen}
    assert unseen_drawings(emoji) == expected


@pytest.mark.parametrize("name", EMOJI_SETS)
def test_a_classification_set_keeps_train_and_test_apart_and_has_every_class_in_both(name):
    data, hidden = load_emoji_set(name), hidden_codepoints()
    assert not set(data.train.picture_ids) & hidden and set(data.test.picture_ids) <= hidden
    assert set(data.train.labels) == set(data.test.labels) == set(range(len(EMOJI_SETS[name])))


@pytest.mark.parametrize("name", [*SCENE_SETS, *TINY_STYLES])
def test_training_and_test_share_neither_concepts_nor_drawings(name):
    codes, drawn = [], []
    for part in (load_scene_set if name in SCENE_SETS else load_tiny_style)(name).parts().values():
        if name in SCENE_SETS:
            concepts, drawings = part.concepts, part.drawings
        else:
            concepts, emoji = part.sources, load_emoji(TINY_STYLES[name].drawn_by, SIZE)
            drawings = emoji.some([emoji.positions[concept.codepoints] for concept in concepts])
        codes.append({concept.codepoints for concept in concepts})
        drawn.append({drawing.tobytes() for drawing in drawings})
    assert not codes[0] & hidden_codepoints() and codes[1] <= hidden_codepoints()
    assert not drawn[0] & drawn[1]  # not even under another name
    assert len(codes[0]) >= 40 and len(codes[1]) >= 20


def test_a_scene_is_the_same_in_whatever_order_they_are_made():
    kept, fresh = load_scene_set("weather"), load_scene_set.__wrapped__("weather")
    assert kept is not fresh
    order = (5, 0, 2)
    backwards = [fresh.train[index] for index in order[::-1]]
    forwards = [kept.train[index] for index in order]
    for index, one, two in zip(order, forwards, backwards[::-1], strict=True):
        assert one.picture_id == two.picture_id == kept.train.picture_ids[index]
        assert one.picture.tobytes() == two.picture.tobytes() and one.names == two.names
        assert (one.masks == two.masks).all()


def test_no_photograph_of_the_tests_lies_behind_a_training_scene(monkeypatch):
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])
    asked = []
    monkeypatch.setattr(
        segmentation_sets, "_faded", lambda part, _: asked.append(part) or photographs(part)
    )
    for name, part in load_scene_set.__wrapped__("food").parts().items():
        part[0]
        assert asked.pop() == name and not asked
