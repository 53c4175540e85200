"""The paper's segmentation sets, from files: FoodSeg103, FloodNet, and persons of PASCAL VOC.

    data = load_segmentation_files("icecream", data_root())
    data.train[0].names, data.description       # ("ice cream",), what counts and what does not

The names are those of the paper's Table IV. What the paper leaves open is decided here:

==============  ==================================================================================
``flood``       FloodNet-Supervised v1.0. Flooded buildings and flooded roads count, a mask for
                each of the two in a picture. "Water" does not: FloodNet keeps that class for
                rivers and lakes, apart from the flood. The paper does not say which classes it
                took, and links to another edition, most pictures of which have no masks.
``human``       PASCAL VOC 2012, the class person, one mask a person. It stands in for the
                Stanford 40 of the paper, which has boxes round persons and no masks.
``icecream``,   FoodSeg103, the pictures with that class in them.
``pie``,
``strawberry``
==============  ==================================================================================

**One mask a class** where the labels are semantic (FoodSeg103, FloodNet): they do not tell one
strawberry from the next. Connected pieces would be something else again (a pie behind a fork is
two, touching scoops are one), so all pixels of a class are one mask, and its box is round them all.

How masks are read, and which are too small to count, stands in :mod:`serial_lora_course.data.masks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets import VOCSegmentation

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.masks import LEAST_SHARE, counts, find_labels, masked_pictures
from serial_lora_course.data.pictures import PICTURE_SUFFIXES
from serial_lora_course.data.releases import Release, ReleasedPicture
from serial_lora_course.data.types import SegmentationData


@dataclass(frozen=True, kw_only=True)
class MaskedRelease(Release):
    """A release whose pictures have masks, from which the paper takes one or several sets.

    Attributes:
        class_numbers: its folder -> name of each class, background included -> number in masks.
    """

    class_numbers: Callable[[Path], Mapping[str, int]]


# --- the three releases --------------------------------------------------------------------------


def _list_foodseg103(folder: Path) -> list[ReleasedPicture]:
    listed = []
    for part in ("train", "test"):
        listed += _pairs(folder, f"Images/img_dir/{part}", f"Images/ann_dir/{part}", "", part)
    return listed


def _foodseg103_numbers(folder: Path) -> dict[str, int]:
    """What ``category_id.txt`` says: a line ``8<tab>ice cream`` for each class."""
    path = folder / "category_id.txt"
    try:
        lines = path.read_text("utf-8-sig").splitlines()
        rows = [line.split(maxsplit=1) for line in lines if line.strip()]
        return {name.strip(): int(number) for number, name in rows}
    except (OSError, ValueError) as error:
        raise SerialLoRAError(
            f"{path} is no list of class numbers and names ({error}); restore it, or move {folder} "
            "away and run `python data_scripts/fetch.py foodseg103` again."
        ) from error


#: In the order in which FloodNet's README numbers them, from 0.
FLOODNET_CLASSES = (
    "background",
    "building flooded",
    "building non-flooded",
    "road flooded",
    "road non-flooded",
    "water",
    "tree",
    "vehicle",
    "pool",
    "grass",
)


def _list_floodnet(folder: Path) -> list[ReleasedPicture]:
    listed = []
    for name, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        below = f"{name}/{name}"
        listed += _pairs(folder, f"{below}-org-img", f"{below}-label-img", "_lab", part)
    return listed


#: In the order of VOC's development kit: background, then the alphabet.
VOC_CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse "
    "motorbike person pottedplant sheep sofa train tvmonitor".split()
)


def _list_voc(folder: Path) -> list[ReleasedPicture]:
    root = folder.parent.parent  # VOCdevkit/VOC2012 lies below it, as torchvision expects
    listed = []
    for image_set, part in (("train", "train"), ("val", "test")):
        for path in VOCSegmentation(root, image_set=image_set).images:
            name = Path(path).stem
            masks = f"SegmentationClass/{name}.png", f"SegmentationObject/{name}.png"
            listed.append(ReleasedPicture(f"JPEGImages/{name}.jpg", part, masks=masks))
    return listed


def _pairs(
    folder: Path, pictures: str, masks: str, ending: str, part: str
) -> list[ReleasedPicture]:
    """Every picture in a folder with the mask of its name, ``ending`` added, in another."""
    found = sorted(
        name
        for name in os.listdir(folder / pictures)
        if Path(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".")
    )
    return [
        ReleasedPicture(
            f"{pictures}/{name}", part, masks=(f"{masks}/{Path(name).stem}{ending}.png",)
        )
        for name in found
    ]


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


MASKED_RELEASES = {
    release.name: release
    for release in (
        MaskedRelease(
            name="floodnet",
            title="FloodNet-Supervised v1.0",
            folder="FloodNet-Supervised_v1.0",
            list_pictures=_list_floodnet,
            class_numbers=lambda folder: _numbered(FLOODNET_CLASSES),
            attribution="FloodNet, Rahnemoonfar et al. 2021 (CDLA-Permissive 1.0)",
            split="the official train and test sets; the validation set is not used",
        ),
        MaskedRelease(
            name="voc_person",
            title="PASCAL VOC 2012",
            folder="VOCdevkit/VOC2012",
            list_pictures=_list_voc,
            class_numbers=lambda folder: _numbered(VOC_CLASSES),
            attribution="PASCAL VOC 2012, Everingham et al.; photographs from Flickr, on its terms",
            split="the official train set; the official validation set is test, because VOC keeps "
            "the masks of its own test set to itself",
        ),
        MaskedRelease(
            name="foodseg103",
            title="FoodSeg103",
            folder="FoodSeg103",
            list_pictures=_list_foodseg103,
            class_numbers=_foodseg103_numbers,
            attribution="FoodSeg103, Wu et al. 2021 (Apache 2.0)",
            split="the official train and test sets",
        ),
    )
}


# --- the paper's sets ----------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskedSet:
    """One of the paper's data sets.

    Attributes:
        release: where it comes from, a key of :data:`MASKED_RELEASES`.
        classes: what counts as an object, as the release calls it.
        description: in words, what there is to see and what the masks cover.
    """

    release: str
    classes: tuple[str, ...]
    description: str


def _food(name: str) -> MaskedSet:
    return MaskedSet(
        release="foodseg103",
        classes=(name,),
        description=f"{name} on plates and tables (FoodSeg103): one mask a picture, all pixels "
        f"labelled {name}, as the labels do not tell one piece from the next",
    )


#: The paper's names in Table IV.
MASKED_SETS: dict[str, MaskedSet] = {
    "flood": MaskedSet(
        release="floodnet",
        classes=("building flooded", "road flooded"),
        description="a flood from the air (FloodNet-Supervised v1.0): flooded buildings and "
        "flooded roads, one mask for each of the two; the class water is left out, as FloodNet "
        "keeps it for rivers and lakes (the paper does not say which classes it took)",
    ),
    "human": MaskedSet(
        release="voc_person",
        classes=("person",),
        description="persons (PASCAL VOC 2012): one mask a person; the unlabelled band round each "
        "counts as not person. It stands in for the paper's Stanford 40, which has boxes and no "
        "masks",
    ),
    "icecream": _food("ice cream"),
    "pie": _food("pie"),
    "strawberry": _food("strawberry"),
}


def load_segmentation_files(name: str, root: Path) -> SegmentationData:
    """One of the paper's sets; the first time, every mask of its release is opened once.

    Args:
        name: a key of :data:`MASKED_SETS`.
        root: folder of the downloaded data.

    Raises:
        SerialLoRAError: data not there (says which command fetches them), or not complete; a mask
            that cannot be read (names the file).
    """
    chosen = MASKED_SETS[name]
    release = MASKED_RELEASES[chosen.release]
    folder, parts = root / release.folder, ("train", "test")
    listed = [row for row in release.listed(root) if row.part in parts]
    numbers = release.class_numbers(folder)
    lacking = [name for name in chosen.classes if name not in numbers]
    if lacking:
        raise SerialLoRAError(
            f"{folder} has no class {lacking[0]!r} among its {len(numbers)}; restore its list of "
            "classes from the official archive."
        )
    wanted = {numbers[name]: name for name in chosen.classes}
    labels = find_labels(folder, listed, release.title)
    shown = [row for row in listed if any(counts(label, wanted) for label in labels[row])]
    train, test = (
        masked_pictures(folder, [row for row in shown if row.part == part], wanted)
        for part in parts
    )
    return SegmentationData(
        name=name,
        scale="paper",
        train=train,
        test=test,
        description=chosen.description,
        attribution=release.attribution,
        split=release.split,
        content=repr((chosen.release, chosen.classes, LEAST_SHARE)),
        folder=folder,
    )
