"""A look into a folder of one's own pictures, before anything is trained; and one to try it on.

    facts = examine_folder("my_pictures")       # one row a file
    facts[facts["remark"] != ""]                # what is unusual, and what will be done about it
    data = load_folder("my_pictures")           # serial_lora_course.data.classification

`load_folder` refuses what cannot be used. This says the same for every file at once, and also what
is used after a silent conversion, or is there twice.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import pandas as pd
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification import PICTURE_SUFFIXES, given_division, read_picture
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.emoji_sets import unseen_drawings

COLUMNS = ("class", "file", "mode", "width", "height", "usable", "remark")
COPY_OF = "the same picture as"
ORIENTATION = 0x0112  # the EXIF tag in which a camera says how it was held


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
        SerialLoRAError: there is no such folder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise SerialLoRAError(f"there is no folder at {folder}; give one sub-folder per class.")
    divided = given_division(folder) is not None
    first_seen: dict[str, str] = {}  # digest of the pixels -> file
    rows = [
        _row(folder, name, _class_of(name, divided), first_seen) for name in _visible_files(folder)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        ["class", "file"], ignore_index=True
    )


def class_sizes(facts: pd.DataFrame) -> pd.DataFrame:
    """What `examine_folder` found, by class: files, usable pictures, and whether they suffice.

    ``usable`` counts each picture once, however many copies there are.
    """
    rows = {}
    for name, files in facts[facts["class"] != ""].groupby("class", sort=True):
        copies = files["remark"].str.contains(COPY_OF).sum()
        usable = int(files["usable"].sum() - copies)
        rows[name] = {"files": len(files), "usable": usable, "remark": _too_few(usable)}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["files", "usable", "remark"])


def _too_few(pictures: int) -> str:
    if pictures >= 2:
        return ""
    return f"{pictures or 'no'} picture: one to train and one to test are the least"


def _visible_files(folder: Path) -> list[str]:
    """Files as POSIX paths, in order."""
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(
        name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)
    )


def _class_of(name: str, divided: bool) -> str:
    """The class folder that a file lies in, "" if in none; "_..." is none to `load_folder`."""
    folders = name.split("/")[:-1][: 1 + divided]
    passed_over = len(folders) <= divided or any(folder[0] == "_" for folder in folders)
    return "" if passed_over else folders[-1]


def _row(folder: Path, name: str, class_name: str, first_seen: dict[str, str]) -> tuple:
    if not class_name:
        return class_name, name, "", 0, 0, False, "in no class folder: passed over"
    if Path(name).suffix.lower() not in PICTURE_SUFFIXES:
        return class_name, name, "", 0, 0, False, "no picture by its ending: passed over"
    try:
        picture = read_picture(folder / name, upright=True)  # as `load_folder` does
        with Image.open(folder / name) as opened:
            mode, remarks = opened.mode, _remarks(opened)
    except SerialLoRAError:
        return class_name, name, "", 0, 0, False, "cannot be read: replace or delete it"
    digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
    earlier = first_seen.setdefault(digest, name)
    if earlier != name:
        remarks.append(f"{COPY_OF} {earlier}: keep one, or train and test may share it")
    return class_name, name, mode, *picture.size, True, "; ".join(remarks)


def _remarks(picture: Image.Image) -> list[str]:
    """What `read_picture` will do to this picture, beyond opening it."""
    remarks = []
    transparent = "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA")
    if transparent and picture.convert("RGBA").getextrema()[3][0] < 255:
        remarks.append("transparent: laid on white")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        remarks.append("16-bit grey: brought to 8 bits, three equal channels")
    elif picture.mode in ("1", "L", "LA"):
        remarks.append("grey: three equal channels")
    elif picture.mode in ("P", "PA"):
        remarks.append("palette: its colours are looked up")
    elif picture.mode not in ("RGB", "RGBA"):
        remarks.append(f"{picture.mode}: converted to RGB")
    if getattr(picture, "n_frames", 1) > 1:
        remarks.append("animation: its first picture is used")
    if picture.getexif().get(ORIENTATION, 1) != 1:
        remarks.append("held sideways: turned upright")
    return remarks


# ------------------------------------------------------------------------------ one to try it on

#: Class folder -> Unicode groups or subgroups whose drawings go into it.
EXAMPLE_CLASSES = {
    "animal": (
        "animal-mammal",
        "animal-bird",
        "animal-bug",
        "animal-marine",
        "animal-reptile",
    ),
    "building": ("place-building", "place-religious"),
    "clothing": ("clothing",),
    "food": ("Food & Drink",),
    "sports_equipment": ("sport",),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
    "weather": ("sky & weather",),
}
LARGEST = 40  # pictures of a class


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
        SerialLoRAError: the folder holds something already.
    """
    folder = Path(path).expanduser()
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
            file = folder / class_name / f"{_file_name(concept.name)}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            emoji.picture(index).save(file)
    if flawed:
        _spoil_animals(folder / "animal")
        _spoil_food(folder / "food")
        (folder / "landscape").mkdir()
        alone = sorted((folder / "weather").iterdir())[0]
        alone.rename(folder / "landscape" / alone.name)
    return folder


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


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
