"""The paper's segmentation sets, from small archives laid out like the official ones."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.datasets import VOCSegmentation
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import masks as module
from serial_lora_course.data.masks import INDEX_FILE, LEAST_SHARE, MaskedPictures
from serial_lora_course.data.registry import load_segmentation
from serial_lora_course.data.releases import ReleasedPicture
from serial_lora_course.data.segmentation_files import (
    FLOODNET_CLASSES,
    MASKED_RELEASES,
    MASKED_SETS,
    VOC_CLASSES,
    load_segmentation_files,
)
from serial_lora_course.data.subsets import training_subset
from tests.data_scripts.official_archives import (
    FLOOD_SIZE,
    FOOD_CLASSES,
    FOOD_SIZE,
    mask_bytes,
    picture_bytes,
)

RELEASE_OF = {"foodseg103": "icecream", "floodnet": "flood", "voc_person": "human"}


@pytest.fixture
def copy_of(prepared_root, tmp_path):
    """A release in a data root that a test may spoil; gives the release's folder."""

    def copy(release):
        folder = tmp_path / MASKED_RELEASES[release].folder
        shutil.copytree(prepared_root / MASKED_RELEASES[release].folder, folder)
        (folder / INDEX_FILE).unlink(missing_ok=True)
        return folder

    return copy


def names_of(part):
    return [os.path.basename(picture_id) for picture_id in part.picture_ids]


# --- what is in the sets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, train, test",
    [
        ("icecream", ["00000000.jpg", "00000003.jpg"], ["00000006.jpg"]),
        ("pie", ["00000001.jpg", "00000005.jpg"], ["00000006.jpg"]),
        ("strawberry", ["00000001.jpg"], ["00000007.jpg"]),  # not the one with a single pixel
        ("flood", ["6279.jpg", "6281.jpg"], ["6283.jpg"]),  # neither the lake nor the "val" one
        ("human", ["2007_000032.jpg", "2008_000042.jpg"], ["2009_000061.jpg"]),
    ],
)
def test_pictures_without_the_class_are_left_out(prepared_root, name, train, test):
    data = load_segmentation(name, "paper", prepared_root)
    assert (names_of(data.train), names_of(data.test)) == (train, test)
    assert (data.name, data.scale) == (name, "paper")
    assert data.description and data.attribution and data.split
    for part in (data.train, data.test):
        for example in part:
            assert example.picture.mode == "RGB"
            assert example.masks.mean((1, 2)).min() >= LEAST_SHARE


def read_pixel_by_pixel(path, wanted):
    """A mask by PIL's own getpixel: True where ``wanted`` says so of the number there."""
    with Image.open(path) as mask:
        width, height = mask.size
        rows = [[wanted(mask.getpixel((x, y))) for x in range(width)] for y in range(height)]
    return np.asarray(rows)


@pytest.mark.parametrize("name", ["icecream", "pie", "strawberry"])
def test_food_masks_are_all_pixels_of_the_class(prepared_root, name):
    data = load_segmentation_files(name, prepared_root)
    (wanted,) = MASKED_SETS[name].classes
    number = FOOD_CLASSES.index(wanted)
    for part in (data.train, data.test):
        for example in part:
            path = data.folder / example.picture_id.replace("img_dir", "ann_dir")
            expected = read_pixel_by_pixel(path.with_suffix(".png"), lambda value: value == number)
            assert example.names == (wanted,)
            assert np.array_equal(example.masks, expected[None])


def test_two_pieces_are_one_mask_with_a_box_round_both(prepared_root):
    example = load_segmentation_files("icecream", prepared_root).train[1]
    assert example.boxes.tolist() == [[0, 0, 120, 100]]
    assert example.masks.sum() == 9 * 9 + 20 * 20


