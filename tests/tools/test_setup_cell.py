"""The set-up cell of every lesson, on pretended machines."""

import subprocess
from importlib.metadata import version

import pytest

from tools.setup_cell import SETUP_CELL


class SetupRun:
    """Executes the set-up cell with a pretended machine, and keeps the pip command it gives."""

    def __init__(self, monkeypatch, tmp_path, environment: dict, installed: bool):
        monkeypatch.chdir(tmp_path)
        for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        self.commands: list[list[str]] = []
        monkeypatch.setattr(subprocess, "run", lambda command, check: self.commands.append(command))
        monkeypatch.setattr(
            "importlib.util.find_spec", lambda name: object() if installed else None
        )
        exec(SETUP_CELL, {})


@pytest.mark.parametrize(
    ("environment", "installed"),
    [({}, False), ({}, True), ({"COLAB_RELEASE_TAG": "r"}, True)],
)
def test_setup_cell_does_nothing_when_nothing_is_missing(
    monkeypatch, tmp_path, environment, installed
):
    assert SetupRun(monkeypatch, tmp_path, environment, installed).commands == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"])
def test_setup_cell_installs_the_course_around_it_and_freezes_torch_and_numpy(
    monkeypatch, tmp_path, variable
):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "notebooks").mkdir()
    run = SetupRun(monkeypatch, tmp_path / "notebooks", {variable: "1"}, installed=False)
    assert [command[-1] for command in run.commands] == ["..[course]"]
    lines = (tmp_path / "notebooks" / "already_installed.txt").read_text().splitlines()
    assert f"torch=={version('torch')}" in lines
    assert f"numpy=={version('numpy')}" in lines
    assert all("==" in line or ">=" in line for line in lines)
    assert not any("+" in line for line in lines if ">=" in line)


def test_setup_cell_installs_nothing_that_only_bears_our_name(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="whole folder"):
        SetupRun(monkeypatch, tmp_path, {"COLAB_RELEASE_TAG": "1"}, installed=False)
    assert list(tmp_path.iterdir()) == []
