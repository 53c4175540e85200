"""The paper's classification sets, from small archives laid out like the official ones; splits."""

import hashlib
import json
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets as vision

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import splits
from serial_lora_course.data.classification_files import (
    CLASSIFICATION_RELEASES,
    load_classification_files,
)
from serial_lora_course.data.releases import ReleasedPicture
from serial_lora_course.data.splits import SPLIT_FILE, make_split

EXPECTED = {  # class names in label order, pictures in train and test, a prompt
    "caltech101": (["face", "leopard", "accordion", "car side"], 20, 12, "a photo of a car side."),
    "food101": (["apple pie", "hot dog"], 10, 6, "a photo of hot dog, a type of food."),
    "eurosat": (
        ["annual crop land", "forest", "sea or lake"],
        15,
        9,
        "a centered satellite photo of sea or lake.",
    ),
    "oxford_pets": (
        ["abyssinian", "egyptian mau", "american bulldog"],
        12,
        15,
        "a photo of a american bulldog, a type of pet.",
    ),
    "dtd": (["banded", "polka-dotted"], 6, 6, "polka-dotted texture."),
}


@pytest.mark.parametrize("name", CLASSIFICATION_RELEASES)
def test_a_set_has_the_classes_counts_and_prompts_of_coop(prepared_root, name):
    data = load_classification_files(name, prepared_root)
    class_names, train, test, prompt = EXPECTED[name]
    assert data.class_names == class_names and data.prompts()[-1] == prompt
    assert (len(data.train), len(data.test)) == (train, test)
    assert set(data.train.labels) == set(data.test.labels) == set(range(len(class_names)))
    picture, label = data.train[3]
    assert picture.mode == "RGB" and label == data.train.labels[3]
    assert data.split and data.scale == "paper"


def test_official_test_sets_are_kept(prepared_root):
    official = {
        "food101": vision.Food101(prepared_root, split="test")._image_files,
        "oxford_pets": vision.OxfordIIITPet(prepared_root, split="test")._images,
        "dtd": vision.DTD(prepared_root, split="test")._image_files,
    }
    for name, paths in official.items():
        test = load_classification_files(name, prepared_root).test
        assert set(test.sources) == set(paths)


# --- splits in files -----------------------------------------------------------------------------


@pytest.fixture
def eurosat(copy_of, tmp_path):
    """The folder of a copy that a test may spoil, and a function that loads it."""
    return copy_of("eurosat"), lambda: load_classification_files("eurosat", tmp_path)


def test_the_split_is_written_once_and_an_altered_one_noticed(eurosat, monkeypatch):
    folder, load = eurosat
    with monkeypatch.context() as patch:  # a read-only folder gives the same split
        patch.setattr(splits, "write_json", Mock(side_effect=PermissionError))
        first = load().fingerprint()
    assert not (folder / SPLIT_FILE).exists() and load().fingerprint() == first
    content = json.loads((folder / SPLIT_FILE).read_text())
    assert [len(content[part]) for part in ("train", "val", "test")] == [15, 6, 9]
    lines = [
        f"{part}\t{row[0]}\t{row[1]}\t{row[2]}\n"
        for part in ("train", "val", "test")
        for row in content[part]
    ]
    assert content["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert load().fingerprint() == first
    content["train"].append(content["test"].pop())
    (folder / SPLIT_FILE).write_text(json.dumps(content))
    with pytest.raises(SerialLoRAError, match="altered"):
        load()


FIRST = [["Forest/Forest_1.jpg", 0, "x"]]


def rows(train, test=()):
    return json.dumps({"train": train, "val": [], "test": list(test)})


@pytest.mark.parametrize(
    "content, named",
    [
        ('{"train": []}', "split file"),
        (rows([["../../x.jpg", 0, "x"]]), "outside"),
        (rows([["Forest/none.jpg", 0, "x"]]), "missing"),
        (rows(FIRST, FIRST), "in train and in test"),
    ],
)
def test_bad_split_files(eurosat, content, named):
    folder, load = eurosat
    (folder / "split_zhou_EuroSAT.json").write_text(content)
    with pytest.raises(SerialLoRAError, match=named):
        load()


# --- the rule ------------------------------------------------------------------------------------


def pictures(count, name="a"):
    return [ReleasedPicture(f"{name}/{number}.jpg", text=name) for number in range(count)]


@given(st.integers(4, 500))
def test_split_counts_are_coops(count):
    split = make_split(pictures(count), 0.0, seed=1)
    train, validation = round(count * 0.5), round(count * 0.2)
    counts = [train, validation, count - train - validation]
    assert [len(split[part]) for part in ("train", "val", "test")] == counts
    divided = sorted(row[0] for rows in split.values() for row in rows)
    assert divided == sorted(row.picture_id for row in pictures(count))
