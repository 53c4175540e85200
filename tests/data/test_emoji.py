"""The emoji: every style is there, looks as it is called, and what is hidden stays hidden."""

import pickle
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import emoji_sets
from serial_lora_course.data.emoji import (
    ATTRIBUTION,
    STYLES,
    Concept,
    emoji_concepts,
    fit,
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
def test_every_style_draws_nearly_every_concept(style):
    concepts, emoji = emoji_concepts(), load_emoji(style)
    assert len({concept.codepoints for concept in concepts}) == len(concepts) > 1900
    assert len(emoji) == len(emoji.files) >= 1850 and emoji.style == style
    assert emoji.pictures.shape == (len(emoji), 64, 64, 4) and emoji.pictures.dtype == np.uint8
    assert (emoji.pictures[..., 3] > 0).mean(axis=(1, 2)).min() > 0.005  # nothing is empty
    assert {"grinning face", "dog face", "red apple"} <= set(emoji.names) and style in ATTRIBUTION


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


def test_one_drawing_some_and_all_are_the_same_and_nobody_can_change_them():
    emoji = load_emoji("openmoji")
    positions = [7, 0, 300]
    assert np.array_equal(emoji.some(positions), emoji.pictures[positions])
    assert emoji.pictures is emoji.pictures
    with pytest.raises(ValueError, match="read-only"):
        emoji.draw(emoji.files[0])[:] = 0
    in_a_worker = pickle.loads(pickle.dumps(load_emoji_set("food").test))
    assert in_a_worker[3][0].tobytes() == load_emoji_set("food").test[3][0].tobytes()


def test_a_picture_lies_on_its_paper():
    emoji = load_emoji("openmoji")
    white = emoji.picture(0)
    assert white.mode == "RGB" and white.size == (64, 64)
    colours = emoji.pictures[0].astype(float)
    alpha = colours[..., 3:] / 255
    expected = colours[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(np.asarray(white) - expected).max() <= 1.5


def test_fit_centres_a_drawing_and_keeps_its_shape():
    sheet = Image.new("RGBA", (200, 100))
    sheet.paste((255, 0, 0, 255), (120, 30, 180, 60))  # twice as wide as high
    fitted = np.asarray(fit(sheet, 64))
    rows, columns = np.where(fitted[..., 3] > 127)
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert fitted.shape == (64, 64, 4)
    assert width == pytest.approx(64 * 0.92, abs=2) and height == pytest.approx(width / 2, abs=2)
    assert columns.mean() == pytest.approx(31.5, abs=1)
    assert rows.mean() == pytest.approx(31.5, abs=1)
    solid = fitted[fitted[..., 3] > 0]
    assert (solid[:, 0] >= 250).all()  # no dark fringe


def test_unknown_styles_and_sizes_are_refused():
    with pytest.raises(SerialLoRAError, match="twemoji, openmoji"):
        load_emoji("fluent")
    for size in (0, 7, 513):
        with pytest.raises(SerialLoRAError, match="8 to 512"):
            load_emoji("openmoji", size)


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
