"""The site, built once for all processes of a test run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The folder of the built site, with what Sphinx found fault with in ``faults.txt``. Read only."""
    for package in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(package, reason='the site needs pip install -e ".[site]"')
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "faults.txt").is_file():
            command = [sys.executable, "-m", "sphinx", "-q", "-c", "site", ".", str(folder)]
            built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert built.returncode == 0, built.stderr
            (folder / "faults.txt").write_text(built.stderr, "utf-8")
    return folder
