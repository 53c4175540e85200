"""The paper's segmentation sets, from files: FoodSeg103, FloodNet, and persons of PASCAL VOC.

The names are those of the paper's Table IV. What the paper leaves open is decided here:

* ``flood``: FloodNet-Supervised v1.0, flooded buildings and flooded roads, a mask for each of the two.
  "Water" does not count: FloodNet keeps that class for rivers and lakes. The paper does not say which
  classes it took, and links to another edition, most pictures of which have no masks.
* ``human``: the persons of PASCAL VOC 2012, one mask a person. It stands in for the Stanford 40 of the
  paper, which has boxes and no masks. VOC keeps the masks of its test set to itself, so the official
  validation set is test.
* ``icecream``, ``pie``, ``strawberry``: FoodSeg103, the pictures with that class in them.

**One mask a class** where the labels are semantic (FoodSeg103, FloodNet): they do not tell one
strawberry from the next, and connected pieces would be something else again (a pie behind a fork is
two, touching scoops are one).

**Specks.** A mask of less than :data:`LEAST_SHARE` of its picture is left out, and a picture
without any other mask with it: at SAM's input size that is too little to measure.

**Orientation.** A picture is turned as its camera recorded (EXIF) if it fits its mask then, else taken
as it is stored; if it fits neither way, it is refused.

Pictures and masks are opened when they are asked for. Which picture holds what is found once, by
opening every mask, and kept in ``masks_serial_lora.json`` beside the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torchvision.datasets import VOCSegmentation
from tqdm.contrib.concurrent import thread_map

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.data.releases import Release, ReleasedPicture
from serial_lora_course.data.types import Pictures, SegmentationData, SegmentationExample
from serial_lora_course.files import write_json

#: The smallest mask that counts, as a share of its picture's pixels.
LEAST_SHARE = 1e-4
INDEX_FILE = "masks_serial_lora.json"
BACKGROUND, VOID = 0, 255  # VOID: PASCAL VOC's band round objects, which belongs to nothing
READERS = 8  # masks decoded at a time; Pillow's decoders let other threads run

# --- the three releases --------------------------------------------------------------------------


def _list_pairs(folder: Path, pictures: str, mask: str) -> list[ReleasedPicture]:
    """Every picture in a part's folder with the mask of its name."""
    return [
        ReleasedPicture(
            path.relative_to(folder).as_posix(), part, masks=(mask.format(part, path.stem),)
        )
        for part in ("train", "test")
        for path in sorted(folder.glob(f"{pictures.format(part)}/[!.]*.*"))
    ]


def _list_voc(folder: Path) -> list[ReleasedPicture]:
    root = folder.parent.parent  # VOCdevkit/VOC2012 lies below it, as torchvision expects
    return [
        ReleasedPicture(
            f"JPEGImages/{name}.jpg",
            part,
            masks=(f"SegmentationClass/{name}.png", f"SegmentationObject/{name}.png"),
        )
        for image_set, part in (("train", "train"), ("val", "test"))
        for name in (Path(p).stem for p in VOCSegmentation(root, image_set=image_set).images)
    ]


FLOODNET = Release(
    name="floodnet",
    title="FloodNet-Supervised v1.0",
    folder="FloodNet-Supervised_v1.0",
    list_pictures=partial(
        _list_pairs, pictures="{0}/{0}-org-img", mask="{0}/{0}-label-img/{1}_lab.png"
    ),
)
VOC = Release(
    name="voc_person",
    title="PASCAL VOC 2012",
    folder="VOCdevkit/VOC2012",
    list_pictures=_list_voc,
)
FOODSEG103 = Release(
    name="foodseg103",
    title="FoodSeg103",
    folder="FoodSeg103",
    list_pictures=partial(
        _list_pairs, pictures="Images/img_dir/{0}", mask="Images/ann_dir/{0}/{1}.png"
    ),
)
#: The paper's names in Table IV -> the release it comes from, and the classes that count.
MASKED_SETS: dict[str, tuple[Release, tuple[str, ...]]] = {
    "flood": (FLOODNET, ("building flooded", "road flooded")),
    "human": (VOC, ("person",)),
    "icecream": (FOODSEG103, ("ice cream",)),
    "pie": (FOODSEG103, ("pie",)),
    "strawberry": (FOODSEG103, ("strawberry",)),
}
#: As FloodNet's README and VOC's development kit number them; FoodSeg103 brings a list.
CLASS_NUMBERS = {"building flooded": 1, "road flooded": 3, "person": 15}


def _class_numbers(folder: Path, classes: Sequence[str]) -> dict[int, str]:
    """Number in the masks -> name, of the classes that count.

    FoodSeg103's ``category_id.txt`` says it with a line ``8<tab>ice cream`` for each class.
    """
    path, numbers = folder / "category_id.txt", CLASS_NUMBERS
    try:
        if path.exists():
            rows = (line.split(maxsplit=1) for line in path.read_text("utf-8-sig").splitlines())
            numbers = {row[1].strip(): int(row[0]) for row in rows if row}
        return {numbers[name]: name for name in classes}
    except (OSError, ValueError, LookupError) as error:
        raise SerialLoRAError(
            f"{path} is no list of class numbers and names ({error!r}); restore it from the official "
            "archive."
        ) from error


