"""A folder of class folders to try on what is meant for one's own, made of drawings."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.emoji_sets import unseen_drawings
from serial_lora_course.data.folder import ORIENTATION
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.files import expanded, refusals_told

#: Class folder -> Unicode groups or subgroups whose drawings go into it.
EXAMPLE_CLASSES = {
    "animal": ("animal-mammal", "animal-bird", "animal-bug", "animal-marine", "animal-reptile"),
    "building": ("place-building", "place-religious"),
    "clothing": ("clothing",),
    "food": ("Food & Drink",),
    "sports_equipment": ("sport",),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
    "weather": ("sky & weather",),
}
LARGEST = 40  # pictures of a class


@refusals_told()
def write_example_folder(path: str | os.PathLike[str], flawed: bool = False) -> Path:
    """A folder of class folders, filled with OpenMoji drawings that no pretraining here has seen.

    Args:
        path: the folder to make; it must be empty or not there yet.
        flawed: spoil it as real folders are spoilt: a picture that was cut off while it was
            copied, a grey, a palette and a transparent one, one of a camera held sideways, a copy
            under another name, a text file, and a class with a single picture.

    Returns:
        The folder.

    Raises:
        SerialLoRAError: the folder holds something already, or cannot be written.
    """
    folder = expanded(path)
    if folder.is_dir() and any(folder.iterdir()):
        raise SerialLoRAError(f"{folder} is not empty; choose a new folder.")
    emoji, used = load_emoji("openmoji"), Counter()
    unseen = unseen_drawings(emoji)
    for index in sorted(unseen, key=lambda position: emoji.concepts[position].codepoints):
        concept = emoji.concepts[index]
        for class_name, parts in EXAMPLE_CLASSES.items():
            if {concept.group, concept.subgroup}.isdisjoint(parts) or used[class_name] == LARGEST:
                continue
            used[class_name] += 1
            name = re.sub(r"[^a-z0-9]+", "_", concept.name.lower()).strip("_")
            file = folder / class_name / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            emoji.picture(index).save(file)
    if flawed:
        _spoil_animals(folder / "animal")
        _spoil_food(folder / "food")
        (folder / "landscape").mkdir()
        alone = sorted((folder / "weather").iterdir())[0]
        alone.rename(folder / "landscape" / alone.name)
    return folder


def _spoil_animals(folder: Path) -> None:
    """Make one grey, copy one under another name, and cut one off in the middle."""
    grey, copied, cut = sorted(folder.iterdir())[:3]
    read_picture(grey).convert("L").save(grey)
    (folder / f"copy_of_{copied.name}").write_bytes(copied.read_bytes())
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])


def _spoil_food(folder: Path) -> None:
    """Make one a palette picture, one transparent, one lie on its side; add a file of notes."""
    palette, clear, turned = sorted(folder.iterdir())[:3]
    read_picture(palette).quantize(32).save(palette)
    picture = read_picture(clear)
    picture.putalpha(picture.convert("L").point(lambda value: 255 * (value < 250)))
    picture.save(clear)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera lay on its side
    on_its_side = read_picture(turned).transpose(Image.Transpose.ROTATE_90)
    on_its_side.save(turned.with_suffix(".jpg"), exif=exif, quality=95)
    turned.unlink()
    (folder / "notes.txt").write_text("drawn on Sunday\n")
