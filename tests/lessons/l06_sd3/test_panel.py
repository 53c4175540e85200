"""The slider moves without a kernel, over the drawings that were made."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from serial_lora_course.lessons.l06_sd3.panel import drawings_panel

SCALES, WORDS = (0.0, 0.5, 1.0), ["a cat", 'a "hat" & more']
GREYS = ((0, 10), (100, 120), (200, 250))  # of each scale's two drawings
GOAL = (60, 180)


@pytest.fixture
def page(capture_display) -> str:
    *strips, goal = (
        np.stack([np.full((8, 8, 3), grey, np.uint8) for grey in drawings])
        for drawings in (*GREYS, GOAL)
    )
    drawings_panel(strips, "scale", SCALES, WORDS, goal)
    return capture_display[-1]["text/html"]


def test_each_prompt_is_one_strip_of_its_drawings_beside_the_goal(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    for place, source in enumerate(found):
        column, alone = divmod(place, 2)
        expected = [GOAL[column]] if alone else [pair[column] for pair in GREYS]
        strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("L"))
        assert strip.shape == (8, 8 * len(expected))
        drawn = [int(strip[4, 8 * frame + 4]) for frame in range(len(expected))]
        assert drawn == pytest.approx(expected, abs=3)
    assert len(found) == 2 * len(WORDS) == page.count("alt=")
    assert "&quot;hat&quot; &amp; more" in page
