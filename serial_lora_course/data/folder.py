"""A folder of one's own pictures: loaded as few-shot data, and looked into before that.

    data = load_folder("my_pictures")           # one sub-folder per class
    facts = examine_folder("my_pictures")       # one row a file
    facts[facts["remark"] != ""]                # what is unusual, and what will be done about it

`load_folder` refuses what cannot be used. `examine_folder` says the same for every file at once,
and also what is used after a silent conversion, or is there twice.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import (
    OTHER_PICTURES,
    PICTURE_SUFFIXES,
    clean_name,
    picture_files,
    read_picture,
)
from serial_lora_course.data.subsets import SPLIT_SEED, hash_order
from serial_lora_course.data.types import GENERIC_TEMPLATE, ClassificationData
from serial_lora_course.files import expanded, is_text, printable, refusals_told

ORIENTATION = 0x0112  # the EXIF tag in which a camera says how it was held
COLUMNS = ("class", "file", "mode", "width", "height", "usable", "remark")
COPY_OF = "the same picture as"
_TRAIN_NAMES = {"train", "training"}
_TEST_NAMES = {"test", "val", "valid", "validation"}


def given_division(folder: Path) -> tuple[Path, Path] | None:
    """The sub-folders to train and to test on, where a folder is divided already; else None.

    It is when it has one of each and no third, and there are classes inside.
    """
    folders = _class_folders(folder)
    lowered = {sub.name.lower(): sub for sub in folders}
    if len(lowered) < len(folders):
        return None  # "train" beside "Train": classes of one name, which is refused
    train = next((lowered[name] for name in sorted(_TRAIN_NAMES & set(lowered))), None)
    test = next((lowered[name] for name in sorted(_TEST_NAMES & set(lowered))), None)
    others = set(lowered) - _TRAIN_NAMES - _TEST_NAMES
    if train is None or test is None or others or not _class_folders(train):
        return None
    return train, test


@refusals_told()
def load_folder(
    path: str | os.PathLike[str],
    test_fraction: float = 0.3,
    seed: int = SPLIT_SEED,
    template: str = GENERIC_TEMPLATE,
    class_name: Callable[[str], str] = clean_name,
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
        class_name: what a class is called whose folder has a name; as words for a prompt.

    Raises:
        SerialLoRAError: no folder, fewer than two classes, a class with one picture, two classes
            of the same name, names that are no text, or what cannot be read.
    """
    folder = _folder_at(path)
    if not 0 < test_fraction < 1:
        raise SerialLoRAError(f"test_fraction must lie between 0 and 1, not {test_fraction}.")
    division = given_division(folder)
    class_folders = _class_folders(division[0] if division else folder)
    if division:
        rows, origin = _divided_rows(folder, *division)
    else:
        rows, origin = _undivided_rows(folder, class_folders, test_fraction, seed)
    if blank := [sub.name for sub in class_folders if not clean_name(sub.name)]:
        raise SerialLoRAError(
            f"the class folder {blank[0]!r} in {folder} has no name for a prompt; rename it."
        )
    _refuse_damaged(folder, [picture_id for part in rows.values() for picture_id, _ in part])
    train, test = (picture_files(folder, rows[part], upright=True) for part in ("train", "test"))
    return ClassificationData(
        name=printable(folder.absolute().name),
        scale="folder",
        class_names=[class_name(sub.name) for sub in class_folders],
        template=template,
        train=train,
        test=test,
        split=origin,
        folder=folder,
    )


Rows = dict[str, list[tuple[str, int]]]


def _folder_at(path: str | os.PathLike[str]) -> Path:
    folder = expanded(path)
    if not folder.is_dir():
        raise SerialLoRAError(f"there is no folder at {folder}; give one sub-folder per class.")
    return folder


def _class_folders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and sub.name[0] not in "._")


def pictures_below(folder: Path, root: Path) -> list[str]:
    """Picture files in a folder and in those inside, as sorted POSIX paths below ``root``.

    Hidden files are passed over, and with a warning pictures of kinds that cannot be read.

    Raises:
        OSError: a folder on the way cannot be read.
    """
    found = _files_below(folder, root)
    kinds = [Path(name).suffix.lower() for name in found]
    other = [name for name, kind in zip(found, kinds, strict=True) if kind in OTHER_PICTURES]
    if other:
        warnings.warn(
            f"{folder} has pictures of a kind that cannot be read, {other[0]} the first of "
            f"{len(other)}; they are passed over: convert them to PNG or JPEG.",
            stacklevel=2,
        )
    return [name for name, kind in zip(found, kinds, strict=True) if kind in PICTURE_SUFFIXES]


def _pictures_below(folder: Path, root: Path) -> list[str]:
    pictures = pictures_below(folder, root)
    if odd := [name for name in pictures if not is_text(name)]:
        raise SerialLoRAError(
            f"{odd[0]} in {root} has a name that is no text ({len(odd)} such names); rename it."
        )
    return pictures


