"""A folder of one's own pictures: loaded as few-shot data, and looked into before that.

    data = load_folder("my_pictures")           # one sub-folder per class
    facts = examine_folder("my_pictures")       # one row a file
    facts[facts["remark"] != ""]                # what is unusual, and what will be done about it

`load_folder` refuses what cannot be used. `examine_folder` says the same for every file at once,
and also what is passed over, or is there twice.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from serial_lora.errors import SerialLoRAError, require_number
from serial_lora_course.data.pictures import (
    OTHER_PICTURES,
    PICTURE_SUFFIXES,
    clean_name,
    picture_files,
    read_picture,
)
from serial_lora_course.data.subsets import SPLIT_SEED, divided, refuse_shared
from serial_lora_course.data.types import ClassificationData
from serial_lora_course.files import expanded, is_text, printable, refusals_told

COLUMNS = ("class", "file", "usable", "remark")
COPY_OF = "the same picture as"
TRAIN_NAMES = {"train", "training"}
TEST_NAMES = {"test", "val", "valid", "validation"}
Found = dict[str, list[str]]
"""Class folder -> its pictures, as paths below the whole folder."""


@refusals_told()
def load_folder(
    path: str | os.PathLike[str],
    test_fraction: float = 0.3,
    class_name: Callable[[str], str] = clean_name,
    groups: str | None = None,
) -> ClassificationData:
    """A folder with one sub-folder of pictures per class, as few-shot data.

    A share of each class is set aside as the test set, by a hash of the pictures' names, so it
    stays the same when pictures are added elsewhere. A folder that has ``train`` and ``test`` (or
    ``val``) inside, each with one sub-folder per class, keeps that division.

    Args:
        path: the folder. Hidden files and files that are no pictures are passed over.
        test_fraction: share of each class to test on, between 0 and 1; at least one picture of
            each class trains and at least one tests.
        class_name: what a class is called whose folder has a name; as words for a prompt.
        groups: a regular expression, as `group_of` takes it; of what its names below the folder have
            the same part, all train or all test.
    """
    folder = _folder_at(path)
    require_number("test_fraction", test_fraction, above=0, below=1)
    division = _given_division(folder)
    found = [
        {sub.name: _named_pictures(sub, folder) for sub in _class_folders(place)}
        for place in division or (folder,)
    ]
    _refuse_classes(folder, found)
    rows = [
        [(picture_id, label) for label, own in enumerate(part.values()) for picture_id in own]
        for part in found
    ]
    _refuse_damaged(folder, [picture_id for part in rows for picture_id, _ in part])
    parts = [picture_files(folder, part, upright=True) for part in rows]
    if division:
        refuse_shared(*parts, groups)
    train, test = parts if division else divided(*parts, test_fraction, pattern=groups)
    whole = "class's groups" if groups else "class"
    split = f"{test_fraction:.0%} of each {whole} for testing, by hashed order, seed {SPLIT_SEED}"
    if division:
        split = f"the folders {division[0].name} and {division[1].name}"
    return ClassificationData(
        name=printable(folder.absolute().name),
        scale="folder",
        class_names=[class_name(name) for name in found[0]],
        train=train,
        test=test,
        split=split,
    )


def _folder_at(path: str | os.PathLike[str]) -> Path:
    folder = expanded(path)
    if not folder.is_dir():
        raise SerialLoRAError(f"there is no folder at {folder}; give one sub-folder per class.")
    return folder


def _class_folders(folder: Path) -> list[Path]:
    return sorted(sub for sub in folder.iterdir() if sub.is_dir() and sub.name[0] not in "._")


def _given_division(folder: Path) -> tuple[Path, Path] | None:
    """The sub-folders to train and to test on, where a folder is divided already; else None.

    It is when it has one of each and no third, and there are classes inside.
    """
    folders = _class_folders(folder)
    lowered = {sub.name.lower(): sub for sub in folders}
    train, test = (sorted(lowered.keys() & names) for names in (TRAIN_NAMES, TEST_NAMES))
    others = lowered.keys() - TRAIN_NAMES - TEST_NAMES
    if others or not train or not test or not _class_folders(lowered[train[0]]):
        return None
    if len(lowered) < len(folders):
        return None  # "train" beside "Train": classes of one name, which is refused
    return lowered[train[0]], lowered[test[0]]


def pictures_below(folder: Path, root: Path) -> list[str]:
    """Picture files in a folder and in those inside, as sorted POSIX paths below ``root``.

    Hidden files are passed over, and with a warning pictures of kinds that cannot be read.

    Raises:
        OSError: a folder on the way cannot be read.
    """
    found = _files_below(folder, root)
    if other := [name for name in found if Path(name).suffix.lower() in OTHER_PICTURES]:
        warnings.warn(
            f"{folder} has pictures of a kind that cannot be read, {other[0]} the first of "
            f"{len(other)}; they are passed over: convert them to PNG or JPEG.",
            stacklevel=2,
        )
    return [name for name in found if Path(name).suffix.lower() in PICTURE_SUFFIXES]


def _named_pictures(folder: Path, root: Path) -> list[str]:
    pictures = pictures_below(folder, root)
    if odd := [name for name in pictures if not is_text(name)]:
        raise SerialLoRAError(
            f"{odd[0]} in {root} has a name that is no text ({len(odd)} such names); rename it."
        )
    return pictures


def _files_below(folder: Path, root: Path) -> list[str]:
    """What is no hidden file, as sorted POSIX paths below ``root``."""

    def not_silently(error: OSError) -> None:
        raise error

    found = []
    for place, folders, files in os.walk(folder, onerror=not_silently):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def _refuse_classes(folder: Path, found: Sequence[Found]) -> None:
    names, least = list(found[0]), 2 // len(found)  # pictures of a class that is to be divided
    if different := sorted(set(names) ^ set(found[-1])):
        raise SerialLoRAError(
            f"the parts of {folder} must have the same class folders; different: "
            f"{', '.join(different)}."
        )
    if len(names) < 2:
        raise SerialLoRAError(
            f"{folder} has {'only one class folder' if names else 'no class folder'}; put the "
            "pictures of each class into a sub-folder of its own, named as the class, at least two "
            "of them."
        )
    if blank := [name for name in names if not clean_name(name)]:
        raise SerialLoRAError(
            f"the class folder {blank[0]!r} in {folder} has no name for a prompt; rename it."
        )
    small = [f"{n} ({len(own)})" for part in found for n, own in part.items() if len(own) < least]
    if small:
        raise SerialLoRAError(
            f"every class in {folder} needs at least two pictures, one to train and one to test; "
            f"too few in {', '.join(small)}: add pictures, or move the folder away."
        )


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
        Columns ``class``, ``file`` (below the folder), ``usable``, and ``remark`` ("" where nothing
        is unusual). Sorted by class and file; hidden files are left out. What lies in no class
        folder has the class "".

    Raises:
        SerialLoRAError: there is no such folder, or one inside cannot be read.
    """
    folder = _folder_at(path)
    depth = 2 if _given_division(folder) else 1  # of class folders
    first_seen: dict[bytes, str] = {}  # digest of the pixels -> file
    rows = []
    for name in _files_below(folder, folder):
        folders = name.split("/")[:-1][:depth]
        passed_over = len(folders) < depth or any(each[0] == "_" for each in folders)
        class_name = "" if passed_over else folders[-1]
        usable, remark = _looked_at(folder, name, class_name, first_seen)
        rows.append((printable(class_name), printable(name), usable, remark))
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        ["class", "file"], ignore_index=True
    )


def _looked_at(
    folder: Path, name: str, class_name: str, first_seen: dict[bytes, str]
) -> tuple[bool, str]:
    """Whether `load_folder` can use a file, and what is unusual about it."""
    if not is_text(name):
        return False, "its name is no text: rename it"
    if not class_name:
        return False, "in no class folder: passed over"
    if Path(name).suffix.lower() not in PICTURE_SUFFIXES:
        return False, "no picture by its ending: passed over"
    try:
        picture = read_picture(folder / name, upright=True)  # as `load_folder` does
    except SerialLoRAError:
        return False, "cannot be read: replace or delete it"
    digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).digest()
    earlier = first_seen.setdefault(digest, name)
    copied = f"{COPY_OF} {earlier}: keep one, or train and test may share it"
    return True, copied if earlier != name else ""