def test_flood_is_buildings_and_roads_a_mask_each(prepared_root):
    data = load_segmentation_files("flood", prepared_root)
    assert "water is left out" in data.description
    first, second = data.train
    assert first.names == ("building flooded", "road flooded")
    for example in data.train:
        number = os.path.basename(example.picture_id).removesuffix(".jpg")
        path = data.folder / f"train/train-label-img/{number}_lab.png"
        for mask, name in zip(example.masks, example.names, strict=True):
            value = FLOODNET_CLASSES.index(name)
            expected = read_pixel_by_pixel(path, lambda found, value=value: found == value)
            assert np.array_equal(mask, expected)
    assert second.names == ("building flooded",)  # two buildings, which the labels do not number
    assert second.boxes.tolist() == [[0, 0, *FLOOD_SIZE]]


def test_every_person_is_a_mask_and_the_band_belongs_to_nobody(prepared_root):
    data = load_segmentation_files("human", prepared_root)
    assert "Stanford 40" in data.description
    example = data.train[0]
    assert example.names == ("person", "person")  # and no dog
    name = os.path.basename(example.picture_id).removesuffix(".jpg")
    official = VOCSegmentation(prepared_root, image_set="train")
    classes = np.asarray(official[0][1])
    assert official.images[0].endswith(f"{name}.jpg")
    person = VOC_CLASSES.index("person")
    assert np.array_equal(example.masks.any(0), classes == person)
    path = data.folder / "SegmentationObject" / f"{name}.png"
    for mask, number in zip(example.masks, (1, 2), strict=True):
        expected = read_pixel_by_pixel(path, lambda value, number=number: value == number)
        assert np.array_equal(mask, expected)


def test_a_speck_beside_a_person_is_no_object(prepared_root):
    example = load_segmentation_files("human", prepared_root).train[1]
    assert len(example.masks) == 1
    assert example.boxes.tolist() == [[0, 0, 30, 75]]


def test_voc_classes_are_in_the_order_that_torchvision_uses():
    categories = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert VOC_CLASSES[1:] == tuple(categories[1:])


@pytest.mark.parametrize(
    "release, pictures, classes", [("foodseg103", 8, 5), ("floodnet", 6, 9), ("voc_person", 5, 20)]
)
def test_counts_are_of_all_pictures_with_masks(prepared_root, release, pictures, classes):
    assert MASKED_RELEASES[release].count(prepared_root) == (pictures, classes)


def test_subsets_fingerprints_and_workers(prepared_root):
    data = load_segmentation_files("icecream", prepared_root)
    assert len(training_subset(data, 50, seed=1)) == 1
    assert load_segmentation_files("icecream", prepared_root).fingerprint() == data.fingerprint()
    assert load_segmentation_files("pie", prepared_root).fingerprint() != data.fingerprint()
    in_a_worker = pickle.loads(pickle.dumps(data.train))
    assert np.array_equal(in_a_worker[-1].masks, data.train[1].masks)
    with pytest.raises(IndexError):
        data.train[2]


# --- orientation ---------------------------------------------------------------------------------


def test_a_picture_on_its_side_is_turned_to_fit_its_mask(prepared_root):
    data = load_segmentation_files("pie", prepared_root)
    example = data.train[1]
    with Image.open(data.folder / example.picture_id) as stored:
        assert stored.size == FOOD_SIZE[::-1]
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert example.picture.size == FOOD_SIZE
    assert np.array_equal(np.asarray(example.picture), expected)


def test_a_picture_whose_mask_lies_as_it_is_stored_is_not_turned(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(picture_bytes(0, (40, 30), exif=turned))
    (tmp_path / "a.png").write_bytes(mask_bytes((40, 30), [(1, 0, 0, 9, 9)]))
    pictures = MaskedPictures(tmp_path, [ReleasedPicture("a.jpg", masks=("a.png",))], {1: "pie"})
    with Image.open(tmp_path / "a.jpg") as stored:
        assert np.array_equal(np.asarray(pictures[0].picture), np.asarray(stored.convert("RGB")))


def test_a_mask_of_another_size_is_refused(copy_of):
    folder = copy_of("foodseg103")
    path = folder / "Images/ann_dir/train/00000000.png"
    path.write_bytes(mask_bytes((60, 50), [(3, 0, 0, 20, 20)]))
    data = load_segmentation_files("icecream", folder.parent)
    with pytest.raises(SerialLoRAError, match=r"00000000\.jpg is 120 x 100 and its mask 60 x 50"):
        data.train[0]


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "cannot be read"),
        (b"<html>Please log in</html>", "cannot be read"),
        (mask_bytes(FOOD_SIZE, [(3, 0, 0, 50, 50)])[:90], "cannot be read"),
        (picture_bytes(0, FOOD_SIZE, "PNG"), "a picture of mode RGB, not a mask"),
    ],
    ids=["empty", "web page", "cut short", "in colour"],
)
def test_a_damaged_mask_is_named_and_the_index_not_written(copy_of, content, message):
    folder = copy_of("foodseg103")
    (folder / "Images/ann_dir/test/00000006.png").write_bytes(content)
    with pytest.raises(SerialLoRAError, match=rf"00000006\.png .*{message}.*official archive"):
        load_segmentation_files("icecream", folder.parent)
    assert not (folder / INDEX_FILE).exists()


