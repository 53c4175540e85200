"""What all tests share. They run without a network: only addresses of this machine can be reached."""

import os
from functools import partial

import pytest
import torch
from IPython.core.formatters import DisplayFormatter

import serial_lora_course.offline.sitecustomize  # noqa: F401  (blocks the network)
from tests.data import official
from tests.doors import through_the_door

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the hub's client says so at once, without retries
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # numbers are compared with a CPU's
torch.set_num_threads(1)  # and bit by bit, where more threads would add in another order


@pytest.fixture
def run():
    """Run the command line; exit code, what it printed, what it complained of."""
    from serial_lora_course import cli

    return partial(through_the_door, cli.command)


@pytest.fixture
def capture_display(monkeypatch):
    """Collect what IPython would show, as a list of MIME dictionaries."""
    shown = []

    def display(*objects, raw=False, **_):
        for item in objects:
            shown.append(item if raw else DisplayFormatter().format(item)[0])

    monkeypatch.setattr("IPython.display.display", display)
    return shown


@pytest.fixture(scope="session")
def prepared_root(tmp_path_factory):
    """A data root with a small copy of every data set of the paper. Read only."""
    root = tmp_path_factory.mktemp("prepared")
    for name in official.OFFICIAL:
        official.write(root, name)
    return root


@pytest.fixture(scope="session")
def registered_clip(tmp_path_factory):
    """A small model that open_clip knows by a name: the name, and a file of random weights."""
    from tests.labs.lab_models import register_small, weights_file

    folder = tmp_path_factory.mktemp("clip")
    name = register_small(folder / "configs", "small-registered-clip")
    return name, weights_file(folder / "weights.safetensors", name)
