"""The set-up cell of every lesson, on pretended machines."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tools import ROOT
from tools.setup_cell import SETUP_CELL, setup_cell


def run_setup(monkeypatch, folder, installed: bool, address: str = "") -> list[list[str]]:
    """Execute the set-up cell in a folder of a pretended machine; the commands that it gives."""
    commands: list[list[str]] = []

    def run(command, check):
        commands.append(command)
        if command[0] == "git":
            (folder / command[-1] / "notebooks").mkdir(parents=True)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    exec(setup_cell(address), {})
    return commands


@pytest.fixture
def notebooks(tmp_path):
    """The folder of the notebooks in a checkout."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"), "utf-8")
    (tmp_path / "notebooks").mkdir()
    return tmp_path / "notebooks"


def test_setup_cell_does_nothing_where_the_course_is_installed(monkeypatch, notebooks):
    assert run_setup(monkeypatch, notebooks, installed=True) == []
    assert list(notebooks.iterdir()) == []


def test_setup_cell_installs_the_course_around_it_and_freezes_torch_and_numpy(
    monkeypatch, notebooks
):
    (command,) = run_setup(monkeypatch, notebooks, installed=False)
    assert command[-1] == "..[course]" and command[1:4] == ["-m", "pip", "install"]
    lines = (notebooks / "already_installed.txt").read_text().splitlines()
    assert f"torch=={version('torch')}" in lines
    assert f"numpy=={version('numpy')}" in lines
    assert all("==" in line or ">=" in line for line in lines)
    assert not any("+" in line for line in lines if ">=" in line)


@pytest.mark.parametrize("beside", [None, '[project]\nname = "another"\n'])
def test_setup_cell_installs_nothing_that_only_bears_our_name(monkeypatch, tmp_path, beside):
    folder = tmp_path / "anywhere"
    folder.mkdir()
    if beside is not None:
        (tmp_path / "pyproject.toml").write_text(beside, "utf-8")
    with pytest.raises(FileNotFoundError, match="whole folder"):
        run_setup(monkeypatch, folder, installed=False)
    assert list(folder.iterdir()) == []


def test_a_learners_notebook_fetches_the_course_where_it_has_an_address(monkeypatch, tmp_path):
    fetch, install = run_setup(monkeypatch, tmp_path, installed=False, address="https://a.b/c")
    assert fetch[:2] == ["git", "clone"] and "https://a.b/c" in fetch
    assert Path.cwd() == tmp_path / "course" / "notebooks" and install[-1] == "..[course]"
    assert setup_cell("") == SETUP_CELL
