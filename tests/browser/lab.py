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

from serial_lora_course.offline import offline_environment

SECONDS_TO_START = 90
SETTINGS = {
    # Every cell is in the page, in view or not.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@contextmanager
def open_lab(folder: Path, home: Path) -> Iterator[str]:
    """Start JupyterLab over a folder; gives its address, and stops it when the block ends.

    Args:
        folder: where its notebooks lie.
        home: an empty folder for its own files.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    places = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime", "PATH": ""}
    environment = offline_environment() | {"SERIAL_LORA_STATIC": "0"}
    environment |= {f"JUPYTER_{key}": str(home / name) for key, name in places.items()}
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    environment |= {"JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    options = [f"--port={port}", "--no-browser", "--allow-root", "--IdentityProvider.token="]
    log = home / "log"
    with log.open("wb") as written:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=folder,
            env=environment,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/api", server, log)
            yield address
        finally:
            server.terminate()  # and its kernels with it
            server.wait(30)


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
