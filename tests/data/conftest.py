"""What the tests of the data share."""

import pytest
from official_archives import ARCHIVES, FOOD_PASSWORD, WebServer


@pytest.fixture
def server(monkeypatch):
    """A web server on localhost that serves what a test puts in."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with WebServer() as running:
        yield running


@pytest.fixture(scope="session")
def official_archives():
    """Data set name -> file name -> bytes, built once."""
    return {name: build() for name, build in ARCHIVES.items()}


@pytest.fixture(scope="session")
def prepared_root(official_archives, tmp_path_factory):
    """A data root with every paper data set prepared from the small archives. Read only."""
    from importlib import import_module

    from serial_lora.data.sources import archive_folder, prepare

    root = tmp_path_factory.mktemp("prepared")
    for name, files in official_archives.items():
        source = import_module(f"data_scripts.{name}").SOURCE
        folder = archive_folder(source, root)
        folder.mkdir(parents=True)
        for file_name, content in files.items():
            (folder / file_name).write_bytes(content)  # put there by hand
        prepare(source, root, other_archives=True, password=FOOD_PASSWORD, progress=False)
    return root
