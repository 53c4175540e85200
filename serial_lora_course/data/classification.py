"""Classification data: pictures, labels, class names and a prompt template, at either scale.

    data = load_classification("eurosat", scale="paper")
    picture, label = data.train[0]          # PIL picture in RGB, int
    data.class_names[label]                 # "annual crop land"
    data.prompts()[label]                   # "a centered satellite photo of annual crop land."

Paper scale: which pictures train and which test
------------------------------------------------
The paper follows CLIP-LoRA, which follows CoOp (Zhou et al. 2022). CoOp's split lists
(``split_zhou_*.json``) are behind a host that needs a browser, so:

* If such a file lies in the data set's folder (the one below the data root) it is used as it is:
  the paper's own split. The data scripts print its name and place.
* Otherwise a split is made by the rule below, written once to ``split_serial_lora.json`` in the
  data set's folder with the SHA-256 of its list, and read from there afterwards.

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
them apart. Within a class, pictures are ordered by a hash of their name (see
:mod:`serial_lora_course.data.fewshot`), so the split is the same on every machine. Validation pictures are
left out of train and test and are not used: the paper reports none.

Class names are CoOp's, in lower case (CLIP's tokenizer lowers them anyway).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image, ImageOps

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.download import data_root
from serial_lora_course.data.fewshot import hash_order
from serial_lora_course.files import write_json

#: The prompt that CLIP-LoRA, and so the paper, uses for every data set.
GENERIC_TEMPLATE = "a photo of a {}."
SPLIT_SEED = 1
TRAIN_SHARE, VALIDATION_SHARE = 0.5, 0.2  # CoOp's, where a data set has no official split
SPLIT_FILE = "split_serial_lora.json"
SPLIT_FORMAT = "serial-lora split 1"
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


class LabelledPictures(Protocol):
    """What the labs need of a map-style data set.

    ``labels[i]`` and ``picture_ids[i]`` (unique, stable names) belong to ``dataset[i]``, which is
    a PIL picture in RGB and its label.
    """

    labels: list[int]
    picture_ids: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True, kw_only=True)
class ClassificationData:
    """A data set for few-shot classification.

    Attributes:
        name: of the data set; scale: ``"tiny"``, ``"paper"`` or ``"folder"`` (one's own).
        class_names: lower-case names, one per label.
        template: a prompt with ``{}`` for the class name, fitting this data set.
        generic_template: the prompt that is the same for every data set.
        train, test: pictures to draw shots from, and to measure on; no picture is in both.
        split: in words, where the division into train and test comes from.
        folder: where the data lie, when they are files.
    """

    name: str
    class_names: list[str]
    template: str
    train: LabelledPictures
    test: LabelledPictures
    generic_template: str = GENERIC_TEMPLATE
    scale: str = "tiny"
    split: str = ""
    folder: Path | None = None

    def __post_init__(self) -> None:
        if len(set(self.class_names)) != len(self.class_names):
            twice = Counter(self.class_names).most_common(1)[0][0]
            raise SerialLoRAError(
                f"{self.name} has two classes called {twice!r}; a prompt could not tell them "
                "apart, so rename one."
            )
        for part in (self.train, self.test):
            wrong = [label for label in part.labels if not 0 <= label < len(self.class_names)]
            if wrong:
                raise SerialLoRAError(
                    f"{self.name} has the label {wrong[0]} but only {len(self.class_names)} "
                    "class names; give one name per label."
                )
        shared = set(self.train.picture_ids).intersection(self.test.picture_ids)
        if shared:
            raise SerialLoRAError(
                f"{self.name} has the picture {min(shared)!r} in train and in test; take it out "
                "of one of them."
            )

    def prompts(self, template: str | None = None) -> list[str]:
        """One prompt per class, from this data set's template or another one."""
        template = self.template if template is None else template
        if template.count("{}") != 1:
            raise SerialLoRAError(
                f"the prompt template {template!r} needs exactly one {{}} for the class name."
            )
        return [template.format(name) for name in self.class_names]

    def fingerprint(self) -> str:
        """SHA-256 over class names, picture names and labels of train and test (not pixels)."""
        digest = hashlib.sha256()
        for name in self.class_names:
            digest.update(f"class\t{name}\n".encode())
        for part_name, part in (("train", self.train), ("test", self.test)):
            for line in sorted(zip(part.picture_ids, part.labels, strict=True)):
                digest.update(f"{part_name}\t{line[0]}\t{line[1]}\n".encode())
        return digest.hexdigest()


# --- pictures ------------------------------------------------------------------------------------


class PictureFiles:
    """Picture files with labels; each is opened when it is asked for.

    Args:
        folder: what the names are relative to.
        picture_ids: (N,) POSIX paths below ``folder``.
        labels: (N,) their classes.
        upright: turn pictures as their camera recorded (EXIF); published data sets are taken as
            they are, as everybody else takes them.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        picture_ids: Sequence[str],
        labels: Sequence[int],
        upright: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.picture_ids = list(picture_ids)
        self.labels = list(labels)
        self.upright = upright

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path = self.folder / self.picture_ids[index]
        return read_picture(path, upright=self.upright), self.labels[index]


def read_picture(path: str | os.PathLike[str], upright: bool = False) -> Image.Image:
    """A picture file as RGB, whatever it was: grey, 16-bit, CMYK, palette or transparent.

    Transparency is laid on white; an animation gives its first frame.

    Raises:
        SerialLoRAError: the file is missing or cannot be decoded to its last row.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened) if upright else opened
            return _to_rgb(picture)
    except FileNotFoundError as error:
        raise SerialLoRAError(
            f"the picture {path} is missing; restore it, or prepare the data set anew."
        ) from error
    except Exception as error:  # decoders raise half a dozen unrelated kinds on damaged files
        raise SerialLoRAError(
            f"the picture {path} cannot be read ({error}); replace the file, or delete it where "
            "the data set is your own."
        ) from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if picture.mode.startswith("I;16") or picture.mode == "I":
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(paper, picture)
    return picture.convert("RGB")


