"""The script that draws the emoji: what it draws is what the course ships, pixel for pixel."""

import io
import json
import zipfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import pytest
from PIL import Image

from serial_lora_course.data.emoji import INDEX, STYLES, emoji_concepts, shipped_file

drawings = pytest.importorskip("data_scripts.drawings", reason="it needs the extra 'draw'")


@pytest.mark.parametrize("style", STYLES)
def test_shipped_drawings_are_what_the_packages_draw(style):
    package, installed = drawings.PACKAGES[style][1], None
    with suppress(PackageNotFoundError):
        installed = version(package)
    with zipfile.ZipFile(shipped_file(style)) as shipped:
        index = json.loads(shipped.read(INDEX))
        if installed != index["made_with"][package]:
            pytest.skip(f"drawn with {package} {index['made_with'][package]}")
        draw = drawings.drawer(style)
        for concept in emoji_concepts()[::20]:
            picture = draw(concept.codepoints)
            assert (picture is None) == (concept.codepoints not in index["drawn"])
            if picture is not None:
                sheet, *box = index["places"][index["drawn"][concept.codepoints]]
                stored = Image.open(io.BytesIO(shipped.read(sheet))).crop(box)
                expected = picture.crop(picture.getbbox())
                assert stored.convert("RGBA").tobytes() == expected.tobytes()
