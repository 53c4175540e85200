"""What all tests share. They run without a network: only addresses of this machine can be reached."""

import gc
import os

import pytest
from IPython.core.formatters import DisplayFormatter

from serial_lora_course.offline import block_network
from tests.data_scripts.official_archives import ARCHIVES, FOOD_PASSWORD, WebServer
from tests.doors import HOSTILE

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the hub's client says so at once, without retries
os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # numbers are compared with a CPU's
block_network()
gc.disable()  # until everything is imported


def pytest_collection_finish():
    """Look no more through what was imported, a million objects, whenever garbage is collected."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter):
    """How many hostile inputs were tried, after a run that tried some."""
    reports = terminalreporter.getreports("passed")
    tried = sum(dict(report.user_properties).get(HOSTILE, 0) for report in reports)
    if tried:
        terminalreporter.write_line(f"{tried:,} {HOSTILE}: no traceback, no byte lost")


@pytest.fixture
def run(capsys):
    """Run the command line; exit code, what it printed, what it complained of."""
    from serial_lora_course import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(word) for word in arguments])
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def capture_display(monkeypatch):
    """Collect what IPython would show, as a list of MIME dictionaries."""
    shown = []

    def display(*objects, raw=False, **_):
        for item in objects:
            shown.append(item if raw else DisplayFormatter().format(item)[0])

    monkeypatch.setattr("IPython.display.display", display)
    return shown


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

    from data_scripts.fetching.sources import archive_folder, prepare

    root = tmp_path_factory.mktemp("prepared")
    for name, files in official_archives.items():
        source = import_module(f"data_scripts.{name}").SOURCE
        folder = archive_folder(source, root)
        folder.mkdir(parents=True)
        for file_name, content in files.items():
            (folder / file_name).write_bytes(content)  # put there by hand
        prepare(source, root, other_archives=True, password=FOOD_PASSWORD, progress=False)
    return root
