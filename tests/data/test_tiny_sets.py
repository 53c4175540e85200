"""What holds for the tiny sets: training and test are apart, and order does not matter."""

from collections import Counter

import numpy as np
import pytest

from serial_lora_course.data import segmentation_sets
from serial_lora_course.data.emoji import emoji_concepts, load_emoji
from serial_lora_course.data.emoji_sets import (
    EMOJI_SETS,
    hidden_codepoints,
    load_emoji_set,
    unseen_drawings,
)
from serial_lora_course.data.photographs import (
    cut_out,
    load_photograph_classes,
    photographed_things,
)
from serial_lora_course.data.scenes import PHOTOGRAPHS, photographs
from serial_lora_course.data.segmentation_sets import (
    SCENE_SETS,
    load_photograph_scenes,
    load_scene_set,
)
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
    names, drawn = [], []
    for part in (load_scene_set if name in SCENE_SETS else load_tiny_style)(name).parts().values():
        if name in SCENE_SETS:
            shown, drawings = part.names, part.drawings
        else:
            emoji = load_emoji(TINY_STYLES[name].drawn_by, SIZE)
            shown = [concept.name for concept in part.sources]
            drawings = emoji.some([emoji.positions[each.codepoints] for each in part.sources])
        names.append(set(shown))
        drawn.append({drawing.tobytes() for drawing in drawings})
    hidden = {c.name for c in emoji_concepts() if c.codepoints in hidden_codepoints()}
    assert not names[0] & hidden and names[1] <= hidden
    assert not drawn[0] & drawn[1]  # not even under another name
    assert len(names[0]) >= 40 and len(names[1]) >= 20


def test_photographs_are_apart_in_both_sets_and_no_class_is_a_quarter_of_the_test():
    scenes, classes = load_photograph_scenes(), load_photograph_classes()
    train, test = ({d.tobytes() for d in part.drawings} for part in scenes.parts().values())
    assert not train & test and not set(scenes.train.names) & set(scenes.test.names)
    names = {thing.file: thing.name for thing in photographed_things()}
    shown = [{names[file] for file in part.picture_ids} for part in classes.parts().values()]
    assert not shown[0] & shown[1]
    counts = Counter(classes.test.labels)
    assert set(classes.train.labels) == set(counts) == set(range(len(classes.class_names)))
    assert len(counts) >= 8 and 4 * max(counts.values()) <= len(classes.test)


def test_a_photograph_is_cut_out_and_on_white():
    file = load_photograph_classes().test.picture_ids[0]
    drawing, (picture, _) = cut_out(file, 64), load_photograph_classes().test[0]
    assert drawing.shape == (64, 64, 4) and 0 < (drawing[..., 3] >= 128).mean() < 0.95
    empty = drawing[..., 3] == 0
    assert (np.asarray(picture)[empty] == 255).all()


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