def load_segmentation_files(name: str, root: Path) -> SegmentationData:
    """One of the paper's sets, a key of :data:`MASKED_SETS`.

    Raises:
        SerialLoRAError: data not there (says which command fetches them), or not complete; a mask
            that cannot be read (names the file).
    """
    release, classes = MASKED_SETS[name]
    folder, listed = root / release.folder, release.listed(root)
    wanted = _class_numbers(folder, classes)
    labels = find_labels(folder, listed, release.title)
    shown = [row for row in listed if any(counts(label, wanted) for label in labels[row])]
    train, test = (
        masked_pictures(folder, [row for row in shown if row.part == part], wanted)
        for part in ("train", "test")
    )
    return SegmentationData(
        name=name,
        scale="paper",
        train=train,
        test=test,
        content=repr((release.name, classes, LEAST_SHARE)),
    )


# --- masks in files ------------------------------------------------------------------------------


class Label(NamedTuple):
    """What a number in a mask stands for: a class or, where they are told apart, an object."""

    number: int
    class_number: int
    share: float  # of the picture's pixels


def counts(label: Label, wanted: Mapping[int, str]) -> bool:
    """Whether it is of a class that counts, and no speck."""
    return label.class_number in wanted and label.share >= LEAST_SHARE


def find_labels(
    folder: Path, listed: Sequence[ReleasedPicture], title: str
) -> dict[ReleasedPicture, list[Label]]:
    """What each picture holds, from the index beside the data where there is one."""
    path, index = folder / INDEX_FILE, {}
    with suppress(OSError, ValueError):
        index = json.loads(path.read_text("utf-8"))
    if list(index) != [row.picture_id for row in listed]:
        found = thread_map(
            lambda row: _read_labels(_files(folder, row)[1:])[1],
            listed,
            max_workers=READERS,
            desc=f"reading the masks of {title}, once",
        )
        index = {row.picture_id: labels for row, labels in zip(listed, found, strict=True)}
        with suppress(OSError):  # a shared, read-only data folder: they are opened again next time
            write_json(path, index)
    return {row: [Label(*label) for label in index[row.picture_id]] for row in listed}


def _files(folder: Path, row: ReleasedPicture) -> tuple[Path, ...]:
    return tuple(folder / name for name in (row.picture_id, *row.masks))


def masked_pictures(
    folder: Path, listed: Sequence[ReleasedPicture], wanted: Mapping[int, str]
) -> Pictures:
    """Pictures with the masks of the classes that count: their numbers and names."""
    names = [row.picture_id for row in listed]
    sources = [(row.picture_id, *_files(folder, row)) for row in listed]
    return Pictures(names, partial(_read_example, dict(wanted)), sources)


def _read_example(wanted: Mapping[int, str], source: tuple[str | Path, ...]) -> SegmentationExample:
    picture_id, path, *masks = source
    numbers, labels = _read_labels(masks)
    kept = [label for label in labels if counts(label, wanted)]
    picture = _picture_of_size(path, numbers.shape[::-1])
    objects = numbers == np.array([label.number for label in kept], int)[:, None, None]
    names = tuple(wanted[label.class_number] for label in kept)
    return SegmentationExample(picture, objects, names, picture_id)


def _picture_of_size(path: Path, size: tuple[int, int]) -> Image.Image:
    """A picture that fits masks of (width, height), turned upright or as it is stored."""
    for upright in (True, False):
        picture = read_picture(path, upright)
        if picture.size == size:
            return picture
    raise SerialLoRAError(
        f"the picture {path} is {picture.width} x {picture.height} and its mask {size[0]} x "
        f"{size[1]} pixels; restore both from the official archive."
    )


def _read_labels(masks: Sequence[Path]) -> tuple[np.ndarray, list[Label]]:
    """A picture's numbers, uint8 (H, W), of objects if told apart, else classes; what they mean."""
    *classes, mask = (_read_mask(path) for path in masks)
    numbers, labels = np.asarray(mask), []
    for number, count in enumerate(mask.histogram()):
        if count and number not in (BACKGROUND, VOID):
            of_object = np.asarray(classes[0])[numbers == number] if classes else [number]
            labels.append(Label(number, int(of_object[0]), count / numbers.size))
    return numbers, labels


def _read_mask(path: Path) -> Image.Image:
    """A mask file whose pixels are numbers: grey values, or places in its palette."""
    try:
        with Image.open(path) as mask:
            if mask.mode not in ("L", "P"):
                raise ValueError(f"its pixels are {mask.mode} and not class numbers")
            mask.load()
            return mask
    except Exception as error:  # decoders raise half a dozen unrelated kinds on damaged files
        raise SerialLoRAError(
            f"the mask {path} cannot be read ({error}); restore it from the official archive."
        ) from error