def _files_below(folder: Path, root: Path) -> list[str]:
    """What is no hidden file, as sorted POSIX paths below ``root``.

    Raises:
        OSError: a folder on the way cannot be read.
    """
    found = []
    for place, folders, files in os.walk(folder, onerror=_not_silently):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def _not_silently(error: OSError) -> None:
    raise error


def _undivided_rows(
    folder: Path, classes: list[Path], test_fraction: float, seed: int
) -> tuple[Rows, str]:
    pictures = {sub.name: _pictures_below(sub, folder) for sub in classes}
    if len(classes) < 2:
        raise SerialLoRAError(
            f"{folder} has {'only one class folder' if classes else 'no class folder'}; put the "
            "pictures of each class into a sub-folder of its own, named as the class, at least two "
            "of them."
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
    damaged = []
    for picture_id in picture_ids:
        try:
            with Image.open(folder / picture_id) as picture:
                picture.draft("RGB", (64, 64))  # JPEG: at an eighth of the size, to the end
                picture.load()
        except Exception:  # see read_picture
            damaged.append(picture_id)
    if damaged:
        shown = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        raise SerialLoRAError(
            f"{len(damaged)} of {len(picture_ids)} pictures in {folder} cannot be read: {shown}; "
            "replace or delete them."
        )


# --- looked into ---------------------------------------------------------------------------------


@refusals_told()
def examine_folder(path: str | os.PathLike[str]) -> pd.DataFrame:
    """One row for each file below a folder of class folders, with a remark where it is unusual.

    Args:
        path: a folder as `load_folder` takes it: one sub-folder per class, or `train` and `test`
            with such sub-folders inside.

    Returns:
        Columns ``class``, ``file`` (below the folder), ``mode`` (Pillow's, "" if unreadable),
        ``width`` and ``height`` in pixels, held upright, ``usable``, and ``remark`` ("" where
        nothing is unusual). Sorted by class and file; hidden files are left out. What lies in no
        class folder has the class "".

    Raises:
        SerialLoRAError: there is no such folder, or one inside cannot be read.
    """
    folder = _folder_at(path)
    divided = given_division(folder) is not None
    first_seen: dict[str, str] = {}  # digest of the pixels -> file
    rows = [
        _row(folder, name, _class_of(name, divided), first_seen)
        for name in _files_below(folder, folder)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        ["class", "file"], ignore_index=True
    )


def _class_of(name: str, divided: bool) -> str:
    """The class folder that a file lies in, "" if in none; "_..." is none to `load_folder`."""
    folders = name.split("/")[:-1][: 1 + divided]
    passed_over = len(folders) <= divided or any(folder[0] == "_" for folder in folders)
    return "" if passed_over else folders[-1]


def _row(folder: Path, name: str, class_name: str, first_seen: dict[str, str]) -> tuple:
    def unusable(remark: str) -> tuple:
        return printable(class_name), printable(name), "", 0, 0, False, remark

    if not is_text(name):
        return unusable("its name is no text: rename it")
    if not class_name:
        return unusable("in no class folder: passed over")
    if Path(name).suffix.lower() not in PICTURE_SUFFIXES:
        return unusable("no picture by its ending: passed over")
    try:
        picture = read_picture(folder / name, upright=True)  # as `load_folder` does
    except SerialLoRAError:
        return unusable("cannot be read: replace or delete it")
    try:
        with Image.open(folder / name) as opened:
            mode, remarks = opened.mode, _remarks(opened)
    except Exception:  # see read_picture
        mode, remarks = picture.mode, ["damaged behind its first picture, which is used"]
    digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
    earlier = first_seen.setdefault(digest, name)
    if earlier != name:
        remarks.append(f"{COPY_OF} {earlier}: keep one, or train and test may share it")
    return class_name, name, mode, *picture.size, True, "; ".join(remarks)


#: Pillow's mode -> what `read_picture` does to it.
CONVERTED = {
    "I": "16-bit grey: brought to 8 bits, three equal channels",
    "F": "numbers with fractions: brought to 8 bits, three equal channels",
    **dict.fromkeys(("1", "L", "LA"), "grey: three equal channels"),
    **dict.fromkeys(("P", "PA"), "palette: its colours are looked up"),
    **dict.fromkeys(("RGB", "RGBA"), ""),
}


def _remarks(picture: Image.Image) -> list[str]:
    """What `read_picture` will do to this picture, beyond opening it."""
    remarks, mode = [], picture.mode.partition(";")[0]
    transparent = "transparency" in picture.info or mode in ("RGBA", "LA", "PA")
    if transparent and picture.convert("RGBA").getextrema()[3][0] < 255:
        remarks.append("transparent: laid on white")
    remarks.append(CONVERTED.get(mode, f"{mode}: converted to RGB"))
    if getattr(picture, "n_frames", 1) > 1:
        remarks.append("animation: its first picture is used")
    if picture.getexif().get(ORIENTATION, 1) != 1:
        remarks.append("held sideways: turned upright")
    return [remark for remark in remarks if remark]
