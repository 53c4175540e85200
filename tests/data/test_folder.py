"""One's own pictures: RGB whatever they were; a folder of them, loaded and looked into before that."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.example_folder import write_example_folder
from serial_lora_course.data.folder import examine_folder, load_folder
from serial_lora_course.data.photographs import photographed_things
from serial_lora_course.data.pictures import picture_files, read_picture
from serial_lora_course.data.registry import load_classification
from tests.data.official import picture_bytes


@pytest.mark.parametrize("content", [None, b"", b"no picture", picture_bytes(0, 64)[:900]])
def test_a_missing_or_corrupt_picture_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(SerialLoRAError, match=r"the picture .*bad\.jpg (is missing|cannot be)"):
        picture_files(tmp_path, [("bad.jpg", 0)])[0]


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


# --- looked into ---------------------------------------------------------------------------------


def remarks(folder) -> dict[str, str]:
    facts = examine_folder(folder)
    return dict(zip(facts["file"], facts["remark"], strict=True))


def test_every_kind_of_picture_is_read_and_other_files_get_their_remark(tmp_path):
    (tmp_path / "cat").mkdir()
    kinds = ("RGB.png", "RGBA.png", "L.png", "1.png", "LA.png", "P.png", "CMYK.tiff")
    for seed, name in enumerate(kinds):
        mode, kind = name.split(".")
        (tmp_path / "cat" / name).write_bytes(picture_bytes(seed, 12, kind.upper(), mode))
    deep = Image.fromarray(np.arange(120, dtype=np.uint16).reshape(10, 12) * 500)
    deep.save(tmp_path / "cat" / "deep.png")
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "cat" / "clear.png")
    assert set(remarks(tmp_path).values()) == {""} and examine_folder(tmp_path)["usable"].all()
    assert read_picture(tmp_path / "cat" / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    grey = np.asarray(read_picture(tmp_path / "cat" / "deep.png"))[..., 0]
    assert abs(grey - np.asarray(deep) / 257).max() < 1
    others = {
        "cat/text.txt": "no picture",
        "cat/broken.jpg": "cannot be read",
        "loose.png": "passed over",
    }
    for name in (*others, "cat/.hidden.png"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff no")
    facts = examine_folder(tmp_path)
    assert set(facts[~facts["usable"]]["file"]) == set(others)
    assert all(words in remarks(tmp_path)[name] for name, words in others.items())


def test_a_copy_is_found_whatever_its_name_class_and_format(tmp_path):
    files = ("train/cat/a.png", "test/dog/b.bmp", "train/dog/c.png", "test/cat/d.png")
    for number, name in enumerate(files):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(picture_bytes(max(number, 1), 12, name[-3:].upper()))
    found = remarks(tmp_path)
    assert "the same picture as test/dog/b.bmp" in found.pop("train/cat/a.png")
    assert set(found.values()) == {""}


def test_in_the_example_folder_photographs_of_one_name_can_be_kept_together(tmp_path):
    folder = write_example_folder(tmp_path / "example")
    shown = Counter((thing.kind, thing.name) for thing in photographed_things() if thing.kind)
    found = Counter(file.stem.rpartition(" ")[0] for file in folder.glob("*/*.png"))
    assert sorted(found.values()) == sorted(shown.values()) and max(found.values()) > 1
    assert found["zebra"] == shown["a hoofed animal", "a zebra"] == 2
    data = load_folder(folder, groups="([^/]+) [0-9]")
    sides = (
        {name.rpartition(" ")[0] for name in part.picture_ids} for part in data.parts().values()
    )
    assert not set.intersection(*sides)
