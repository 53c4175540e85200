"""A folder of class folders to try on what is meant for one's own, made of photographs of things."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.photographs import on_white, photographed_things
from serial_lora_course.files import expanded, refusals_told

SIZE = 112  # pixels
ARTICLE = re.compile("^(an?|the) ")


@refusals_told()
def write_example_folder(path: str | os.PathLike[str]) -> Path:
    """A folder of class folders, filled with photographs that no model here was pretrained on.

    A file is called after what it shows: of two photographs of zebras one is ``zebra 1.png`` and the other
    ``zebra 2.png``, so that a split can keep them together.

    Args:
        path: the folder to make; it must be empty or not there yet.

    Returns:
        The folder.
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
    return folder


def _file_name(words: str) -> str:
    """What is said of a thing, as a name for files: "a bunch of grapes" is ``bunch_of_grapes``."""
    return re.sub(r"[^a-z0-9]+", "_", ARTICLE.sub("", words.lower())).strip("_")