def clean_name(name: str) -> str:
    """A folder's name as words for a prompt: lower case, blanks for underscores."""
    return " ".join(name.replace("_", " ").lower().split())


# --- the paper's data sets -----------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """One picture as torchvision lists it: its name below the picture folder, its class, and the
    official part it belongs to (``"train"``, ``"validation"``, ``"test"``, or ``None``)."""

    picture_id: str
    class_name: str
    part: str | None = None


def _list_caltech101(root: Path) -> list[Listed]:
    from torchvision.datasets import Caltech101

    data = Caltech101(root)
    names = {"airplanes": "airplane", "Faces": "face", "Motorbikes": "motorbike"}
    names["Leopards"] = "leopard"
    listed = []
    for label, number in zip(data.y, data.index, strict=True):
        category = data.categories[label]
        if category != "Faces_easy":  # CoOp drops it; torchvision drops BACKGROUND_Google itself
            picture_id = f"{category}/image_{number:04d}.jpg"
            listed.append(Listed(picture_id, names.get(category, category)))
    return listed


def _list_food101(root: Path) -> list[Listed]:
    from torchvision.datasets import Food101

    listed = []
    for part in ("train", "test"):
        data = Food101(root, split=part)
        for path, label in zip(data._image_files, data._labels, strict=True):
            picture_id = path.relative_to(data._images_folder).as_posix()
            listed.append(Listed(picture_id, data.classes[label], part))
    return listed


#: CoOp's wording for EuroSAT's run-together folder names.
EUROSAT_NAMES = {
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
}


def _list_eurosat(root: Path) -> list[Listed]:
    from torchvision.datasets import EuroSAT

    data = EuroSAT(root)
    folder = root / "eurosat" / "2750"
    return [
        Listed(
            Path(path).relative_to(folder).as_posix(),
            EUROSAT_NAMES.get(data.classes[label], data.classes[label]),
        )
        for path, label in data.samples
    ]


def _list_oxford_pets(root: Path) -> list[Listed]:
    from torchvision.datasets import OxfordIIITPet

    listed = []
    for split, part in (("trainval", "train"), ("test", "test")):
        data = OxfordIIITPet(root, split=split)
        for path in data._images:
            listed.append(Listed(path.name, path.stem.rpartition("_")[0], part))
    return listed


def _list_dtd(root: Path) -> list[Listed]:
    from torchvision.datasets import DTD

    listed = []
    for split, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        data = DTD(root, split=split, partition=1)
        for path, label in zip(data._image_files, data._labels, strict=True):
            picture_id = path.relative_to(data._images_folder).as_posix()
            listed.append(Listed(picture_id, data.classes[label], part))
    return listed


@dataclass(frozen=True)
class PaperDataset:
    """What is particular to one of the paper's data sets.

    Attributes:
        folder: its folder below the data root, as torchvision expects it.
        pictures: the folder of its pictures, below ``folder``; CoOp's lists are relative to it.
        template: CoOp's prompt for it.
        list_pictures: data root -> all pictures that CoOp uses.
        coop_file: name of CoOp's split list for it.
        rule: the split in words, used where CoOp's list is not there.
        validation_share: share of the official training pictures that becomes validation.
    """

    folder: str
    pictures: str
    template: str
    list_pictures: Callable[[Path], list[Listed]]
    coop_file: str
    rule: str
    validation_share: float = 0.0


PAPER_DATASETS = {
    "caltech101": PaperDataset(
        folder="caltech101",
        pictures="101_ObjectCategories",
        template="a photo of a {}.",
        list_pictures=_list_caltech101,
        coop_file="split_zhou_Caltech101.json",
        rule="50/20/30 per class by hashed order",
    ),
    "food101": PaperDataset(
        folder="food-101",
        pictures="images",
        template="a photo of {}, a type of food.",
        list_pictures=_list_food101,
        coop_file="split_zhou_Food101.json",
        rule="official test set; official training set 5:2 into train and validation per class "
        "by hashed order",
        validation_share=2 / 7,
    ),
    "eurosat": PaperDataset(
        folder="eurosat",
        pictures="2750",
        template="a centered satellite photo of {}.",
        list_pictures=_list_eurosat,
        coop_file="split_zhou_EuroSAT.json",
        rule="50/20/30 per class by hashed order",
    ),
    "oxford_pets": PaperDataset(
        folder="oxford-iiit-pet",
        pictures="images",
        template="a photo of a {}, a type of pet.",
        list_pictures=_list_oxford_pets,
        coop_file="split_zhou_OxfordPets.json",
        rule="official test set; trainval 80:20 into train and validation per class by hashed "
        "order",
        validation_share=0.2,
    ),
    "dtd": PaperDataset(
        folder="dtd",
        pictures="dtd/images",
        template="{} texture.",
        list_pictures=_list_dtd,
        coop_file="split_zhou_DescribableTextures.json",
        rule="official partition 1 of 10",
    ),
}


def dataset_names(scale: str = "tiny") -> list[str]:
    """The names that :func:`load_classification` knows at a scale."""
    if scale == "paper":
        return list(PAPER_DATASETS)
    if scale == "tiny":
        from serial_lora_course.data.emoji_sets import EMOJI_SETS

        return list(EMOJI_SETS)
    raise SerialLoRAError(f'unknown scale {scale!r}; choose "tiny" or "paper".')


def load_classification(
    name: str, scale: str = "tiny", root: str | os.PathLike[str] | None = None
) -> ClassificationData:
    """A data set by its name, or a folder of one's own by its path.

    Args:
        name: one of :func:`dataset_names` at this scale, or the path of a folder with one
            sub-folder per class (see :func:`load_folder`).
        scale: ``"tiny"`` (emoji, nothing to download) or ``"paper"``.
        root: folder of the downloaded data; see :func:`serial_lora_course.data.download.data_root`.

    Raises:
        SerialLoRAError: unknown name or scale, data not there (says which command fetches them),
            or not complete.
    """
    names = dataset_names(scale)
    if name not in names:
        if Path(name).expanduser().is_dir():
            return load_folder(name)
        if scale == "tiny" and name in PAPER_DATASETS:
            raise SerialLoRAError(
                f'{name} is one of the paper\'s data sets; ask for it with scale "paper". At tiny '
                f"scale there are {', '.join(names)}."
            )
        raise SerialLoRAError(
            f"unknown data set {name!r}; at {scale} scale there are {', '.join(names)}, or give "
            "the path of a folder with one sub-folder of pictures per class."
        )
    if scale == "tiny":
        from serial_lora_course.data.emoji_sets import load_emoji_set

        return load_emoji_set(name)
    return _load_paper(name, data_root(root))


def list_pictures(name: str, root: Path) -> list[Listed]:
    """All pictures of a paper data set, as torchvision's class finds them below ``root``.

    Raises:
        SerialLoRAError: the folder is not there, or not complete.
    """
    dataset = PAPER_DATASETS[name]
    folder = root / dataset.folder
    if not (folder / dataset.pictures).is_dir():
        raise SerialLoRAError(
            f"{name} is not at {folder}; fetch it with `python data_scripts/{name}.py --root "
            f"{root}`."
        )
    try:
        return dataset.list_pictures(root)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise SerialLoRAError(
            f"{folder} is not complete ({error}); move it away and run `python "
            f"data_scripts/{name}.py --root {root}` again."
        ) from error


def _load_paper(name: str, root: Path) -> ClassificationData:
    dataset = PAPER_DATASETS[name]
    folder = root / dataset.folder
    pictures = folder / dataset.pictures
    if not pictures.is_dir():
        list_pictures(name, root)  # raises, naming the command that fetches them
    own_file = folder / SPLIT_FILE
    coop_file = folder / dataset.coop_file
    if coop_file.is_file():
        split, origin = read_split(coop_file), f"CoOp's {coop_file.name}"
    elif own_file.is_file():
        split, origin = read_split(own_file), f"{dataset.rule}, seed {SPLIT_SEED}"
    else:
        split = make_split(list_pictures(name, root), dataset.validation_share, SPLIT_SEED)
        origin = f"{dataset.rule}, seed {SPLIT_SEED}"
        _keep_split(own_file, split, origin)
    _require_pictures(split, pictures, name, root)
    parts = {
        part: PictureFiles(pictures, [row[0] for row in rows], [row[1] for row in rows])
        for part, rows in split.items()
    }
    return ClassificationData(
        name=name,
        scale="paper",
        class_names=_class_names(split, folder),
        template=dataset.template,
        train=parts["train"],
        test=parts["test"],
        split=origin,
        folder=folder,
    )


# --- splits --------------------------------------------------------------------------------------

#: Part ("train", "val", "test", CoOp's words) -> rows of picture id, label, class name.
Split = dict[str, list[tuple[str, int, str]]]


def make_split(listed: Sequence[Listed], validation_share: float, seed: int) -> Split:
    """Divide pictures into train, validation and test, class by class.

    Pictures with an official part stay in it, except that ``validation_share`` of the official
    training pictures of a class becomes validation. Pictures without one are divided 50/20/30
    with CoOp's counts: ``round(n * 0.5)`` train, ``round(n * 0.2)`` validation, the rest test.

    Raises:
        SerialLoRAError: a class is too small to have a training and a test picture.
    """
    classes: dict[str, dict[str | None, list[str]]] = {}
    for row in listed:
        classes.setdefault(row.class_name, {}).setdefault(row.part, []).append(row.picture_id)
    split: Split = {"train": [], "val": [], "test": []}
    for label, class_name in enumerate(_sorted_classes(listed)):
        free = _in_order(classes[class_name].get(None, []), seed)
        train_end = round(len(free) * TRAIN_SHARE)
        validation_end = train_end + round(len(free) * VALIDATION_SHARE)
        official = _in_order(classes[class_name].get("train", []), seed)
        held_out = round(len(official) * validation_share)
        parts = {
            "train": free[:train_end] + official[held_out:],
            "val": free[train_end:validation_end]
            + official[:held_out]
            + classes[class_name].get("validation", []),
            "test": free[validation_end:] + classes[class_name].get("test", []),
        }
        if not parts["train"] or not parts["test"]:
            raise SerialLoRAError(
                f"the class {class_name!r} has too few pictures for a training and a test "
                "picture; the data set is not complete, so prepare it anew."
            )
        for part, picture_ids in parts.items():
            split[part] += [(name, label, clean_name(class_name)) for name in sorted(picture_ids)]
    return split


def _in_order(picture_ids: Sequence[str], seed: int) -> list[str]:
    return [picture_ids[position] for position in hash_order(picture_ids, seed, "split")]


def _sorted_classes(listed: Iterable[Listed]) -> list[str]:
    """Class names in the order of the folders that hold them (labels as in CoOp's files)."""
    folder_of: dict[str, str] = {}
    for row in listed:
        folder_of.setdefault(row.class_name, PurePosixPath(row.picture_id).parts[0])
    return sorted(folder_of, key=lambda name: (folder_of[name], name))


def split_sha256(split: Split) -> str:
    """SHA-256 of a split's list of pictures."""
    digest = hashlib.sha256()
    for part in ("train", "val", "test"):
        for picture_id, label, class_name in split[part]:
            digest.update(f"{part}\t{picture_id}\t{label}\t{class_name}\n".encode())
    return digest.hexdigest()


def _keep_split(path: Path, split: Split, origin: str) -> None:
    content = {"format": SPLIT_FORMAT, "rule": origin, "sha256": split_sha256(split)}
    try:
        write_json(path, {**content, **split})
    except OSError:
        # A shared, read-only data folder: the same split will come out next time too, because it
        # depends on nothing but the names of the pictures.
        return


def read_split(path: Path) -> Split:
    """Read a split in CoOp's format, ours included, and check what can be checked.

    Raises:
        SerialLoRAError: not such a file, its list was altered, or a path leaves the folder.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        split: Split = {
            part: [(str(name), int(label), str(text)) for name, label, text in content[part]]
            for part in ("train", "val", "test")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SerialLoRAError(
            f"{path} is not a split file ({type(error).__name__}: {error}); move it away, and the "
            "split is made anew or fetched from its source."
        ) from error
    if content.get("format") == SPLIT_FORMAT and content.get("sha256") != split_sha256(split):
        raise SerialLoRAError(
            f"{path} was altered after it was made; delete it, and the same split is made anew."
        )
    for rows in split.values():
        for picture_id, _, _ in rows:
            pure = PurePosixPath(picture_id)
            if pure.is_absolute() or ".." in pure.parts:
                raise SerialLoRAError(
                    f"{path} names the picture {picture_id!r}, which is outside the data set's "
                    "folder; get the file from its official source."
                )
    return split


def _require_pictures(split: Split, pictures: Path, name: str, root: Path) -> None:
    """One look into each folder instead of one question per picture."""
    there: dict[str, set[str]] = {}
    missing = []
    for rows in split.values():
        for picture_id, _, _ in rows:
            parent, _, file_name = picture_id.rpartition("/")
            if parent not in there:
                folder = pictures / parent
                there[parent] = set(os.listdir(folder)) if folder.is_dir() else set()
            if file_name not in there[parent]:
                missing.append(picture_id)
    if missing:
        raise SerialLoRAError(
            f"{len(missing)} pictures of {name} are missing at {pictures}, {missing[0]} the first; "
            f"move the folder away and run `python data_scripts/{name}.py --root {root}` again."
        )


def _class_names(split: Split, source: Path) -> list[str]:
    names: dict[int, str] = {}
    for rows in split.values():
        for _, label, class_name in rows:
            cleaned = clean_name(class_name)
            if names.setdefault(label, cleaned) != cleaned:
                raise SerialLoRAError(
                    f"the split file in {source} calls class {label} both {names[label]!r} and "
                    f"{cleaned!r}; get the file from its official source."
                )
    if sorted(names) != list(range(len(names))):
        raise SerialLoRAError(
            f"the split file in {source} leaves out class numbers; get the file from its official "
            "source."
        )
    return [names[label] for label in range(len(names))]


# --- a folder of one's own -----------------------------------------------------------------------

_TRAIN_NAMES = {"train", "training"}
_TEST_NAMES = {"test", "val", "valid", "validation"}


def given_division(folder: Path) -> tuple[Path, Path] | None:
    """The sub-folders to train and to test on, where a folder is divided already; else None.

    It is when it has one of each and no third, and there are classes inside.
    """
    lowered = {sub.name.lower(): sub for sub in _class_folders(folder)}
    train = next((lowered[name] for name in sorted(_TRAIN_NAMES & set(lowered))), None)
    test = next((lowered[name] for name in sorted(_TEST_NAMES & set(lowered))), None)
    others = set(lowered) - _TRAIN_NAMES - _TEST_NAMES
    if train is None or test is None or others or not _class_folders(train):
        return None
    return train, test


def load_folder(
    path: str | os.PathLike[str],
    test_fraction: float = 0.3,
    seed: int = SPLIT_SEED,
    template: str = GENERIC_TEMPLATE,
    check_pictures: bool = True,
) -> ClassificationData:
    """A folder with one sub-folder of pictures per class, as few-shot data.

    A share of each class is set aside as the test set, by a hash of the pictures' names, so it
    stays the same when pictures are added elsewhere. A folder that has ``train`` and ``test`` (or
    ``val``) inside, each with one sub-folder per class, keeps that division.

    Args:
        path: the folder. Hidden files and files that are no pictures are passed over.
        test_fraction: share of each class to test on, between 0 and 1; at least one picture of
            each class trains and at least one tests.
        seed: of the division.
        template: prompt with ``{}`` for the class name.
        check_pictures: decode every picture once, so that damaged ones are all told now and not
            one by one in the middle of a run.

    Raises:
        SerialLoRAError: no folder, fewer than two classes, a class with one picture, two classes
            of the same name, or pictures that cannot be read.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise SerialLoRAError(f"there is no folder at {folder}; give one sub-folder per class.")
    if not 0 < test_fraction < 1:
        raise SerialLoRAError(f"test_fraction must lie between 0 and 1, not {test_fraction}.")
    division = given_division(folder)
    class_folders = _class_folders(division[0] if division else folder)
    if division:
        rows, origin = _divided_rows(folder, *division)
    else:
        rows, origin = _undivided_rows(folder, class_folders, test_fraction, seed)
    if check_pictures:
        _refuse_damaged(folder, [picture_id for part in rows.values() for picture_id, _ in part])
    parts = {
        part: PictureFiles(folder, [row[0] for row in found], [row[1] for row in found], True)
        for part, found in rows.items()
    }
    return ClassificationData(
        name=folder.absolute().name,
        scale="folder",
        class_names=[clean_name(sub.name) for sub in class_folders],
        template=template,
        train=parts["train"],
        test=parts["test"],
        split=origin,
        folder=folder,
    )


Rows = dict[str, list[tuple[str, int]]]


def _class_folders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and sub.name[0] not in "._")