@pytest.mark.parametrize(
    "release, lost",
    [
        ("foodseg103", "Images/ann_dir/train/00000002.png"),
        ("floodnet", "val/val-label-img/6282_lab.png"),
        ("voc_person", "SegmentationObject/2007_000039.png"),
        ("voc_person", "JPEGImages/2007_000039.jpg"),
    ],
)
def test_a_missing_file_is_named(copy_of, tmp_path, release, lost):
    folder = copy_of(release)
    (folder / lost).unlink()
    with pytest.raises(SerialLoRAError, match=f"1 files of .* are missing, {folder / lost}"):
        load_segmentation_files(RELEASE_OF[release], tmp_path)


def test_files_that_change_after_loading_are_told(copy_of):
    folder = copy_of("foodseg103")
    data = load_segmentation_files("icecream", folder.parent)
    mask = folder / "Images/ann_dir/train/00000000.png"
    mask.write_bytes(mask_bytes(FOOD_SIZE, [(1, 0, 0, 50, 50)]))
    with pytest.raises(SerialLoRAError, match=r"00000000\.png does not show ice cream any more"):
        data.train[0]
    mask.unlink()
    with pytest.raises(SerialLoRAError, match=r"the mask .*00000000\.png is missing"):
        data.train[0]
    (folder / data.train.picture_ids[1]).write_bytes(b"")
    with pytest.raises(SerialLoRAError, match=r"the picture .*00000003\.jpg cannot be read"):
        data.train[1]


def test_two_masks_of_different_sizes_are_told(copy_of, tmp_path):
    folder = copy_of("voc_person")
    path = folder / "SegmentationObject/2007_000032.png"
    path.write_bytes(mask_bytes((10, 10), [(1, 0, 0, 5, 5)], "P"))
    with pytest.raises(SerialLoRAError, match=r"2007_000032\.png is not of the same size"):
        load_segmentation_files("human", tmp_path)


@pytest.mark.parametrize(
    "release, lost",
    [
        ("foodseg103", "Images/img_dir/test"),
        ("foodseg103", "category_id.txt"),
        ("floodnet", "test/test-label-img"),
        ("voc_person", "ImageSets/Segmentation/val.txt"),
    ],
)
def test_an_incomplete_folder_is_told(copy_of, tmp_path, release, lost):
    path = copy_of(release) / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SerialLoRAError, match=f"(not complete|missing).*data_scripts/{release}.py"):
        load_segmentation_files(RELEASE_OF[release], tmp_path)


def test_a_list_of_names_cannot_lead_out_of_the_folder(copy_of, tmp_path):
    folder = copy_of("voc_person")
    (folder / "ImageSets/Segmentation/train.txt").write_text("../../../secret\n")
    (tmp_path / "secret.jpg").write_bytes(picture_bytes(0))
    with pytest.raises(SerialLoRAError, match="missing"):
        load_segmentation_files("human", tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("0\tbackground\n1\tpie\n", "no class 'ice cream' among its 2"),
        ("ice cream\n", "not a list of class numbers and names"),
        ("8\n", "not a list of class numbers and names"),
    ],
)
def test_class_numbers_are_looked_up(copy_of, tmp_path, content, message):
    (copy_of("foodseg103") / "category_id.txt").write_text(content)
    with pytest.raises(SerialLoRAError, match=message):
        load_segmentation_files("icecream", tmp_path)


