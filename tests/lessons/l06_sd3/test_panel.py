"""The slider moves without a kernel, over the drawings that were made."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from serial_lora_course.lessons.l06_sd3.panel import fade_panel

SCALES, WORDS = (0.0, 0.5, 1.0), ["a cat", 'a "hat" & more']
GREYS = ((0, 10), (100, 120), (200, 250))  # of each scale's two drawings


@pytest.fixture
def page(capture_display) -> str:
    strips = [
        np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in drawings]) for drawings in GREYS
    ]
    fade_panel(strips, SCALES, WORDS)
    return capture_display[-1]["text/html"]


def test_each_prompt_is_one_strip_of_its_drawings(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    for column, source in enumerate(found):
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("L"))
        assert strip.shape == (8, 24)
        drawn = [int(strip[4, 8 * place + 4]) for place in range(3)]
        assert drawn == pytest.approx([pair[column] for pair in GREYS], abs=3)
    assert len(found) == len(WORDS) == page.count("alt=")
    assert "&quot;hat&quot; &amp; more" in page