def _pictures_below(folder: Path, root: Path) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    )


def _undivided_rows(
    folder: Path, classes: list[Path], test_fraction: float, seed: int
) -> tuple[Rows, str]:
    pictures = {sub.name: _pictures_below(sub, folder) for sub in classes}
    if len(classes) < 2:
        raise SerialLoRAError(
            f"{folder} has {len(classes)} class folders; put the pictures of each class into a "
            "sub-folder of its own, named as the class, at least two of them."
        )
    small = [f"{name} ({len(found)})" for name, found in pictures.items() if len(found) < 2]
    if small:
        raise SerialLoRAError(
            f"every class in {folder} needs at least two pictures, one to train and one to test; "
            f"too few in {', '.join(small)}: add pictures, or move the folder away."
        )
    rows: Rows = {"train": [], "test": []}
    for label, found in enumerate(pictures.values()):
        test_count = min(max(round(len(found) * test_fraction), 1), len(found) - 1)
        ordered = [found[position] for position in hash_order(found, seed, "split")]
        rows["test"] += [(name, label) for name in sorted(ordered[:test_count])]
        rows["train"] += [(name, label) for name in sorted(ordered[test_count:])]
    share = f"{test_fraction:.0%} of each class for testing, by hashed order, seed {seed}"
    return rows, share


