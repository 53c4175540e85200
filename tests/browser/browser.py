"""The system's Chromium, driven by Playwright: for tests that need a real page.

Playwright would bring a browser of its own by a download; the one that is installed does as well. It
finds no address beyond this machine, as the rest of the tests do.
"""

import importlib.util
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium on the PATH, and `pip install playwright`",
)
THIS_MACHINE_ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


@contextmanager
def open_browser() -> Iterator:
    """A Playwright browser without a window; it is closed when the `with` block ends."""
    from playwright.sync_api import sync_playwright  # an optional package

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[THIS_MACHINE_ALONE, "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_all(page) -> None:
    """Run all cells of the notebook that JupyterLab shows."""
    for name in ("Run", "Run All Cells"):
        page.get_by_role("menuitem", name=name, exact=True).click()
