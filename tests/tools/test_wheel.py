"""The library as people install it, and the course, which is used from its folder alone."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

from serial_lora_course import __main__ as door
from serial_lora_course import doctor
from tools import ROOT

LIBRARY = ROOT / "serial_lora"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=LIBRARY, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def facts(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_wheel_holds_the_library_whole_and_nothing_else(wheel):
    there = {
        path.relative_to(ROOT).as_posix(): path.stat().st_size
        for path in (*LIBRARY.rglob("*.py"), LIBRARY / "py.typed")
    }
    entries = [entry for entry in wheel.infolist() if ".dist-info/" not in entry.filename]
    assert {entry.filename: entry.file_size for entry in entries} == there
    assert sum(entry.file_size for entry in entries) < 250e3


def test_it_works_without_the_course(wheel, tmp_path):
    command = [sys.executable, ROOT / "tests/tools/readmes_example.py"]
    environment = os.environ | {"PYTHONPATH": wheel.filename}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "The library works.\n"), done.stderr


def test_the_course_asks_for_the_librarys_versions_and_goes_to_no_index():
    ours, course = facts(LIBRARY), facts(ROOT)
    assert sorted(course["dependencies"]) == sorted(ours["dependencies"])
    for extra, needed in ours["optional-dependencies"].items():
        assert course["optional-dependencies"][extra] == needed
    assert "Private :: Do Not Upload" in course["classifiers"]
    asked = {line for extra in course["optional-dependencies"].values() for line in extra}
    asked = {*map(Requirement, asked | {*course["dependencies"]})}
    others = [each.name for each in asked if each.name != course["name"]]
    assert len(others) == len(set(others)), "a package has two bounds, and only one can be tried"


def test_every_place_names_the_same_pythons():
    newest = doctor.NEWEST[1]
    named = [f"3.{minor}" for minor in range(door.OLDEST[1], newest + 1)]
    for project in map(facts, (ROOT, LIBRARY)):
        assert project["requires-python"] == f">={named[0]}"
    classified = [each.rpartition(" ")[2] for each in facts(LIBRARY)["classifiers"]]
    assert [each for each in classified if each.startswith("3.")] == named
    for page in ("README.md", "Makefile"):
        assert f"{named[0]} to {named[-1]}" in (ROOT / page).read_text(encoding="utf-8")
    conda = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert f"python>={named[0]},<3.{newest + 1}" in conda
    for line in re.findall(r"python: \[(.+)\]", (ROOT / ".github/workflows/ci.yml").read_text()):
        assert set(re.findall(r'"(.+?)"', line)) <= set(named)
