"""The paper's segmentation sets, from small archives laid out like the official ones."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import segmentation_files
from serial_lora_course.data.releases import ReleasedPicture
from serial_lora_course.data.segmentation_files import (
    CLASS_NUMBERS,
    FOODSEG103,
    INDEX_FILE,
    LEAST_SHARE,
    MASKED_SETS,
    load_segmentation_files,
    masked_pictures,
)
from tests.data import official
from tests.data.official import mask_bytes, painted, picture_bytes

SETS = {
    "icecream": (["00000000", "00000003"], ["00000006"]),
    "pie": (["00000001", "00000005"], ["00000006"]),
    "strawberry": (["00000001"], ["00000007"]),  # not the one with a single pixel
    "flood": (["6279", "6281"], ["6283"]),  # neither the lake nor the "val" one
    "human": (["2007_000032", "2008_000042"], ["2009_000061"]),
}


def masks_of(name, stem):
    """What was painted: a mask for each class that counts, or for each person, and no speck."""
    sets = {
        "human": (official.VOC, official.VOC_SIZE),
        "flood": (official.FLOOD, official.FLOOD_SIZE),
    }
    painted_in, size = sets.get(name, (official.FOOD, official.FOOD_SIZE))
    (rectangles,) = (value for key, value in painted_in.items() if key.endswith(stem))
    if name == "human":
        rectangles, of_object = rectangles
        wanted = [number for number, of in of_object.items() if of == CLASS_NUMBERS["person"]]
    else:
        numbers_of = official.FOOD_CLASSES.index
        wanted = (1, 3) if name == "flood" else map(numbers_of, MASKED_SETS[name][1])
    numbers = painted(size, rectangles)
    return [numbers == n for n in wanted if (numbers == n).mean() >= LEAST_SHARE]


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_the_pictures_with_the_class_and_their_masks(prepared_root, name):
    data = load_segmentation_files(name, prepared_root)
    for part, stems in zip(data.parts().values(), SETS[name], strict=True):
        assert [Path(picture_id).stem for picture_id in part.picture_ids] == stems
        for example, stem in zip(part, stems, strict=True):
            assert example.picture.mode == "RGB"
            assert set(example.names) <= set(MASKED_SETS[name][1])
            assert np.array_equal(example.masks, masks_of(name, stem))
    in_a_worker = pickle.loads(pickle.dumps(data.train))
    assert np.array_equal(in_a_worker[-1].masks, data.train[len(data.train) - 1].masks)


def test_a_person_has_the_number_that_vocs_own_models_know():
    categories = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert categories[CLASS_NUMBERS["person"]] == "person"


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
    index = tmp_path / FOODSEG103.folder / INDEX_FILE
    for spoilt in ("[]", "{", json.dumps(dict(list(json.loads(index.read_text()).items())[1:]))):
        index.write_text(spoilt)
        assert load_segmentation_files("icecream", tmp_path).fingerprint() == first.fingerprint()


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(
        SerialLoRAError, match="fetch it with `python data_scripts/fetch.py floodnet"
    ):
        load_segmentation_files("flood", tmp_path)
    official.write(tmp_path, "floodnet")
    (tmp_path / "FloodNet-Supervised_v1.0/train/train-label-img/6279_lab.png").unlink()
    with pytest.raises(SerialLoRAError, match="6279_lab.png cannot be read"):
        load_segmentation_files("flood", tmp_path)
