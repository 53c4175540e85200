"""Picture files: read as RGB whatever they are, one by one when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.types import Pictures

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
OTHER_PICTURES = {".heic", ".heif", ".avif", ".jxl", ".jp2", ".dng", ".cr2", ".nef", ".arw", ".svg"}


def picture_files(folder: Path, rows: Sequence[tuple[str, int]], upright: bool = False) -> Pictures:
    """Picture files with labels; each is opened when it is asked for.

    Args:
        rows: (N,) POSIX path below the folder, and class, of each.
        upright: turn pictures as their camera recorded (EXIF); published data sets are taken as
            they are, as everybody else takes them.
    """
    names, labels = [row[0] for row in rows], [row[1] for row in rows]
    paths = [folder / name for name in names]
    return Pictures(names, partial(read_picture, upright=upright), paths, labels)


def read_picture(path: str | os.PathLike[str], upright: bool = False) -> Image.Image:
    """A picture file as RGB, whatever it was: grey, 16-bit, CMYK, palette or transparent.

    Transparency is laid on white; an animation gives its first frame.
    """
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise FileNotFoundError
        with Image.open(path) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened) if upright else opened
            return _to_rgb(picture)
    except FileNotFoundError as error:
        raise SerialLoRAError(
            f"the picture {path} is missing or no file; restore it, or prepare the data set anew."
        ) from error
    except Exception as error:  # decoders raise half a dozen unrelated kinds on damaged files
        raise SerialLoRAError(
            f"the picture {path} cannot be read ({error}); replace the file, or delete it where "
            "the data set is your own."
        ) from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Convert any mode to RGB."""
    if picture.mode == "F":
        lowest, highest = picture.getextrema()
        if not (0 <= lowest and highest <= 255):
            raise ValueError(f"its numbers go from {lowest:g} to {highest:g}, not to 1 or 255")
        picture = picture.point(lambda value: value * (255 if highest <= 1 else 1)).convert("L")
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
