"""Picture files: RGB whatever they were, and named where they are damaged."""

import numpy as np
import pytest
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import picture_files, read_picture
from tests.data.official import picture_bytes

MODES = "PNG:L PNG:LA PNG:P PNG:RGBA PNG:1 JPEG:CMYK JPEG:L GIF:P TIFF:F PNG:I;16 WEBP:RGBA"


@pytest.mark.parametrize("made", MODES.split())
def test_every_mode_becomes_rgb(tmp_path, made):
    kind, mode = made.split(":")
    values = np.arange(64, dtype=np.uint8).reshape(8, 8)
    grey = Image.fromarray(values).convert("RGB" if mode == "LA" else "L")
    if mode == "I;16":
        picture = Image.fromarray(values.astype(np.uint16) * 257)
    else:
        picture = grey.convert(mode)
    picture.save(tmp_path / "picture", kind)
    read = read_picture(tmp_path / "picture")
    assert read.mode == "RGB" and read.size == (8, 8)
    if kind == "PNG" and mode in ("L", "RGBA", "I;16"):
        assert np.array_equal(np.asarray(read)[:, :, 0], values)


def test_transparency_is_laid_on_white(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("content", [None, b"", b"no picture", picture_bytes(0, 64)[:900]])
def test_a_missing_or_corrupt_picture_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(SerialLoRAError, match=r"the picture .*bad\.jpg (is missing|cannot be)"):
        picture_files(tmp_path, [("bad.jpg", 0)])[0]
