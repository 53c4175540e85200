"""What holds for the tiny sets: training and test are apart. What is in them, tests/guard keeps."""

from collections import Counter

import pytest

from serial_lora_course.data.emoji import emoji_concepts, load_emoji
from serial_lora_course.data.emoji_sets import EMOJI_SETS, hidden_codepoints, load_emoji_set
from serial_lora_course.data.photographs import load_photograph_classes, photographed_things
from serial_lora_course.data.segmentation_sets import (
    SCENE_SETS,
    load_photograph_scenes,
    load_scene_set,
)
from serial_lora_course.data.style_sets import SIZE, TINY_STYLES, load_tiny_style


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