def test_a_set_without_pictures_is_told(copy_of, tmp_path):
    folder = copy_of("floodnet")
    for path in (folder / "test" / "test-label-img").iterdir():
        path.write_bytes(mask_bytes(FLOOD_SIZE, [(5, 0, 0, 80, 80)]))  # only water
    with pytest.raises(SerialLoRAError, match="flood has no test pictures"):
        load_segmentation_files("flood", tmp_path)


def test_what_a_mac_leaves_is_no_picture(copy_of, tmp_path):
    folder = copy_of("foodseg103")
    (folder / "Images/img_dir/train/._00000000.jpg").write_bytes(b"left by a Mac")
    (folder / "Images/img_dir/train/Thumbs.db").write_bytes(b"left by Windows")
    assert len(load_segmentation_files("icecream", tmp_path).train) == 2


# --- the index beside the data -------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """The names of the masks that are opened."""
    names, read = [], module._read_mask

    def note(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(module, "_read_mask", note)
    return names


def test_masks_are_opened_once_for_all_sets_of_a_release(copy_of, tmp_path, opened):
    folder = copy_of("foodseg103")
    first = load_segmentation_files("icecream", tmp_path)
    assert sorted(opened) == sorted(p.name for p in (folder / "Images/ann_dir").rglob("*.png"))
    opened.clear()
    load_segmentation_files("pie", tmp_path)
    again = load_segmentation_files("icecream", tmp_path)
    assert opened == [] and again.fingerprint() == first.fingerprint()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_changed_mask_is_opened_again_and_only_that(copy_of, tmp_path, opened):
    folder = copy_of("foodseg103")
    load_segmentation_files("icecream", tmp_path)
    opened.clear()
    path = folder / "Images/ann_dir/train/00000002.png"
    path.write_bytes(mask_bytes(FOOD_SIZE, [(3, 5, 5, 25, 25)]))
    assert "00000002.jpg" in names_of(load_segmentation_files("icecream", tmp_path).train)
    assert opened == ["00000002.png"]


def test_a_mask_changed_without_changing_its_size_is_noticed(copy_of, tmp_path):
    path = copy_of("foodseg103") / "Images/ann_dir/train/00000002.png"
    before, after = (
        mask_bytes(FOOD_SIZE, [(number, 5, 5, 25, 25)]).ljust(200, b"\0") for number in (1, 3)
    )
    path.write_bytes(before)
    load_segmentation_files("icecream", tmp_path)
    written = path.stat()
    path.write_bytes(after)
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns + 1))
    assert path.stat().st_size == written.st_size
    assert "00000002.jpg" in names_of(load_segmentation_files("icecream", tmp_path).train)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda index: "{",
        lambda index: "[]",
        lambda index: json.dumps({**index, "format": "another"}),
        lambda index: json.dumps({**index, "pictures": {n: 1 for n in index["pictures"]}}),
        lambda index: json.dumps({**index, "pictures": []}),
    ],
    ids=["no JSON", "a list", "another format", "other entries", "no entries"],
)
def test_an_index_that_cannot_be_read_is_made_anew(copy_of, tmp_path, opened, spoil):
    path = copy_of("foodseg103") / INDEX_FILE
    first = load_segmentation_files("icecream", tmp_path)
    whole = path.read_text()
    opened.clear()
    path.write_text(spoil(json.loads(whole)))
    again = load_segmentation_files("icecream", tmp_path)
    assert len(opened) == 8 and path.read_text() == whole
    assert again.fingerprint() == first.fingerprint()


def test_a_read_only_folder_gives_the_same_set(copy_of, tmp_path, monkeypatch):
    path = copy_of("foodseg103") / INDEX_FILE
    first = load_segmentation_files("icecream", tmp_path)
    path.unlink()

    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(module, "write_whole", refuse)
    second = load_segmentation_files("icecream", tmp_path)
    assert second.fingerprint() == first.fingerprint() and not path.exists()
