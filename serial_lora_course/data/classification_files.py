"""The paper's classification sets, from files; which pictures train and which test.

The paper follows CLIP-LoRA, which follows CoOp (Zhou et al. 2022). If CoOp's split list
(``split_zhou_*.json``, behind a host that needs a browser) lies in the data set's folder, it is used
as it is. Otherwise a class's pictures are divided by a hash of their names, the same on every machine:

* Caltech101 and EuroSAT, which have no official split: 50/20/30 train/validation/test, CoOp's
  proportions. As in CoOp, Caltech101's ``BACKGROUND_Google`` is no class, and ``Faces_easy`` repeats
  ``Faces``.
* Food-101: the official test set; the official training pictures 5:2 into train and validation. CoOp
  mixes the two, so numbers are comparable with the paper's only with CoOp's file; the fingerprint in
  every record tells them apart.
* DTD: the official partition 1 of 10. CoOp mixes and splits again, so the same holds as for Food-101.
* Oxford-IIIT Pet: the official test set; ``trainval`` 80:20 into train and validation, as CoOp.

Validation pictures are set aside and not used: the paper reports none. Class names are CoOp's, in lower
case (CLIP's tokenizer lowers them anyway).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets as vision

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import clean_name, picture_files
from serial_lora_course.data.releases import Release, ReleasedPicture
from serial_lora_course.data.subsets import first_by_hash
from serial_lora_course.data.types import ClassificationData

TRAIN_SHARE, VALIDATION_SHARE = 0.5, 0.2  # CoOp's, where a data set has no official split

#: Part -> rows of picture id, label, class name.
Split = dict[str, list[tuple[str, int, str]]]


@dataclass(frozen=True, kw_only=True)
class ClassificationRelease(Release):
    """What is particular to one of these sets."""

    template: str  # CoOp's prompt
    coop_file: str  # CoOp's split list, whose paths begin in the folder of pictures
    validation_share: float = 0.0  # of the official training pictures


# --- what is in a folder, as CoOp names it -------------------------------------------------------

RENAMED = {
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "AnnualCrop": "annual crop land",
    "HerbaceousVegetation": "herbaceous vegetation land",
    "Highway": "highway or road",
    "Industrial": "industrial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings",
    "SeaLake": "sea or lake",
}
NO_CLASSES = ("BACKGROUND_Google", "Faces_easy")


def _list_class_folders(folder: Path) -> list[ReleasedPicture]:
    return [
        ReleasedPicture(f"{name}/{path.name}", text=RENAMED.get(name, name))
        for path in folder.glob("*/*/[!.]*.jpg")
        if (name := path.parent.name) not in NO_CLASSES
    ]


def _list_food101(folder: Path) -> list[ReleasedPicture]:
    parts = {part: vision.Food101(folder.parent, part) for part in ("train", "test")}
    return _in_class_folders(parts)


def _list_dtd(folder: Path) -> list[ReleasedPicture]:
    splits = {"train": "train", "validation": "val", "test": "test"}
    return _in_class_folders({part: vision.DTD(folder.parent, s) for part, s in splits.items()})


def _in_class_folders(parts: dict[str, vision.Food101 | vision.DTD]) -> list[ReleasedPicture]:
    return [
        ReleasedPicture(f"{path.parent.name}/{path.name}", part, path.parent.name)
        for part, data in parts.items()
        for path in data._image_files
    ]


def _list_oxford_pets(folder: Path) -> list[ReleasedPicture]:
    return [
        ReleasedPicture(path.name, part, path.stem.rpartition("_")[0])
        for split, part in (("trainval", "train"), ("test", "test"))
        for path in vision.OxfordIIITPet(folder.parent, split=split)._images
    ]


CLASSIFICATION_RELEASES = {
    release.name: release
    for release in (
        ClassificationRelease(
            name="caltech101",
            title="Caltech101",
            folder="caltech101",
            pictures="101_ObjectCategories",
            template="a photo of a {}.",
            list_pictures=_list_class_folders,
            coop_file="split_zhou_Caltech101.json",
        ),
        ClassificationRelease(
            name="food101",
            title="Food-101",
            folder="food-101",
            pictures="images",
            template="a photo of {}, a type of food.",
            list_pictures=_list_food101,
            coop_file="split_zhou_Food101.json",
            validation_share=2 / 7,
        ),
        ClassificationRelease(
            name="dtd",
            title="DTD",
            folder="dtd",
            pictures="dtd/images",
            template="{} texture.",
            list_pictures=_list_dtd,
            coop_file="split_zhou_DescribableTextures.json",
        ),
        ClassificationRelease(
            name="eurosat",
            title="EuroSAT (RGB)",
            folder="eurosat",
            pictures="2750",
            template="a centered satellite photo of {}.",
            list_pictures=_list_class_folders,
            coop_file="split_zhou_EuroSAT.json",
        ),
        ClassificationRelease(
            name="oxford_pets",
            title="Oxford-IIIT Pet",
            folder="oxford-iiit-pet",
            pictures="images",
            template="a photo of a {}, a type of pet.",
            list_pictures=_list_oxford_pets,
            coop_file="split_zhou_OxfordPets.json",
            validation_share=0.2,
        ),
    )
}


def load_classification_files(name: str, root: Path) -> ClassificationData:
    """One of the paper's sets, by CoOp's split if that lies there, else by the rule.

    Raises:
        SerialLoRAError: the data are not there (says which command fetches them), or not complete.
    """
    release = CLASSIFICATION_RELEASES[name]
    folder = root / release.folder
    coop_file = folder / release.coop_file
    if coop_file.is_file():
        split = read_split(coop_file)
    else:
        split = make_split(release.listed(root), release.validation_share)
    names = {label: clean_name(text) for rows in split.values() for _, label, text in sorted(rows)}
    train, test = (
        picture_files(folder / release.pictures, [row[:2] for row in split[part]])
        for part in ("train", "test")
    )
    return ClassificationData(
        name=name,
        scale="paper",
        class_names=[names[label] for label in sorted(names)],
        template=release.template,
        train=train,
        test=test,
    )


def make_split(listed: Sequence[ReleasedPicture], validation_share: float) -> Split:
    """Divide pictures into train and test, class by class; what is validation is in neither.

    Pictures with an official part stay in it, except that ``validation_share`` of the official
    training pictures of a class becomes validation. Others are divided with CoOp's counts.
    """
    classes: dict[str, list[ReleasedPicture]] = {}
    for row in sorted(listed, key=lambda row: row.picture_id.split("/")):  # CoOp's order of labels
        classes.setdefault(row.text, []).append(row)
    split: Split = {"train": [], "test": []}
    for label, (class_name, rows) in enumerate(classes.items()):
        free, train, test = (
            [row.picture_id for row in rows if row.part == part] for part in (None, "train", "test")
        )
        if free:
            train, rest = first_by_hash(free, round(len(free) * TRAIN_SHARE))
            _, test = first_by_hash(rest, round(len(free) * VALIDATION_SHARE))
        else:
            _, train = first_by_hash(train, round(len(train) * validation_share))
        split["train"] += [(name, label, class_name) for name in train]
        split["test"] += [(name, label, class_name) for name in sorted(test)]
    return split


def read_split(path: Path) -> Split:
    """Train and test of a split in CoOp's format."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return {
            part: [(str(name), int(label), str(text)) for name, label, text in content[part]]
            for part in ("train", "test")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SerialLoRAError(
            f"{path} is not a split file ({type(error).__name__}: {error}); move it away, or fetch it "
            "from its source again."
        ) from error
