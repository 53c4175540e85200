"""The emoji: every style is there, looks as it is called, and what is hidden stays hidden."""

from itertools import combinations

import pytest

from serial_lora_course.data import emoji_sets
from serial_lora_course.data.emoji import (
    STYLES,
    Concept,
    emoji_concepts,
    load_emoji,
)
from serial_lora_course.data.emoji_sets import (
    EMOJI_SETS,
    hidden_codepoints,
    load_emoji_set,
    unseen_drawings,
)

EVERY_STYLE = pytest.mark.parametrize("style", STYLES)


@EVERY_STYLE
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


def test_hidden_concepts_never_change(monkeypatch):
    hidden = hidden_codepoints()
    assert 0.35 * len(emoji_concepts()) < len(hidden) < 0.45 * len(emoji_concepts())
    insects = [c for c in emoji_concepts() if c.subgroup == "animal-bug"]
    found = [c.name for c in insects if c.codepoints in hidden]
    assert found == ["ant", "lady beetle", "spider", "scorpion", "mosquito", "worm"]
    turned = emoji_concepts()[::-1]
    monkeypatch.setattr(emoji_sets, "emoji_concepts", lambda: turned)
    assert emoji_sets.hidden_codepoints.__wrapped__() == hidden  # whatever the list's order


@pytest.mark.parametrize("name", EMOJI_SETS)
def test_a_set_follows_unicodes_groups_and_keeps_train_and_test_apart(name):
    classes, data, hidden = EMOJI_SETS[name], load_emoji_set(name), hidden_codepoints()
    used = [part for parts in classes.values() for part in parts]
    concept_of: dict[str, Concept] = {c.codepoints: c for c in emoji_concepts()}
    known = {part for c in concept_of.values() for part in (c.subgroup, c.group)}
    assert len(classes) >= 8 and len(used) == len(set(used)) and set(used) <= known

    train, test = set(data.train.picture_ids), set(data.test.picture_ids)
    assert not train & test and not train & hidden and test <= hidden
    assert len(train) == len(data.train) and len(test) == len(data.test)
    for part in (data.train, data.test):
        assert set(part.labels) == set(range(len(classes)))
        for code, label in zip(part.picture_ids, part.labels, strict=True):
            parts = classes[data.class_names[label]]
            assert concept_of[code].subgroup in parts or concept_of[code].group in parts
    picture, label = data.test[0]
    assert picture.mode == "RGB" and picture.size == (64, 64) and label == data.test.labels[0]

    for template in (data.template, data.generic_template):
        prompts = data.prompts(template)
        assert all(one != other for one, other in combinations(prompts, 2))
