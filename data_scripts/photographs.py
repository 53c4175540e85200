"""Pack the photographs of things for the course to ship: ``python data_scripts/photographs.py``.

They are stamps of the painting program Tux Paint, photographs that people cut out by hand; Debian's
package tuxpaint-stamps-default brings them. ``photographs.tsv`` lists those that are photographs and
not drawings, each once, chosen by eye, with the name that its maker gave it.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.data.emoji import INDEX, shipped_file
from serial_lora_course.data.photographs import PHOTOGRAPHS
from serial_lora_course.door import enter

LIST = Path(__file__).with_name("photographs.tsv")
PACKAGE = "tuxpaint-stamps-default"
STAMPS = Path("/usr/share/tuxpaint/stamps")
LARGEST = 160  # pixels of the longer side
QUALITY = 85  # of the colours; what is cut out is kept without loss


def main(words: Sequence[str]) -> None:
    """Pack the photographs into serial_lora_course/assets/drawings; there is nothing to choose."""
    path = write_whole(shipped_file(PHOTOGRAPHS), archive())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def archive() -> bytes:
    """A zip file of the photographs, and the index that names them."""
    stream, listed = io.BytesIO(), read_list()
    with zipfile.ZipFile(stream, "w") as packed:
        for row in listed:
            path = STAMPS / f"{row['file']}.png"
            if not path.exists():
                raise SerialLoRAError(f"{path} is not there; install {PACKAGE}.")
            packed.writestr(zipfile.ZipInfo(f"{row['file']}.webp"), encoded(Image.open(path)))
        index = {"made_with": {"pillow": version("pillow")}, "photographs": listed}
        packed.writestr(zipfile.ZipInfo(INDEX), json.dumps(index), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def read_list() -> list[dict[str, str]]:
    """The rows of the list: file, name, class (empty for things of no class)."""
    lines = [line for line in LIST.read_text("utf-8").splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines, delimiter="\t"))


def encoded(picture: Image.Image) -> bytes:
    """A picture cropped to what is cut out, at most LARGEST pixels long, as WebP."""
    picture = picture.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox()).convert("RGBa")
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.convert("RGBA").save(stream, "WEBP", quality=QUALITY, method=6)
    return stream.getvalue()


if __name__ == "__main__":
    enter("photographs", main)
