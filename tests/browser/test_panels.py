"""The panel with JavaScript of its own, moved in JupyterLab by keyboard and by mouse."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from serial_lora_course.offline import offline_environment
from tests.browser.browser import free_port, needs_browser, open_browser, run_all
from tools import ROOT
from tools.sources import find_sources, read_source

pytestmark = [pytest.mark.slow, needs_browser]
START = 90  # seconds
MILLISECONDS = 600_000  # until a lesson has run up to its panel
FAILED = "[data-mime-type='application/vnd.jupyter.error']"
PICTURES = "cell => [...cell.querySelectorAll('img')].map(image => image.src).join()"
SETTINGS = {
    # Every cell is in the page, in view or not.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@contextmanager
def open_notebook(home: Path, notebook: NotebookNode) -> Iterator:
    """The page of a notebook in JupyterLab, as a learner has it, whose cells are being run.

    Args:
        home: a folder for the notebook, and for JupyterLab's own files.
    """
    nbformat.write(notebook, home / "lesson.ipynb")
    own, log, port = home / "home", home / "log", free_port()
    for name, values in SETTINGS.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime", "PATH": ""}
    environment = offline_environment() | {"SERIAL_LORA_STATIC": "0"}
    environment |= {f"JUPYTER_{key}": str(own / name) for key, name in places.items()}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings")}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces")}
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", "--no-browser"]
    command += ["--allow-root", "--IdentityProvider.token="]
    until = time.monotonic() + START
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=out, stderr=out)
    try:
        while "is running at" not in log.read_text():
            assert time.monotonic() < until and server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)
        with open_browser() as browser:
            page = browser.new_page(viewport={"width": 1300, "height": 1000})
            page.set_default_timeout(180_000)
            page.goto(f"http://127.0.0.1:{port}/lab/tree/lesson.ipynb")
            page.get_by_text("| Idle").first.wait_for()  # else JupyterLab would ask for a kernel
            run_all(page)
            yield page
    finally:
        server.terminate()  # and its kernels with it
        server.wait()


def changes_the_picture(cell, move) -> None:
    """Move something, and wait until other pictures are shown."""
    before = cell.evaluate(PICTURES)
    move()
    cell.page.wait_for_function(
        f"([cell, before]) => !['', before].includes(({PICTURES})(cell))",
        arg=[cell.element_handle(), before],
    )


def test_masks_follow_the_box_that_is_dragged_and_the_keys(tmp_path):
    (source,) = find_sources(ROOT, ["05"])
    lesson = read_source(source)
    last = next(n for n, cell in enumerate(lesson.cells) if "mask_panel(" in cell.source)
    lesson.cells = lesson.cells[: last + 1]
    with open_notebook(tmp_path, lesson) as page:
        cell, mouse = page.locator(".jp-CodeCell").last, page.mouse
        failed = page.locator(FAILED)
        cell.get_by_role("slider").or_(failed).first.wait_for(timeout=MILLISECONDS)
        assert not failed.count(), failed.first.inner_text()
        page.wait_for_function(f"cell => ({PICTURES})(cell) !== ''", arg=cell.element_handle())

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
