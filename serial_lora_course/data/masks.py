"""Masks in files: pixels that are numbers, and the pictures they belong to.

**Specks.** A mask of less than :data:`LEAST_SHARE` of its picture is left out, and a picture
without any other mask with it: at SAM's input size that is a few cells of the grid on which the
mask decoder draws, too little to measure. Masks that are kept are kept whole.

**Orientation.** Masks lie as they are stored. A picture is turned as its camera recorded (EXIF)
if it fits its mask then, else taken as it is stored; if it fits neither way, it is refused.

Pictures and masks are opened when they are asked for. Which picture holds what is found once, by
opening every mask, and kept in ``masks_serial_lora.json`` beside the data until a mask changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.data.releases import ReleasedPicture
from serial_lora_course.data.types import Pictures, SegmentationExample

#: The smallest mask that counts, as a share of its picture's pixels.
LEAST_SHARE = 1e-4
INDEX_FILE = "masks_serial_lora.json"
BACKGROUND, VOID = 0, 255  # VOID: PASCAL VOC's band round objects, which belongs to nothing
READERS = 8  # masks decoded at a time; Pillow's decoders let other threads run


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


def masked_pictures(
    folder: Path, files: Sequence[ReleasedPicture], wanted: Mapping[int, str]
) -> Pictures:
    """Pictures with the masks of some classes; each is opened when it is asked for.

    Args:
        folder: what the files' paths are relative to.
        files: the pictures, every one with at least one mask to show.
        wanted: number in the masks -> name, of the classes that count.
    """
    names = [file.picture_id for file in files]
    opened = partial(_read_example, folder, dict(wanted))
    return Pictures(names, opened, files, files=partial(_paths, folder))


def _paths(folder: Path, file: ReleasedPicture) -> list[Path]:
    return [folder / name for name in (file.picture_id, *file.masks)]


def _read_example(
    folder: Path, wanted: Mapping[int, str], file: ReleasedPicture
) -> SegmentationExample:
    numbers, labels = read_labels(folder, file)
    kept = [label for label in labels if counts(label, wanted)]
    if not kept:
        raise SerialLoRAError(
            f"{folder / file.masks[0]} does not show {' or '.join(wanted.values())} "
            "any more; the file was changed, so load the data set anew."
        )
    height, width = numbers.shape
    picture = _picture_of_size(folder / file.picture_id, (width, height))
    masks = np.stack([numbers == label.number for label in kept])
    names = tuple(wanted[label.class_number] for label in kept)
    return SegmentationExample(picture, masks, names, file.picture_id)


def counts(label: Label, wanted: Mapping[int, str]) -> bool:
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


def read_labels(folder: Path, file: ReleasedPicture) -> tuple[np.ndarray, list[Label]]:
    """A picture's numbers, uint8 (H, W), and what those that occur stand for.

    Raises:
        SerialLoRAError: a mask is missing, cannot be read, or is no mask.
    """
    classes, *numbered = (_read_mask(folder / path) for path in file.masks)
    if not numbered:
        shares = _shares(classes)
        return np.asarray(classes), [Label(n, n, share) for n, share in shares.items()]
    (objects,) = numbered
    if objects.size != classes.size:
        raise SerialLoRAError(
            f"{folder / file.masks[1]} is not of the same size as {folder / file.masks[0]}; "
            "restore both from the official archive."
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


def find_labels(
    folder: Path, files: Sequence[ReleasedPicture], title: str
) -> dict[ReleasedPicture, list[Label]]:
    """What each picture holds, from the index beside the data where no mask was changed since.

    Raises:
        SerialLoRAError: a mask cannot be read; the index is as it was.
    """
    path, stamp = folder / INDEX_FILE, _stamp(folder, files)
    try:
        index = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        index = None
    if not isinstance(index, dict) or index.get("stamp") != stamp:
        with ThreadPoolExecutor(READERS) as readers:
            opened = readers.map(lambda file: read_labels(folder, file)[1], files)
            labels = list(tqdm(opened, f"reading the masks of {title}, once", len(files)))
        index = {"stamp": stamp, "labels": labels}
        with suppress(OSError):  # a shared, read-only data folder: they are opened again next time
            write_whole(path, json.dumps(index).encode())
    return {
        file: [Label(*label) for label in labels]
        for file, labels in zip(files, index["labels"], strict=True)
    }


def _stamp(folder: Path, files: Sequence[ReleasedPicture]) -> str:
    """SHA-256 over the name, size and time of change of every mask."""
    digest = hashlib.sha256()
    for name in (mask for file in files for mask in file.masks):
        state = os.stat(folder / name)
        digest.update(f"{name}\t{state.st_size}\t{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
