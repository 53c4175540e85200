"""The panel with JavaScript of its own, moved in JupyterLab by keyboard and by mouse."""

from contextlib import contextmanager

import pytest

from tests.browser.browser import needs_browser
from tests.browser.lab import open_notebook
from tools import ROOT
from tools.sources import find_sources, read_source

pytestmark = [pytest.mark.slow, needs_browser]
MILLISECONDS = 600_000  # until a lesson has run up to its panel
FAILED = "[data-mime-type='application/vnd.jupyter.error']"
PICTURES = "cell => [...cell.querySelectorAll('img')].map(image => image.src).join()"


@contextmanager
def open_panel(folder, number: str, panel: str):
    """Run a lesson up to a panel; gives the panel's cell in the page."""
    (source,) = find_sources(ROOT, [number])
    lesson = read_source(source)
    last = next(n for n, cell in enumerate(lesson.cells) if f"{panel}(" in cell.source)
    lesson.cells = lesson.cells[: last + 1]
    with open_notebook(folder, lesson) as page:
        cell = page.locator(".jp-CodeCell").last
        slider, failed = cell.get_by_role("slider"), page.locator(FAILED)
        slider.or_(failed).first.wait_for(timeout=MILLISECONDS)
        assert not failed.count(), failed.first.inner_text()
        page.wait_for_function(f"cell => ({PICTURES})(cell) !== ''", arg=cell.element_handle())
        yield cell


def changes_the_picture(cell, move) -> None:
    """Move something, and wait until other pictures are shown."""
    before = cell.evaluate(PICTURES)
    move()
    cell.page.wait_for_function(
        f"([cell, before]) => !['', before].includes(({PICTURES})(cell))",
        arg=[cell.element_handle(), before],
    )


def test_masks(tmp_path):
    with open_panel(tmp_path, "05", "mask_panel") as cell:
        mouse = cell.page.mouse

        def draw_a_box(picture):
            picture.scroll_into_view_if_needed()
            box = picture.bounding_box()
            x, y = box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"]
            mouse.move(x, y)
            mouse.down()
            mouse.move(x + 90, y + 70, steps=4)
            mouse.up()

        for picture in cell.locator(".mask-picker-surface").all():
            changes_the_picture(cell, lambda picture=picture: draw_a_box(picture))
        edges = cell.get_by_role("slider").first
        changes_the_picture(cell, lambda: [edges.press("ArrowRight") for _ in range(20)])
        choice = cell.get_by_role("combobox")
        changes_the_picture(cell, lambda: choice.press("ArrowDown"))
