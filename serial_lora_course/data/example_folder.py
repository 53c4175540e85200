"""A folder of class folders to try on what is meant for one's own, made of photographs of things."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folder import ORIENTATION
from serial_lora_course.data.photographs import on_white, photographed_things
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.files import expanded, refusals_told

SIZE = 112  # pixels
ARTICLE = re.compile("^(an?|the) ")


@refusals_told()
def write_example_folder(path: str | os.PathLike[str], flawed: bool = False) -> Path:
    """A folder of class folders, filled with photographs that no model here was pretrained on.

    A file is called after what it shows: of two photographs of zebras one is ``zebra 1.png`` and the other
    ``zebra 2.png``, so that a split can keep them together.

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
    shown: Counter[tuple[str, str]] = Counter()
    for thing in photographed_things():
        if not thing.kind:
            continue
        class_name, name = _file_name(thing.kind), _file_name(thing.name)
        shown[class_name, name] += 1
        file = folder / class_name / f"{name} {shown[class_name, name]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        on_white(SIZE, thing.file).save(file)
    if flawed:
        _spoil_birds(folder / "bird")
        _spoil_flowers(folder / "flower")
        (folder / "landscape").mkdir()
        alone = sorted((folder / "tool").iterdir())[0]
        alone.rename(folder / "landscape" / alone.name)
    return folder


def _file_name(words: str) -> str:
    """What is said of a thing, as a name for files: "a bunch of grapes" is ``bunch_of_grapes``."""
    return re.sub(r"[^a-z0-9]+", "_", ARTICLE.sub("", words.lower())).strip("_")


def _spoil_birds(folder: Path) -> None:
    """Make one grey, copy one under another name, and cut one off in the middle."""
    grey, copied, cut = sorted(folder.iterdir())[:3]
    read_picture(grey).convert("L").save(grey)
    (folder / f"copy_of_{copied.name}").write_bytes(copied.read_bytes())
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])


def _spoil_flowers(folder: Path) -> None:
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
    (folder / "notes.txt").write_text("taken on Sunday\n")
