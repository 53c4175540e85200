"""The paper's segmentation sets, from small archives laid out like the official ones."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.datasets import VOCSegmentation
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import segmentation_files
from serial_lora_course.data.releases import ReleasedPicture
from serial_lora_course.data.segmentation_files import (
    CLASS_NUMBERS,
    INDEX_FILE,
    LEAST_SHARE,
    MASKED_SETS,
    load_segmentation_files,
    masked_pictures,
)
from tests.data import official
from tests.data.official import FLOOD_SIZE, FOOD_CLASSES, mask_bytes, picture_bytes


def names_of(part):
    return [os.path.basename(picture_id) for picture_id in part.picture_ids]


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
    data = load_segmentation_files(name, prepared_root)
    assert (names_of(data.train), names_of(data.test)) == (train, test)
    assert (data.name, data.scale) == (name, "paper")
    for part in (data.train, data.test):
        for example in part:
            assert example.picture.mode == "RGB"
            assert example.masks.mean((1, 2)).min() >= LEAST_SHARE
    in_a_worker = pickle.loads(pickle.dumps(data.train))
    assert np.array_equal(in_a_worker[-1].masks, data.train[len(train) - 1].masks)


def read_pixel_by_pixel(path, wanted):
    """A mask by PIL's own getpixel: True where the number there is the wanted one."""
    with Image.open(path) as mask:
        width, height = mask.size
        rows = [[mask.getpixel((x, y)) == wanted for x in range(width)] for y in range(height)]
    return np.asarray(rows)


@pytest.mark.parametrize("name", ["icecream", "pie", "strawberry"])
def test_food_masks_are_all_pixels_of_the_class(prepared_root, name):
    data = load_segmentation_files(name, prepared_root)
    _, (wanted,) = MASKED_SETS[name]
    for part in (data.train, data.test):
        for example in part:
            path = data.folder / example.picture_id.replace("img_dir", "ann_dir")
            number = FOOD_CLASSES.index(wanted)
            expected = read_pixel_by_pixel(path.with_suffix(".png"), number)
            assert example.names == (wanted,)
            assert np.array_equal(example.masks, expected[None])
    if name == "icecream":  # two pieces are one mask with a box round both
        assert data.train[1].boxes.tolist() == [[0, 0, 120, 100]]
        assert data.train[1].masks.sum() == 9 * 9 + 20 * 20


def test_flood_is_buildings_and_roads_a_mask_each(prepared_root):
    data = load_segmentation_files("flood", prepared_root)
    first, second = data.train
    assert first.names == ("building flooded", "road flooded")
    for example in data.train:
        number = os.path.basename(example.picture_id).removesuffix(".jpg")
        path = data.folder / f"train/train-label-img/{number}_lab.png"
        for mask, name in zip(example.masks, example.names, strict=True):
            assert np.array_equal(mask, read_pixel_by_pixel(path, CLASS_NUMBERS[name]))
    assert second.names == ("building flooded",)  # two buildings, which the labels do not number
    assert second.boxes.tolist() == [[0, 0, *FLOOD_SIZE]]


def test_every_person_is_a_mask_and_the_band_belongs_to_nobody(prepared_root):
    data = load_segmentation_files("human", prepared_root)
    example = data.train[0]
    assert example.names == ("person", "person")  # and no dog
    name = os.path.basename(example.picture_id).removesuffix(".jpg")
    official = VOCSegmentation(prepared_root, image_set="train")
    assert official.images[0].endswith(f"{name}.jpg")
    categories = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    person = CLASS_NUMBERS["person"]
    assert categories[person] == "person"
    assert np.array_equal(example.masks.any(0), np.asarray(official[0][1]) == person)
    path = data.folder / "SegmentationObject" / f"{name}.png"
    for mask, number in zip(example.masks, (1, 2), strict=True):
        assert np.array_equal(mask, read_pixel_by_pixel(path, number))
    beside_a_speck = data.train[1]
    assert beside_a_speck.boxes.tolist() == [[0, 0, 30, 75]]


@pytest.mark.parametrize("lying", [True, False])
def test_a_picture_is_turned_where_its_mask_says_so(tmp_path, lying):
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(picture_bytes(0, (40, 30), exif=turned))
    (tmp_path / "a.png").write_bytes(mask_bytes((30, 40) if lying else (40, 30), [(1, 0, 0, 9, 9)]))
    pictures = masked_pictures(tmp_path, [ReleasedPicture("a.jpg", masks=("a.png",))], {1: "pie"})
    with Image.open(tmp_path / "a.jpg") as stored:
        expected = (ImageOps.exif_transpose(stored) if lying else stored).convert("RGB")
    assert np.array_equal(np.asarray(pictures[0].picture), np.asarray(expected))


def test_masks_are_read_once_and_the_index_is_made_anew_where_it_does_not_fit(
    tmp_path, monkeypatch
):
    official.write(tmp_path, "foodseg103")
    first = load_segmentation_files("icecream", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(segmentation_files, "_read_mask", None)
        assert load_segmentation_files("icecream", tmp_path).fingerprint() == first.fingerprint()
    index = first.folder / INDEX_FILE
    for spoilt in ("[]", "{", json.dumps(dict(list(json.loads(index.read_text()).items())[1:]))):
        index.write_text(spoilt)
        assert load_segmentation_files("icecream", tmp_path).fingerprint() == first.fingerprint()


def test_a_list_of_names_cannot_lead_out_of_the_folder(tmp_path):
    official.write(tmp_path, "voc_person")
    lists = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "train.txt").write_text("../../../secret\n")
    (tmp_path / "secret.jpg").write_bytes(picture_bytes(0))
    with pytest.raises(SerialLoRAError, match="missing"):
        load_segmentation_files("human", tmp_path)
