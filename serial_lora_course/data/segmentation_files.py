"""The paper's segmentation sets, from files: FoodSeg103, FloodNet, and persons of PASCAL VOC.

    data = load_segmentation_files("icecream")
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

**Specks.** A mask of less than :data:`LEAST_SHARE` of its picture is left out, and a picture
without any other mask with it: at SAM's input size that is a few cells of the grid on which the
mask decoder draws, too little to measure. Masks that are kept are kept whole.

**Orientation.** Masks lie as they are stored. A picture is turned as its camera recorded (EXIF)
if it fits its mask then, else taken as it is stored; if it fits neither way, it is refused.

Pictures and masks are opened when they are asked for. Which picture holds what is found once, by
opening every mask, and kept in :data:`INDEX_FILE` beside the data; a mask whose size or time of
change differs is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.data.classification import PICTURE_SUFFIXES, read_picture
from serial_lora_course.data.download import data_root
from serial_lora_course.data.segmentation import SegmentationData, SegmentationExample

#: The smallest mask that counts, as a share of its picture's pixels.
LEAST_SHARE = 1e-4
INDEX_FILE = "masks_serial_lora.json"
INDEX_FORMAT = "serial-lora masks 1"
BACKGROUND, VOID = 0, 255  # VOID: PASCAL VOC's band round objects, which belongs to nothing
READERS = 8  # masks decoded at a time; Pillow's decoders let other threads run


@dataclass(frozen=True)
class MaskedFile:
    """One picture of a release and the files that say what is where in it.

    Attributes:
        picture_id: the picture's path below the release's folder.
        classes: path of the mask whose pixels are class numbers.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        objects: path of the mask whose pixels are numbers of objects, where the release tells
            objects of one class apart.
    """

    picture_id: str
    classes: str
    part: str
    objects: str | None = None

    @property
    def masks(self) -> tuple[str, ...]:
        """The paths of its one or two masks."""
        return (self.classes,) if self.objects is None else (self.classes, self.objects)


@dataclass(frozen=True)
class Release:
    """A published data set, from which the paper takes one or several of its own.

    Attributes:
        title: for people.
        folder: its folder below the data root, laid out as its publisher does.
        list_files: that folder -> all its pictures.
        class_numbers: that folder -> name of each class, background included -> number in masks.
        attribution: whose pictures they are.
        split: in words, what is train and what is test.
    """

    title: str
    folder: str
    list_files: Callable[[Path], list[MaskedFile]]
    class_numbers: Callable[[Path], Mapping[str, int]]
    attribution: str
    split: str


# --- the three releases --------------------------------------------------------------------------


def _list_foodseg103(folder: Path) -> list[MaskedFile]:
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
    except ValueError as error:
        raise SerialLoRAError(
            f"{path} is not a list of class numbers and names ({error}); restore it from the "
            "official archive."
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


def _list_floodnet(folder: Path) -> list[MaskedFile]:
    listed = []
    for name, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        below = f"{name}/{name}"
        listed += _pairs(folder, f"{below}-org-img", f"{below}-label-img", "_lab", part)
    return listed


#: In the order of VOC's development kit: background, then the alphabet.
VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def _list_voc(folder: Path) -> list[MaskedFile]:
    from torchvision.datasets import VOCSegmentation

    root = folder.parent.parent  # VOCdevkit/VOC2012 lies below it, as torchvision expects
    listed = []
    for image_set, part in (("train", "train"), ("val", "test")):
        for path in VOCSegmentation(root, image_set=image_set).images:
            name = Path(path).stem
            listed.append(
                MaskedFile(
                    picture_id=f"JPEGImages/{name}.jpg",
                    classes=f"SegmentationClass/{name}.png",
                    objects=f"SegmentationObject/{name}.png",
                    part=part,
                )
            )
    return listed


def _pairs(folder: Path, pictures: str, masks: str, ending: str, part: str) -> list[MaskedFile]:
    """Every picture in a folder with the mask of its name, ``ending`` added, in another."""
    found = sorted(
        name
        for name in os.listdir(folder / pictures)
        if Path(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".")
    )
    return [
        MaskedFile(f"{pictures}/{name}", f"{masks}/{Path(name).stem}{ending}.png", part)
        for name in found
    ]


#: Name of the script that fetches it -> the release.
RELEASES: dict[str, Release] = {
    "floodnet": Release(
        title="FloodNet-Supervised v1.0",
        folder="FloodNet-Supervised_v1.0",
        list_files=_list_floodnet,
        class_numbers=lambda folder: _numbered(FLOODNET_CLASSES),
        attribution="FloodNet, Rahnemoonfar et al. 2021 (CDLA-Permissive 1.0)",
        split="the official train and test sets; the validation set is not used",
    ),
    "voc_person": Release(
        title="PASCAL VOC 2012",
        folder="VOCdevkit/VOC2012",
        list_files=_list_voc,
        class_numbers=lambda folder: _numbered(VOC_CLASSES),
        attribution="PASCAL VOC 2012, Everingham et al.; photographs from Flickr, on its terms",
        split="the official train set; the official validation set is test, because VOC keeps "
        "the masks of its own test set to itself",
    ),
    "foodseg103": Release(
        title="FoodSeg103",
        folder="FoodSeg103",
        list_files=_list_foodseg103,
        class_numbers=_foodseg103_numbers,
        attribution="FoodSeg103, Wu et al. 2021 (Apache 2.0)",
        split="the official train and test sets",
    ),
}


def _numbered(names: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def list_files(name: str, root: Path) -> list[MaskedFile]:
    """All pictures of a release below the data root, each with its masks.

    Raises:
        SerialLoRAError: the folder is not there, or not complete.
    """
    release = RELEASES[name]
    folder = root / release.folder
    command = f"`python data_scripts/{name}.py --root {root}`"
    if not folder.is_dir():
        raise SerialLoRAError(f"{release.title} is not at {folder}; fetch it with {command}.")
    try:
        listed = release.list_files(folder)
        missing = _missing(folder, listed)
    except (OSError, RuntimeError) as error:
        raise SerialLoRAError(
            f"{folder} is not complete ({error}); move it away and run {command} again."
        ) from error
    if missing:
        raise SerialLoRAError(
            f"{len(missing)} files of {release.title} are missing, {folder / missing[0]} the "
            f"first; restore them, or move {folder} away and run {command} again."
        )
    return listed


def _missing(folder: Path, listed: Sequence[MaskedFile]) -> list[str]:
    """Files that are not there, by one look into each folder."""
    there: dict[str, set[str]] = {}
    missing = []
    for file in listed:
        for path in (file.picture_id, *file.masks):
            parent, _, name = path.rpartition("/")
            if parent not in there:
                there[parent] = set(os.listdir(folder / parent))
            if name not in there[parent]:
                missing.append(path)
    return missing


def count_files(name: str, root: Path) -> tuple[int, int]:
    """How many pictures and how many classes, background not counted, a release has.

    Raises:
        SerialLoRAError: the folder is not there, or not complete.
    """
    return len(list_files(name, root)), len(_class_numbers(name, root)) - 1


def _class_numbers(name: str, root: Path) -> Mapping[str, int]:
    folder = root / RELEASES[name].folder
    try:
        return RELEASES[name].class_numbers(folder)
    except OSError as error:
        raise SerialLoRAError(
            f"{folder} is not complete ({error}); move it away and run `python "
            f"data_scripts/{name}.py --root {root}` again."
        ) from error


# --- the paper's sets ----------------------------------------------------------------------------


@dataclass(frozen=True)
class PaperSet:
    """One of the paper's data sets.

    Attributes:
        release: where it comes from, a key of :data:`RELEASES`.
        classes: what counts as an object, as the release calls it.
        description: in words, what there is to see and what the masks cover.
    """

    release: str
    classes: tuple[str, ...]
    description: str


def _food(name: str) -> PaperSet:
    return PaperSet(
        release="foodseg103",
        classes=(name,),
        description=f"{name} on plates and tables (FoodSeg103): one mask a picture, all pixels "
        f"labelled {name}, as the labels do not tell one piece from the next",
    )


#: The paper's names in Table IV.
PAPER_SETS: dict[str, PaperSet] = {
    "flood": PaperSet(
        release="floodnet",
        classes=("building flooded", "road flooded"),
        description="a flood from the air (FloodNet-Supervised v1.0): flooded buildings and "
        "flooded roads, one mask for each of the two; the class water is left out, as FloodNet "
        "keeps it for rivers and lakes (the paper does not say which classes it took)",
    ),
    "human": PaperSet(
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


def load_segmentation_files(
    name: str, root: str | os.PathLike[str] | None = None
) -> SegmentationData:
    """One of the paper's sets; the first time, every mask of its release is opened once.

    Args:
        name: a key of :data:`PAPER_SETS`.
        root: folder of the downloaded data; see :func:`serial_lora_course.data.download.data_root`.

    Raises:
        SerialLoRAError: unknown name; data not there (says which command fetches them), or not
            complete; a mask that cannot be read (names the file).
    """
    if name not in PAPER_SETS:
        raise SerialLoRAError(
            f"there is no paper segmentation set {name!r}; choose one of {', '.join(PAPER_SETS)}."
        )
    chosen, root = PAPER_SETS[name], data_root(root)
    release = RELEASES[chosen.release]
    folder = root / release.folder
    listed = [f for f in list_files(chosen.release, root) if f.part in ("train", "test")]
    wanted = _wanted(chosen, _class_numbers(chosen.release, root), folder)
    holdings = find_labels(folder, listed, release.title)
    holding = [f for f in listed if any(_counts(label, wanted) for label in holdings[f])]
    parts = {
        part: MaskedPictures(folder, [file for file in holding if file.part == part], wanted)
        for part in ("train", "test")
    }
    return SegmentationData(
        name=name,
        scale="paper",
        train=parts["train"],
        test=parts["test"],
        description=chosen.description,
        attribution=release.attribution,
        split=release.split,
        content=repr((chosen.release, chosen.classes, LEAST_SHARE)),
        folder=folder,
    )


def _wanted(chosen: PaperSet, numbers: Mapping[str, int], folder: Path) -> dict[int, str]:
    """Number in the masks -> name, of the classes that count."""
    lacking = [name for name in chosen.classes if name not in numbers]
    if lacking:
        raise SerialLoRAError(
            f"{folder} has no class {lacking[0]!r} among its {len(numbers)}; restore its list of "
            "classes from the official archive."
        )
    return {numbers[name]: name for name in chosen.classes}


# --- pictures and masks --------------------------------------------------------------------------


class Label(NamedTuple):
    """What a number in a mask stands for: a class or, where they are told apart, an object.

    Attributes:
        number: in the mask.
        class_number: what it is.
        share: of the picture's pixels.
    """

    number: int
    class_number: int
    share: float


class MaskedPictures:
    """Pictures with the masks of some classes; each is opened when it is asked for.

    Args:
        folder: what the files' paths are relative to.
        files: the pictures, every one with at least one mask to show.
        wanted: number in the masks -> name, of the classes that count.
    """

    def __init__(
        self, folder: Path, files: Sequence[MaskedFile], wanted: Mapping[int, str]
    ) -> None:
        self.folder, self.files, self.wanted = folder, list(files), dict(wanted)
        self.picture_ids = [file.picture_id for file in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> SegmentationExample:
        file = self.files[index]
        numbers, labels = read_labels(self.folder, file)
        kept = [label for label in labels if _counts(label, self.wanted)]
        if not kept:
            raise SerialLoRAError(
                f"{self.folder / file.classes} does not show {' or '.join(self.wanted.values())} "
                "any more; the file was changed, so load the data set anew."
            )
        height, width = numbers.shape
        picture = _picture_of_size(self.folder / file.picture_id, (width, height))
        masks = np.stack([numbers == label.number for label in kept])
        names = tuple(self.wanted[label.class_number] for label in kept)
        return SegmentationExample(picture, masks, names, file.picture_id)


def _counts(label: Label, wanted: Mapping[int, str]) -> bool:
    """Whether it is of a class that counts, and no speck."""
    return label.class_number in wanted and label.share >= LEAST_SHARE


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


def read_labels(folder: Path, file: MaskedFile) -> tuple[np.ndarray, list[Label]]:
    """A picture's numbers, uint8 (H, W), and what those that occur stand for.

    Raises:
        SerialLoRAError: a mask is missing, cannot be read, or is no mask.
    """
    classes = _read_mask(folder / file.classes)
    if file.objects is None:
        shares = _shares(classes)
        return np.asarray(classes), [Label(n, n, share) for n, share in shares.items()]
    objects = _read_mask(folder / file.objects)
    if objects.size != classes.size:
        raise SerialLoRAError(
            f"{folder / file.objects} is not of the same size as {folder / file.classes}; restore "
            "both from the official archive."
        )
    numbers, class_numbers = np.asarray(objects), np.asarray(classes)
    labels = [
        Label(n, int(np.bincount(class_numbers[numbers == n]).argmax()), share)
        for n, share in _shares(objects).items()
    ]
    return numbers, labels


def _shares(mask: Image.Image) -> dict[int, float]:
    """The numbers that occur, background and void left out, and their share of the pixels."""
    pixels = mask.width * mask.height
    return {
        number: count / pixels
        for number, count in enumerate(mask.histogram())
        if count and number not in (BACKGROUND, VOID)
    }


def _read_mask(path: Path) -> Image.Image:
    """A mask file whose pixels are numbers: grey values, or places in its palette."""
    try:
        with Image.open(path) as mask:
            mask.load()
    except FileNotFoundError as error:
        raise SerialLoRAError(
            f"the mask {path} is missing; restore it, or prepare the data set anew."
        ) from error
    except Exception as error:  # decoders raise half a dozen unrelated kinds on damaged files
        raise SerialLoRAError(
            f"the mask {path} cannot be read ({error}); restore it from the official archive."
        ) from error
    if mask.mode not in ("L", "P"):
        raise SerialLoRAError(
            f"{path} is a picture of mode {mask.mode}, not a mask of class numbers; restore it "
            "from the official archive."
        )
    return mask


# --- which picture holds what, found once --------------------------------------------------------

Stamp = list[int]  # size and time of change of every mask of a picture


def find_labels(
    folder: Path, files: Sequence[MaskedFile], title: str
) -> dict[MaskedFile, list[Label]]:
    """What each picture holds, read from the index beside the data as far as that is current.

    Raises:
        SerialLoRAError: a mask cannot be read; the index is as it was.
    """
    path = folder / INDEX_FILE
    known = _read_index(path)
    stamps = {file: _stamp(folder, file) for file in files}
    stale = [file for file in files if known.get(file.picture_id, (None,))[0] != stamps[file]]
    fresh = dict(zip(stale, _open_masks(folder, stale, title), strict=True))
    labels = {f: fresh[f] if f in fresh else known[f.picture_id][1] for f in files}
    if stale:
        _keep_index(path, {f.picture_id: (stamps[f], labels[f]) for f in files})
    return labels


def _stamp(folder: Path, file: MaskedFile) -> Stamp:
    states = [os.stat(folder / mask) for mask in file.masks]
    return [number for state in states for number in (state.st_size, state.st_mtime_ns)]


def _open_masks(folder: Path, files: Sequence[MaskedFile], title: str) -> list[list[Label]]:
    """What some pictures hold; with a bar on standard error, if there are any."""
    from rich.console import Console
    from rich.progress import track

    with ThreadPoolExecutor(READERS) as readers:
        found = track(
            readers.map(lambda file: read_labels(folder, file)[1], files),
            description=f"reading the masks of {title}, once",
            total=len(files),
            console=Console(stderr=True),
            transient=True,
            disable=not files,
        )
        return list(found)


def _read_index(path: Path) -> dict[str, tuple[Stamp, list[Label]]]:
    """What the index says; nothing where there is none, or none that can be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != INDEX_FORMAT:
            return {}
        return {
            picture_id: (stamp, [Label(int(n), int(c), float(share)) for n, c, share in labels])
            for picture_id, (stamp, labels) in content["pictures"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep_index(path: Path, entries: Mapping[str, tuple[Stamp, list[Label]]]) -> None:
    content = {"format": INDEX_FORMAT, "pictures": entries}
    try:
        write_whole(path, json.dumps(content).encode())
    except OSError:
        # A shared, read-only data folder: the masks are opened again next time.
        return
