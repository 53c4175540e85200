"""The container: its steps read as shell, and done in a folder of this machine, as Docker is not here."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.test_environment_and_makefile import project  # noqa: F401  (a fixture)
from tools import ROOT

DOCKERFILE = ROOT / "classroom" / "Dockerfile"
DEVCONTAINER = ROOT / ".devcontainer" / "devcontainer.json"
TEXT = DOCKERFILE.read_text("utf-8").replace("\\\n", " ")
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.+)$", TEXT, re.MULTILINE)
OF_THE_SYSTEM = ("apt-get", "npm", "useradd", "chown")  # what changes more than a folder
FOLDERS = ("/srv/", "/home/", "/var/")  # of the container, which lie in the test's own here


def test_the_steps_are_sound_shell_and_name_what_is_there(tmp_path, project):  # noqa: F811
    steps = [step for word, step in INSTRUCTIONS if word == "RUN"]
    script = tmp_path / "steps.sh"
    script.write_text("#!/bin/sh\nset -eu\n" + "\n".join(steps) + "\n")
    subprocess.run(["sh", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)
    (extras,) = re.findall(r'pip install .*"\.\[(.+)\]"', TEXT)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert (ROOT / json.loads(dict(INSTRUCTIONS)["CMD"])[-1]).is_file()
    build = json.loads(DEVCONTAINER.read_text("utf-8"))["build"]
    assert (DEVCONTAINER.parent / build["dockerfile"]).resolve() == DOCKERFILE
    assert (DEVCONTAINER.parent / build["context"]).resolve() == ROOT


def copied(folder: Path) -> None:
    """The checkout as it would be sent to Docker."""
    left_out = (ROOT / ".dockerignore").read_text("utf-8").split()
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)


def as_here(command: str) -> str | None:
    """A command of a step as it is tried here; None for what a test may not do to a machine."""
    if not command.startswith(OF_THE_SYSTEM):
        return command
    if not command.startswith("apt-get install") or shutil.which("apt-get") is None:
        return None
    return command.replace("install", "install --simulate", 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the container's steps are Linux's")
def test_the_steps_give_an_environment_in_which_a_lesson_runs(tmp_path):
    """Takes as long as pip does to install all that a class needs, from the index of this machine."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)
    home, place = tmp_path / "home" / "learner", tmp_path
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = kept | {
        "PATH": f"{tmp_path}/python/bin:{os.environ['PATH']}",
        "HOME": str(home),  # also pip's cache
    }
    home.mkdir(parents=True)  # by useradd

    def run(command: str) -> None:
        there = re.sub("|".join(FOLDERS), lambda found: f"{tmp_path}{found[0]}", command)
        done = subprocess.run(
            ["sh", "-ec", there], cwd=place, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{there}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    for word, step in INSTRUCTIONS:
        if word == "WORKDIR":
            place = tmp_path / step.strip("/")
            place.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            assert step == ". ."
            copied(place)
        elif word == "RUN":
            for command in map(as_here, re.split(r"\s*&&\s*", step)):
                if command is not None:
                    run(command)
        else:
            assert word in {"FROM", "ARG", "USER", "EXPOSE", "CMD"}, word
    assert place == home  # where the container starts
    program, *_, notebook = json.loads(dict(INSTRUCTIONS)["CMD"])
    assert shutil.which(program, path=environment["PATH"]).startswith(str(tmp_path))
    after = json.loads(DEVCONTAINER.read_text("utf-8")).get("postCreateCommand", "true")
    for command in (after, "serial-lora doctor", f"jupyter execute {notebook}"):
        run(command)
