"""The paper's classification sets, from small archives laid out like the official ones; splits."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets as vision

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification_files import load_classification_files, make_split
from serial_lora_course.data.releases import ReleasedPicture
from tests.data import official

EXPECTED = {  # class names in label order, pictures in train and test, a prompt
    "caltech101": (["face", "leopard", "accordion", "car side"], 20, 12, "a photo of a car side."),
    "food101": (["apple pie", "hot dog"], 10, 6, "a photo of hot dog, a type of food."),
    "eurosat": (
        ["annual crop land", "forest", "sea or lake"],
        15,
        9,
        "a centered satellite photo of sea or lake.",
    ),
    "dtd": (["banded", "polka-dotted"], 6, 6, "polka-dotted texture."),
    "oxford_pets": (
        ["abyssinian", "egyptian mau", "american bulldog"],
        12,
        15,
        "a photo of a american bulldog, a type of pet.",
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_set_has_the_classes_counts_and_prompts_of_coop(prepared_root, name):
    data = load_classification_files(name, prepared_root)
    class_names, train, test, prompt = EXPECTED[name]
    assert data.class_names == class_names and data.prompts()[-1] == prompt
    assert (len(data.train), len(data.test)) == (train, test)
    assert set(data.train.labels) == set(data.test.labels) == set(range(len(class_names)))
    picture, label = data.train[3]
    assert picture.mode == "RGB" and label == data.train.labels[3]
    if name == "food101":
        official_test = vision.Food101(prepared_root, split="test")._image_files
        assert set(data.test.sources) == set(official_test)


def coops(train, test=()):
    return json.dumps({"train": train, "val": [], "test": list(test)})


FIRST, SECOND = [[f"Forest/Forest_{number}.jpg", 0, "a_wood"] for number in (1, 2)]


def test_coops_split_is_used_where_it_lies(tmp_path):
    official.write(tmp_path, "eurosat")
    path = tmp_path / "eurosat" / "split_zhou_EuroSAT.json"
    path.write_text(coops([FIRST], [SECOND]))
    data = load_classification_files("eurosat", tmp_path)
    assert data.class_names == ["a wood"] and data.test.picture_ids == [SECOND[0]]
    for content, named in [
        ('{"train": []}', "split file"),
        (coops([FIRST], [FIRST]), "in train and in test"),
    ]:
        path.write_text(content)
        with pytest.raises(SerialLoRAError, match=named):
            load_classification_files("eurosat", tmp_path)


@given(st.integers(4, 500))
def test_split_counts_are_coops(count):
    pictures = [ReleasedPicture(f"a/{number}.jpg", text="a") for number in range(count)]
    split = make_split(pictures, 0.0)
    train, validation = round(count * 0.5), round(count * 0.2)
    assert [len(split[part]) for part in ("train", "test")] == [train, count - train - validation]
    divided = {row[0] for rows in split.values() for row in rows}
    assert len(divided) == count - validation
