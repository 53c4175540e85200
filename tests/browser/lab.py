"""JupyterLab as a learner has it: panels that move, a lesson in a folder."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from serial_lora_course.offline import offline_environment
from tests.browser.browser import free_port, open_browser, run_all

START = 90  # seconds
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
