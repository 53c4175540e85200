"""A stored figure is shown and described by JupyterLab, which does not trust the notebook."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from serial_lora_course.lessons.l02_count.figures import plot_counts
from serial_lora_course.plots.style import display_figure
from tests.browser.browser import needs_browser, open_browser
from tests.browser.lab import open_lab


@needs_browser
@pytest.mark.slow
def test_a_figure_keeps_its_words_in_a_notebook_that_is_not_trusted(tmp_path, capture_display):
    display_figure(plot_counts({'"a" <model>': (8, 2)}))
    markup = {"text/html": "<script>window.ran = true</script>"}
    shown = [new_output("display_data", data=data) for data in (*capture_display, markup)]
    (tmp_path / "class").mkdir()
    notebook = new_notebook(cells=[new_code_cell("...", outputs=shown)])
    nbformat.write(notebook, tmp_path / "class" / "lesson.ipynb")
    with open_lab(tmp_path / "class", tmp_path / "home") as address, open_browser() as browser:
        page = browser.new_page()
        page.goto(f"{address}/lab/tree/lesson.ipynb")
        image = page.locator(".jp-OutputArea img")
        assert '"a" <model>: LoRA 8' in image.get_attribute("alt", timeout=60_000)
        assert image.evaluate("image => image.naturalWidth") > 100
        assert page.evaluate("window.ran") is None
