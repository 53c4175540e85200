"""The site, built once for all processes of a test run."""

import os
import warnings

import pytest
from filelock import FileLock

from tools import ROOT, site


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The folder of the built site. Read only."""
    for package in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(package, reason='the site needs pip install -e ".[site]"')
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "notebooks").is_dir():  # what is written last
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what Sphinx's next version will drop
                site.build(ROOT, folder)
    return folder
