"""The paper's classification sets, from files; which pictures train and which test.

The paper follows CLIP-LoRA, which follows CoOp (Zhou et al. 2022). CoOp's split lists
(``split_zhou_*.json``) are behind a host that needs a browser, so:

* If such a file lies in the data set's folder it is used as it is: the paper's own split.
* Otherwise a split is made by the rule below and kept as ``split_serial_lora.json`` beside it.

==============  =====================================================================
``caltech101``  per class 50/20/30 train/validation/test, CoOp's proportions (no official
                split). 100 classes as in CoOp: ``BACKGROUND_Google`` is no class and
                ``Faces_easy`` repeats ``Faces``. torchvision counts 101.
``eurosat``     per class 50/20/30, CoOp's proportions (no official split).
``food101``     the official test set (250 a class, labels checked by hand); the official
                750 training pictures 5:2 into train and validation. CoOp instead mixes
                the two and splits 50/20/30.
``oxford_pets``  the official test set; ``trainval`` 80:20 into train and validation, as CoOp.
``dtd``         the official partition 1 of 10, unchanged. CoOp instead mixes and splits
                50/20/30.
==============  =====================================================================

Numbers on Food101 and DTD are therefore comparable with the paper's only with CoOp's file;
``ClassificationData.split`` says which split was used, and the fingerprint in every record tells
them apart. Validation pictures are not used: the paper reports none. Class names are CoOp's, in
lower case (CLIP's tokenizer lowers them anyway).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchvision import datasets as vision

from serial_lora_course.data.pictures import picture_files
from serial_lora_course.data.releases import Release, ReleasedPicture
from serial_lora_course.data.splits import (
    SPLIT_FILE,
    SPLIT_SEED,
    class_names_of,
    keep_split,
    make_split,
    read_split,
)
from serial_lora_course.data.types import ClassificationData


@dataclass(frozen=True, kw_only=True)
class ClassificationRelease(Release):
    """What is particular to one of these sets.

    Attributes:
        template: CoOp's prompt for it.
        coop_file: name of CoOp's split list for it; it is relative to the folder of pictures.
        split: the rule, used where CoOp's list is not there.
        validation_share: share of the official training pictures that becomes validation.
    """

    template: str
    coop_file: str
    validation_share: float = 0.0


# --- what torchvision finds in a folder, as CoOp names it ----------------------------------------

RENAMED = {
    "caltech101": {
        "airplanes": "airplane",
        "Faces": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
    },
    "eurosat": {
        "AnnualCrop": "annual crop land",
        "Forest": "forest",
        "HerbaceousVegetation": "herbaceous vegetation land",
        "Highway": "highway or road",
        "Industrial": "industrial buildings",
        "Pasture": "pasture land",
        "PermanentCrop": "permanent crop land",
        "Residential": "residential buildings",
        "River": "river",
        "SeaLake": "sea or lake",
    },
}


def _list_caltech101(folder: Path) -> list[ReleasedPicture]:
    data, names = vision.Caltech101(folder.parent), RENAMED["caltech101"]
    rows = ((data.categories[y], number) for y, number in zip(data.y, data.index, strict=True))
    return [
        ReleasedPicture(f"{name}/image_{number:04d}.jpg", text=names.get(name, name))
        for name, number in rows
        if name != "Faces_easy"  # CoOp drops it; torchvision drops BACKGROUND_Google itself
    ]


def _list_eurosat(folder: Path) -> list[ReleasedPicture]:
    data, names = vision.EuroSAT(folder.parent), RENAMED["eurosat"]
    return [
        ReleasedPicture(
            Path(path).relative_to(folder / "2750").as_posix(),
            text=names.get(data.classes[label], data.classes[label]),
        )
        for path, label in data.samples
    ]


def _list_oxford_pets(folder: Path) -> list[ReleasedPicture]:
    return [
        ReleasedPicture(path.name, part, path.stem.rpartition("_")[0])
        for split, part in (("trainval", "train"), ("test", "test"))
        for path in vision.OxfordIIITPet(folder.parent, split=split)._images
    ]


def _list_food101(folder: Path) -> list[ReleasedPicture]:
    return _rows_of({part: vision.Food101(folder.parent, part) for part in ("train", "test")})


def _list_dtd(folder: Path) -> list[ReleasedPicture]:
    splits = {"train": "train", "validation": "val", "test": "test"}
    return _rows_of({part: vision.DTD(folder.parent, split) for part, split in splits.items()})


def _rows_of(parts: dict[str, vision.Food101 | vision.DTD]) -> list[ReleasedPicture]:
    return [
        ReleasedPicture(path.relative_to(data._images_folder).as_posix(), part, data.classes[label])
        for part, data in parts.items()
        for path, label in zip(data._image_files, data._labels, strict=True)
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
            list_pictures=_list_caltech101,
            coop_file="split_zhou_Caltech101.json",
            split="50/20/30 per class by hashed order",
        ),
        ClassificationRelease(
            name="food101",
            title="Food-101",
            folder="food-101",
            pictures="images",
            template="a photo of {}, a type of food.",
            list_pictures=_list_food101,
            coop_file="split_zhou_Food101.json",
            split="official test set; official training set 5:2 into train and validation per "
            "class by hashed order",
            validation_share=2 / 7,
        ),
        ClassificationRelease(
            name="eurosat",
            title="EuroSAT (RGB)",
            folder="eurosat",
            pictures="2750",
            template="a centered satellite photo of {}.",
            list_pictures=_list_eurosat,
            coop_file="split_zhou_EuroSAT.json",
            split="50/20/30 per class by hashed order",
        ),
        ClassificationRelease(
            name="oxford_pets",
            title="Oxford-IIIT Pet",
            folder="oxford-iiit-pet",
            pictures="images",
            template="a photo of a {}, a type of pet.",
            list_pictures=_list_oxford_pets,
            coop_file="split_zhou_OxfordPets.json",
            split="official test set; trainval 80:20 into train and validation per class by "
            "hashed order",
            validation_share=0.2,
        ),
        ClassificationRelease(
            name="dtd",
            title="Describable Textures (DTD)",
            folder="dtd",
            pictures="dtd/images",
            template="{} texture.",
            list_pictures=_list_dtd,
            coop_file="split_zhou_DescribableTextures.json",
            split="official partition 1 of 10",
        ),
    )
}


def load_classification_files(name: str, root: Path) -> ClassificationData:
    """One of the paper's sets, by CoOp's split if that lies there, else by the rule.

    Args:
        name: a key of :data:`CLASSIFICATION_RELEASES`.
        root: folder of the downloaded data.

    Raises:
        SerialLoRAError: the data are not there (says which command fetches them), or not complete.
    """
    release = CLASSIFICATION_RELEASES[name]
    folder = root / release.folder
    own_file, coop_file = folder / SPLIT_FILE, folder / release.coop_file
    origin = f"{release.split}, seed {SPLIT_SEED}"
    if coop_file.is_file():
        split, origin = read_split(coop_file), f"CoOp's {coop_file.name}"
    elif own_file.is_file():
        split = read_split(own_file)
    else:
        split = make_split(release.listed(root), release.validation_share, SPLIT_SEED)
        keep_split(own_file, split, origin)
    release.require(root, (picture_id for rows in split.values() for picture_id, _, _ in rows))
    pictures = folder / release.pictures
    train, test = (
        picture_files(pictures, [row[0] for row in split[part]], [row[1] for row in split[part]])
        for part in ("train", "test")
    )
    return ClassificationData(
        name=name,
        scale="paper",
        class_names=class_names_of(split, folder),
        template=release.template,
        train=train,
        test=test,
        split=origin,
        folder=folder,
    )
