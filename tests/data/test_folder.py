"""A folder of one's own pictures, loaded as few-shot data."""

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folder import load_folder
from serial_lora_course.data.registry import load_classification
from tests.data_scripts.official_archives import picture_bytes


def make_folder(folder, counts, prefix=""):
    for position, (name, count) in enumerate(counts.items()):
        (folder / prefix / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = folder / prefix / name / f"{number}.JPG"
            path.write_bytes(picture_bytes(100 * position + number))
    return folder


def test_a_folder_of_ones_own(tmp_path):
    folder = make_folder(tmp_path / "pets", {"Big_Dog": 10, "cat": 2, ".hidden": 3})
    (folder / "cat" / "notes.txt").write_text("no picture")
    (folder / "cat" / "._0.JPG").write_bytes(b"left by a Mac")
    (folder / "readme.md").write_text("x")
    data = load_folder(folder)
    assert data.class_names == ["big dog", "cat"] and data.name == "pets"
    assert data.scale == "folder" and data.prompts()[0] == "a photo of a big dog."
    assert sorted(data.train.labels + data.test.labels) == [0] * 10 + [1] * 2
    assert data.test.labels.count(0) == 3 and data.test.labels.count(1) == 1
    assert data.train[0][0].mode == "RGB"
    assert load_folder(folder).fingerprint() == data.fingerprint()
    assert load_folder(folder, seed=2).fingerprint() != data.fingerprint()
    assert load_classification(str(folder)).fingerprint() == data.fingerprint()


def test_a_folder_divided_already(tmp_path):
    make_folder(tmp_path, {"cat": 3, "dog": 2}, "train")
    make_folder(tmp_path, {"cat": 1, "dog": 2}, "test")
    data = load_folder(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert (len(data.train), len(data.test)) == (5, 3)
    assert all(name.startswith("test/") for name in data.test.picture_ids)
    make_folder(tmp_path, {"cow": 1}, "test")
    with pytest.raises(SerialLoRAError, match="different: cow"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "counts, named",
    [
        ({}, "has 0 class folders"),
        ({"cat": 3}, "has 1 class folders"),
        ({"cat": 3, "dog": 1, "cow": 0}, r"too few in cow \(0\), dog \(1\)"),
        ({"Big_Dog": 2, "big dog": 2}, "two classes called 'big dog'"),
    ],
)
def test_folders_that_will_not_do(tmp_path, counts, named):
    with pytest.raises(SerialLoRAError, match=named):
        load_folder(make_folder(tmp_path, counts))
    with pytest.raises(SerialLoRAError, match="there is no folder at"):
        load_folder(tmp_path / "none")
    with pytest.raises(SerialLoRAError, match="between 0 and 1"):
        load_folder(tmp_path, test_fraction=1.0)


def test_all_damaged_pictures_are_named_at_once(tmp_path):
    folder = make_folder(tmp_path, {"cat": 3, "dog": 3})
    (folder / "cat" / "0.JPG").write_bytes(b"")
    whole = picture_bytes(0, 256)
    (folder / "dog" / "2.JPG").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SerialLoRAError, match=r"2 of 6 pictures .*cat/0\.JPG, dog/2\.JPG"):
        load_folder(folder)