def _divided_rows(folder: Path, train: Path, test: Path) -> tuple[Rows, str]:
    names = [sub.name for sub in _class_folders(train)]
    other = [sub.name for sub in _class_folders(test)]
    if names != other or len(names) < 2:
        different = ", ".join(sorted(set(names) ^ set(other))) or "fewer than two"
        raise SerialLoRAError(
            f"{train} and {test} must have the same class folders, at least two; different: "
            f"{different}."
        )
    rows: Rows = {"train": [], "test": []}
    for part, source in (("train", train), ("test", test)):
        for label, name in enumerate(names):
            found = _pictures_below(source / name, folder)
            if not found:
                raise SerialLoRAError(f"{source / name} has no pictures; add some, or remove it.")
            rows[part] += [(picture_id, label) for picture_id in found]
    return rows, f"the folders {train.name} and {test.name}"


def _refuse_damaged(folder: Path, picture_ids: Sequence[str]) -> None:
    damaged = [picture_id for picture_id in picture_ids if not _decodes(folder / picture_id)]
    if damaged:
        shown = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        raise SerialLoRAError(
            f"{len(damaged)} of {len(picture_ids)} pictures in {folder} cannot be read: {shown}; "
            "replace or delete them."
        )


def _decodes(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (64, 64))  # JPEG: decodes at an eighth of the size, to the end
            picture.load()
    except Exception:  # see read_picture
        return False
    return True
