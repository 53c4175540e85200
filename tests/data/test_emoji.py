"""The emoji: every style is there, looks as it is called, and what is hidden stays hidden."""

import pytest

from serial_lora_course.data.emoji import STYLES, load_emoji
from serial_lora_course.data.emoji_sets import (
    EMOJI_SETS,
    hidden_codepoints,
    load_emoji_set,
    unseen_drawings,
)


@pytest.mark.parametrize("style", STYLES)
def test_drawings_have_one_name_where_they_are_the_same_and_only_there(style):
    emoji = load_emoji(style)
    contents = [drawing.tobytes() for drawing in emoji.pictures]
    pairs = set(zip(contents, emoji.files, strict=True))
    assert len(pairs) == len(set(contents)) == len(set(emoji.files))
    hidden = hidden_codepoints()
    seen = {
        c for c, of in zip(contents, emoji.concepts, strict=True) if of.codepoints not in hidden
    }
    expected = {
        i
        for i, concept in enumerate(emoji.concepts)
        if concept.codepoints in hidden and contents[i] not in seen
    }
    assert unseen_drawings(emoji) == expected


# --- the data sets -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMOJI_SETS)
def test_a_set_keeps_train_and_test_apart_and_has_every_class_in_both(name):
    data, hidden = load_emoji_set(name), hidden_codepoints()
    train, test = set(data.train.picture_ids), set(data.test.picture_ids)
    assert not train & hidden and test <= hidden
    for part, ids in ((data.train, train), (data.test, test)):
        assert len(ids) == len(part)
        assert set(part.labels) == set(range(len(EMOJI_SETS[name])))
