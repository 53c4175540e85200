"""The slider moves without a kernel, over the drawings that were made."""

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from PIL import Image

from serial_lora_course.lessons.l06_sd3.panel import CELL, fade_panel
from tests.browser.browser import needs_browser, open_browser
from tests.browser.lab import open_notebook
from tools.sources import METADATA

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


@needs_browser
def test_the_slider_moves_without_a_kernel_and_the_strips_are_left_without_script_and_style(page):
    bare = re.sub(r'(?s)<style>.*?</style>|oninput="[^"]*"', "", page)
    with open_browser() as browser:
        opened = browser.new_page()
        opened.set_content(page)
        slider, image = opened.get_by_role("slider"), opened.get_by_role("img").first
        left = image.bounding_box()["x"]
        slider.focus()
        for place, said in ((1, "0.5"), (2, "1")):
            slider.press("ArrowRight")
            assert image.bounding_box()["x"] == pytest.approx(left - place * CELL)
            assert opened.locator("output").inner_text() == said
        opened.set_content(bare)
        assert [box.bounding_box()["width"] for box in opened.get_by_role("img").all()] == [24, 24]


LESSON = """
import numpy as np
from serial_lora_course.lessons.l06_sd3.panel import fade_panel
fade_panel([np.full((1, 8, 8, 3), grey, np.uint8) for grey in (0, 250)], (0, 1), ["a cat"])
"""


@pytest.mark.slow
@needs_browser
def test_the_slider_moves_in_jupyterlab_by_keys_and_by_mouse(tmp_path):
    cells = [nbformat.v4.new_code_cell(LESSON), nbformat.v4.new_markdown_cell("below")]
    lesson = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    with open_notebook(tmp_path, lesson) as page:
        panel = page.locator("[data-scales]")
        panel.wait_for()
        slider, image = panel.get_by_role("slider"), panel.get_by_role("img")
        left = image.bounding_box()["x"]
        slider.focus()
        slider.press("ArrowRight")  # JupyterLab itself would take it for the next cell
        assert image.bounding_box()["x"] == pytest.approx(left - CELL)
        box = slider.bounding_box()
        page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
        assert image.bounding_box()["x"] == pytest.approx(left)
        assert panel.locator("output").inner_text() == "0"
