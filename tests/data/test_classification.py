"""Classification data: names, prompts, splits, pictures, and a folder of one's own."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification_files import CLASSIFICATION_RELEASES as PAPER_DATASETS
from serial_lora_course.data.folder import load_folder
from serial_lora_course.data.pictures import PictureFiles, clean_name, read_picture
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.releases import ReleasedPicture as Listed
from serial_lora_course.data.splits import SPLIT_FILE, make_split
from tests.data_scripts.official_archives import picture_bytes

# --- the paper's data sets, from small archives laid out like the official ones ------------------

EXPECTED = {  # class names in label order, pictures in train and test, a prompt
    "caltech101": (
        ["face", "leopard", "accordion", "car side"],
        4 * 5,
        4 * 3,
        "a photo of a car side.",
    ),
    "food101": (["apple pie", "hot dog"], 2 * 5, 2 * 3, "a photo of hot dog, a type of food."),
    "eurosat": (
        ["annual crop land", "forest", "sea or lake"],
        3 * 5,
        3 * 3,
        "a centered satellite photo of sea or lake.",
    ),
    "oxford_pets": (
        ["abyssinian", "egyptian mau", "american bulldog"],
        3 * 4,
        3 * 5,
        "a photo of a american bulldog, a type of pet.",
    ),
    "dtd": (["banded", "polka-dotted"], 2 * 3, 2 * 3, "polka-dotted texture."),
}


@pytest.mark.parametrize("name", PAPER_DATASETS)
def test_paper_data_load(prepared_root, name):
    data = load_classification(name, "paper", prepared_root)
    class_names, train, test, prompt = EXPECTED[name]
    assert data.class_names == class_names
    assert (len(data.train), len(data.test)) == (train, test)
    assert data.prompts()[-1] == prompt
    assert set(data.train.labels) == set(data.test.labels) == set(range(len(class_names)))
    picture, label = data.train[3]
    assert picture.mode == "RGB" and label == data.train.labels[3]
    assert data.split and data.scale == "paper"


def test_labels_belong_to_the_folders_the_pictures_lie_in(prepared_root):
    data = load_classification("caltech101", "paper", prepared_root)
    folder_of = {"face": "Faces", "leopard": "Leopards", "car side": "car_side"}
    for part in (data.train, data.test):
        for picture_id, label in zip(part.picture_ids, part.labels, strict=True):
            name = data.class_names[label]
            assert picture_id.split("/")[0] == folder_of.get(name, name)


def test_faces_easy_and_background_are_dropped_as_in_coop(prepared_root):
    listed = PAPER_DATASETS["caltech101"].listed(prepared_root)
    assert {row.picture_id.split("/")[0] for row in listed} == {
        "Faces",
        "Leopards",
        "accordion",
        "car_side",
    }


def test_official_test_sets_are_kept(prepared_root):
    from torchvision.datasets import DTD, Food101, OxfordIIITPet

    official = {
        "food101": Food101(prepared_root, split="test")._image_files,
        "oxford_pets": OxfordIIITPet(prepared_root, split="test")._images,
        "dtd": DTD(prepared_root, split="test")._image_files,
    }
    for name, paths in official.items():
        data = load_classification(name, "paper", prepared_root)
        ours = {data.test.folder / picture_id for picture_id in data.test.picture_ids}
        assert ours == set(paths)


def test_the_split_is_written_once_and_read_again(prepared_root):
    first = load_classification("eurosat", "paper", prepared_root)
    path = prepared_root / "eurosat" / SPLIT_FILE
    content = json.loads(path.read_text())
    assert len(content["train"]) == 15 and len(content["val"]) == 6 and len(content["test"]) == 9
    lines = [
        f"{part}\t{row[0]}\t{row[1]}\t{row[2]}\n"
        for part in ("train", "val", "test")
        for row in content[part]
    ]
    assert content["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert load_classification("eurosat", "paper", prepared_root).fingerprint() == (
        first.fingerprint()
    )


@pytest.fixture
def eurosat_root(prepared_root, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(prepared_root / "eurosat", tmp_path / "eurosat")
    (tmp_path / "eurosat" / SPLIT_FILE).unlink(missing_ok=True)
    return tmp_path


def test_coops_own_file_is_preferred(eurosat_root):
    rows = {
        "train": [
            ["Forest/Forest_1.jpg", 0, "Forest"],
            ["SeaLake/SeaLake_9.jpg", 1, "Sea_or Lake"],
        ],
        "val": [],
        "test": [["Forest/Forest_7.jpg", 0, "Forest"]],
    }
    (eurosat_root / "eurosat" / "split_zhou_EuroSAT.json").write_text(json.dumps(rows))
    data = load_classification("eurosat", "paper", eurosat_root)
    assert data.class_names == ["forest", "sea or lake"]
    assert data.train.picture_ids == ["Forest/Forest_1.jpg", "SeaLake/SeaLake_9.jpg"]
    assert "CoOp's split_zhou_EuroSAT.json" == data.split
    assert not (eurosat_root / "eurosat" / SPLIT_FILE).exists()


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not a split file"),
        ('{"train": []}', "not a split file"),
        (
            '{"train": [["../../x.jpg", 0, "x"]], "val": [], "test": []}',
            "outside the data set's folder",
        ),
        (
            '{"train": [["Forest/none.jpg", 0, "x"]], "val": [], "test": []}',
            "1 files .* missing",
        ),
        (
            '{"train": [["Forest/Forest_1.jpg", 1, "x"]], "val": [], "test": []}',
            "leaves out class numbers",
        ),
        (
            '{"train": [["Forest/Forest_1.jpg", 0, "x"]], "val": [], '
            '"test": [["Forest/Forest_2.jpg", 0, "y"]]}',
            "calls class 0 both",
        ),
        (
            '{"train": [["Forest/Forest_1.jpg", 0, "x"]], "val": [], '
            '"test": [["Forest/Forest_1.jpg", 0, "x"]]}',
            "in train and in test",
        ),
    ],
)
def test_bad_split_files(eurosat_root, content, message):
    (eurosat_root / "eurosat" / "split_zhou_EuroSAT.json").write_text(content)
    with pytest.raises(SerialLoRAError, match=message):
        load_classification("eurosat", "paper", eurosat_root)


def test_an_altered_split_of_ours_is_noticed(eurosat_root):
    load_classification("eurosat", "paper", eurosat_root)
    path = eurosat_root / "eurosat" / SPLIT_FILE
    content = json.loads(path.read_text())
    content["train"].append(content["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(SerialLoRAError, match="altered after it was made"):
        load_classification("eurosat", "paper", eurosat_root)


def test_a_read_only_folder_gives_the_same_split(eurosat_root, monkeypatch):
    first = load_classification("eurosat", "paper", eurosat_root)
    (eurosat_root / "eurosat" / SPLIT_FILE).unlink()

    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr("serial_lora_course.data.splits.write_json", refuse)
    second = load_classification("eurosat", "paper", eurosat_root)
    assert second.fingerprint() == first.fingerprint()
    assert not (eurosat_root / "eurosat" / SPLIT_FILE).exists()


def test_a_lost_picture_is_told(eurosat_root):
    data = load_classification("eurosat", "paper", eurosat_root)
    lost = data.train.picture_ids[0]
    (data.train.folder / lost).unlink()
    with pytest.raises(SerialLoRAError, match=f"1 files of EuroSAT .*are missing.*{lost}"):
        load_classification("eurosat", "paper", eurosat_root)


def test_an_incomplete_folder_is_told(prepared_root, tmp_path):
    shutil.copytree(prepared_root / "food-101", tmp_path / "food-101")
    (tmp_path / "food-101" / SPLIT_FILE).unlink(missing_ok=True)
    (tmp_path / "food-101" / "meta" / "test.json").unlink()
    with pytest.raises(SerialLoRAError, match="not complete.*python data_scripts/food101.py"):
        load_classification("food101", "paper", tmp_path)


# --- the rule of the split -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4, 7, 40, 75, 435])
def test_split_counts_are_coops(count):
    listed = [Listed(f"a/{number}.jpg", text="a") for number in range(count)]
    split = make_split(listed, 0.0, seed=1)
    train, validation = round(count * 0.5), round(count * 0.2)
    assert [len(split[part]) for part in ("train", "val", "test")] == [
        train,
        validation,
        count - train - validation,
    ]
    assert sorted(row[0] for rows in split.values() for row in rows) == sorted(
        row.picture_id for row in listed
    )


def test_the_split_ignores_the_order_of_the_list_and_other_classes():
    listed = [Listed(f"{name}/{number}.jpg", text=name) for name in "ab" for number in range(20)]
    split = make_split(listed, 0.0, seed=1)
    assert make_split(listed[::-1], 0.0, seed=1) == split
    alone = make_split([row for row in listed if row.text == "a"], 0.0, seed=1)
    assert [row for row in split["train"] if row[1] == 0] == alone["train"]
    assert make_split(listed, 0.0, seed=2) != split


def test_a_class_too_small_to_split():
    with pytest.raises(SerialLoRAError, match="too few pictures"):
        make_split([Listed("a/1.jpg", text="a")], 0.0, seed=1)


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, mode",
    [
        ("PNG", "L"),
        ("PNG", "LA"),
        ("PNG", "P"),
        ("PNG", "RGBA"),
        ("PNG", "1"),
        ("JPEG", "CMYK"),
        ("JPEG", "L"),
        ("GIF", "P"),
        ("TIFF", "F"),
        ("PNG", "I;16"),
        ("WEBP", "RGBA"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, kind, mode):
    path = tmp_path / "picture"
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    if mode == "I;16":
        Image.fromarray(values.astype(np.uint16) * 257).save(path, kind)
    else:
        Image.fromarray(values).convert("RGB" if mode == "LA" else "L").convert(mode).save(
            path, kind
        )
    picture = read_picture(path)
    assert picture.mode == "RGB" and picture.size == (8, 8)
    if kind == "PNG" and mode in ("L", "RGBA", "I;16"):
        assert np.array_equal(np.asarray(picture)[:, :, 0], values)


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_a_photo_is_turned_upright_only_where_asked(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees to see it right
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").size == (8, 4)
    assert read_picture(tmp_path / "a.jpg", upright=True).size == (4, 8)


@pytest.mark.parametrize("content", [b"", b"no picture", picture_bytes(0, 64)[:900]])
def test_a_corrupt_picture_is_named(tmp_path, content):
    (tmp_path / "bad.jpg").write_bytes(content)
    pictures = PictureFiles(tmp_path, ["bad.jpg"], [0])
    with pytest.raises(SerialLoRAError, match=r"the picture .*bad\.jpg cannot be read"):
        pictures[0]


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(SerialLoRAError, match=r"gone\.jpg is missing"):
        PictureFiles(tmp_path, ["gone.jpg"], [0])[0]


def test_reading_past_the_end_stops_a_loop(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture_bytes(0))
    assert len(list(PictureFiles(tmp_path, ["a.jpg"], [0]))) == 1


# --- ClassificationData --------------------------------------------------------------------------


def test_clean_name():
    assert clean_name("American_Bulldog") == "american bulldog"
    assert clean_name(" polka-dotted ") == "polka-dotted"


# --- a folder of one's own -----------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "counts, message",
    [
        ({}, "has 0 class folders"),
        ({"cat": 3}, "has 1 class folders"),
        ({"cat": 3, "dog": 1, "cow": 0}, r"too few in cow \(0\), dog \(1\)"),
        ({"Big_Dog": 2, "big dog": 2}, "two classes called 'big dog'"),
    ],
)
def test_folders_that_will_not_do(tmp_path, counts, message):
    with pytest.raises(SerialLoRAError, match=message):
        load_folder(make_folder(tmp_path, counts))


def test_folders_divided_badly(tmp_path):
    make_folder(tmp_path, {"cat": 3, "dog": 2}, "train")
    make_folder(tmp_path, {"cat": 1, "cow": 2}, "test")
    with pytest.raises(SerialLoRAError, match="different: cow, dog"):
        load_folder(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(SerialLoRAError, match="there is no folder at"):
        load_folder(tmp_path / "none")
    with pytest.raises(SerialLoRAError, match="between 0 and 1"):
        load_folder(tmp_path, test_fraction=1.0)


def test_all_damaged_pictures_are_told_at_once(tmp_path):
    folder = make_folder(tmp_path, {"cat": 3, "dog": 3})
    (folder / "cat" / "0.JPG").write_bytes(b"")
    whole = picture_bytes(0, 256)
    (folder / "dog" / "2.JPG").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SerialLoRAError, match=r"2 of 6 pictures .*cat/0\.JPG, dog/2\.JPG"):
        load_folder(folder)
