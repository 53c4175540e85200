"""The script that draws the emoji: what it draws is what the course ships, pixel for pixel."""

import io
import json
import zipfile
from importlib.metadata import PackageNotFoundError, version

import pytest
from PIL import Image

from serial_lora_course.data.emoji import INDEX, STYLES, emoji_concepts, shipped_file

drawings = pytest.importorskip("data_scripts.drawings", reason="it needs the extra 'draw'")


def drawer(style):
    """The style's drawer; skips where its package is not installed, or in another version."""
    with zipfile.ZipFile(shipped_file(style)) as shipped:
        made_with = json.loads(shipped.read(INDEX))["made_with"]
    package = drawings.PACKAGES[style][1]
    try:
        if version(package) != made_with[package]:
            pytest.skip(f"the drawings were made with {package} {made_with[package]}")
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    return drawings.drawer(style)


@pytest.mark.parametrize("style", STYLES)
def test_shipped_drawings_are_what_the_packages_draw(style):
    draw = drawer(style)
    with zipfile.ZipFile(shipped_file(style)) as shipped:
        index = json.loads(shipped.read(INDEX))
        for concept in emoji_concepts()[::20]:
            picture = draw(concept.codepoints)
            assert (picture is None) == (concept.codepoints not in index["drawn"])
            if picture is not None:
                sheet, *box = index["places"][index["drawn"][concept.codepoints]]
                stored = Image.open(io.BytesIO(shipped.read(sheet))).crop(box)
                expected = picture.crop(picture.getbbox())
                assert stored.convert("RGBA").tobytes() == expected.tobytes()
