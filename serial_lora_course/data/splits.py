"""Dividing a published data set into train, validation and test: CoOp's list, or a rule.

The rule: within a class, pictures are ordered by a hash of their name (see
:mod:`serial_lora_course.data.subsets`), so the split is the same on every machine. It is written
once, with the SHA-256 of its list, and read from there afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import clean_name
from serial_lora_course.data.releases import ReleasedPicture
from serial_lora_course.data.subsets import hash_order
from serial_lora_course.files import write_json

SPLIT_SEED = 1
TRAIN_SHARE, VALIDATION_SHARE = 0.5, 0.2  # CoOp's, where a data set has no official split
SPLIT_FILE = "split_serial_lora.json"
SPLIT_FORMAT = "serial-lora split 1"

#: Part ("train", "val", "test", CoOp's words) -> rows of picture id, label, class name.
Split = dict[str, list[tuple[str, int, str]]]


def make_split(listed: Sequence[ReleasedPicture], validation_share: float, seed: int) -> Split:
    """Divide pictures into train, validation and test, class by class.

    Pictures with an official part stay in it, except that ``validation_share`` of the official
    training pictures of a class becomes validation. Pictures without one are divided 50/20/30
    with CoOp's counts: ``round(n * 0.5)`` train, ``round(n * 0.2)`` validation, the rest test.

    Raises:
        SerialLoRAError: a class is too small to have a training and a test picture.
    """
    classes: dict[str, dict[str | None, list[str]]] = {}
    for row in listed:
        classes.setdefault(row.text, {}).setdefault(row.part, []).append(row.picture_id)
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


def _sorted_classes(listed: Iterable[ReleasedPicture]) -> list[str]:
    """Class names in the order of the folders that hold them (labels as in CoOp's files)."""
    folder_of: dict[str, str] = {}
    for row in listed:
        folder_of.setdefault(row.text, PurePosixPath(row.picture_id).parts[0])
    return sorted(folder_of, key=lambda name: (folder_of[name], name))


def split_sha256(split: Split) -> str:
    """SHA-256 of a split's list of pictures."""
    digest = hashlib.sha256()
    for part in ("train", "val", "test"):
        for picture_id, label, class_name in split[part]:
            digest.update(f"{part}\t{picture_id}\t{label}\t{class_name}\n".encode())
    return digest.hexdigest()


def keep_split(path: Path, split: Split, origin: str) -> None:
    content = {"format": SPLIT_FORMAT, "rule": origin, "sha256": split_sha256(split)}
    try:
        write_json(path, {**content, **split})
    except OSError:
        return  # a shared, read-only data folder: the same split will come out next time too


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


def class_names_of(split: Split, source: Path) -> list[str]:
    """The name of each class, by its label.

    Raises:
        SerialLoRAError: a class has two names, or a number is left out.
    """
    named = {(y, clean_name(text)) for rows in split.values() for _, y, text in rows}
    names = dict(sorted(named))
    if len(names) != len(named) or list(names) != list(range(len(names))):
        raise SerialLoRAError(
            f"the split file in {source} leaves out class numbers, or calls a class by two names; "
            "get the file from its official source."
        )
    return list(names.values())
