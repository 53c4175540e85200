"""JupyterLab as a learner has it: panels that move, a lesson in a folder."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from serial_lora_course.offline import offline_environment
from tests.browser.browser import open_browser

START = 90  # seconds
SETTINGS = {
    # Every cell is in the page, in view or not.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@contextmanager
def open_lab(home: Path) -> Iterator[str]:
    """Start JupyterLab over a folder, of which "home" is for its own files; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    own, log = home / "home", home / "log"
    for name, values in SETTINGS.items():
        file = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime", "PATH": ""}
    environment = offline_environment() | {"SERIAL_LORA_STATIC": "0"}
    environment |= {f"JUPYTER_{key}": str(own / name) for key, name in places.items()}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings")}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces")}
    options = [
        f"--port={address[-5:]}",
        "--no-browser",
        "--allow-root",
        "--IdentityProvider.token=",
    ]
    command, until = [sys.executable, "-m", "jupyterlab", *options], time.monotonic() + START
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, cwd=home, env=environment, stdout=out, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            while not _answers(f"{address}/api"):
                assert time.monotonic() < until and server.poll() is None, log.read_text()[-2000:]
                time.sleep(0.1)
            yield address
        finally:
            server.terminate()  # and its kernels with it


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def open_notebook(home: Path, notebook: NotebookNode) -> Iterator:
    """The page of a notebook in JupyterLab, as a learner has it, whose cells are being run."""
    nbformat.write(notebook, home / "lesson.ipynb")
    with open_lab(home) as address, open_browser() as browser:
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(180_000)
        page.goto(f"{address}/lab/tree/lesson.ipynb")
        page.get_by_text("| Idle").first.wait_for()  # else JupyterLab would ask for a kernel
        for name in ("Run", "Run All Cells"):
            page.get_by_role("menuitem", name=name, exact=True).click()
        yield page
