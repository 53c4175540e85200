"""The paper's segmentation sets, from small archives laid out like the official ones."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.datasets import VOCSegmentation
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.masks import LEAST_SHARE, masked_pictures
from serial_lora_course.data.releases import ReleasedPicture
from serial_lora_course.data.segmentation_files import (
    FLOODNET_CLASSES,
    MASKED_SETS,
    VOC_CLASSES,
    load_segmentation_files,
)
from tests.data.official import FLOOD_SIZE, FOOD_CLASSES, FOOD_SIZE, mask_bytes, picture_bytes

ANNOTATIONS = "Images/ann_dir/train"


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
    data = load_segmentation_files(name, prepared_root)
    assert (names_of(data.train), names_of(data.test)) == (train, test)
    assert (data.name, data.scale) == (name, "paper")
    assert data.description and data.attribution and data.split
    for part in (data.train, data.test):
        for example in part:
            assert example.picture.mode == "RGB"
            assert example.masks.mean((1, 2)).min() >= LEAST_SHARE
    assert load_segmentation_files(name, prepared_root).fingerprint() == data.fingerprint()
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
    (wanted,) = MASKED_SETS[name].classes
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
    assert "water is left out" in data.description
    first, second = data.train
    assert first.names == ("building flooded", "road flooded")
    for example in data.train:
        number = os.path.basename(example.picture_id).removesuffix(".jpg")
        path = data.folder / f"train/train-label-img/{number}_lab.png"
        for mask, name in zip(example.masks, example.names, strict=True):
            assert np.array_equal(mask, read_pixel_by_pixel(path, FLOODNET_CLASSES.index(name)))
    assert second.names == ("building flooded",)  # two buildings, which the labels do not number
    assert second.boxes.tolist() == [[0, 0, *FLOOD_SIZE]]


def test_every_person_is_a_mask_and_the_band_belongs_to_nobody(prepared_root):
    data = load_segmentation_files("human", prepared_root)
    assert "Stanford 40" in data.description
    example = data.train[0]
    assert example.names == ("person", "person")  # and no dog
    name = os.path.basename(example.picture_id).removesuffix(".jpg")
    official = VOCSegmentation(prepared_root, image_set="train")
    assert official.images[0].endswith(f"{name}.jpg")
    person = VOC_CLASSES.index("person")
    assert np.array_equal(example.masks.any(0), np.asarray(official[0][1]) == person)
    path = data.folder / "SegmentationObject" / f"{name}.png"
    for mask, number in zip(example.masks, (1, 2), strict=True):
        assert np.array_equal(mask, read_pixel_by_pixel(path, number))
    beside_a_speck = data.train[1]
    assert beside_a_speck.boxes.tolist() == [[0, 0, 30, 75]]
    categories = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert VOC_CLASSES[1:] == tuple(categories[1:])


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


# --- damage --------------------------------------------------------------------------------------


def test_a_list_of_names_cannot_lead_out_of_the_folder(copy_of, tmp_path):
    folder = copy_of("voc_person")
    (folder / "ImageSets/Segmentation/train.txt").write_text("../../../secret\n")
    (tmp_path / "secret.jpg").write_bytes(picture_bytes(0))
    with pytest.raises(SerialLoRAError, match="missing"):
        load_segmentation_files("human", tmp_path)


# --- the index beside the data -------------------------------------------------------------------


def test_a_mask_that_changed_is_read_again(copy_of, tmp_path):
    path = copy_of("foodseg103") / ANNOTATIONS / "00000002.png"
    path.write_bytes(path.read_bytes().ljust(400, b"\0"))
    first = load_segmentation_files("icecream", tmp_path)
    assert load_segmentation_files("icecream", tmp_path).fingerprint() == first.fingerprint()
    written = path.stat()
    path.write_bytes(mask_bytes(FOOD_SIZE, [(3, 5, 5, 25, 25)]).ljust(400, b"\0"))
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns + 1))
    assert path.stat().st_size == written.st_size  # of the same size, a moment later
    assert "00000002.jpg" in names_of(load_segmentation_files("icecream", tmp_path).train)
