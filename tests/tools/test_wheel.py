"""The package as people install it: a wheel that carries both packages whole, and the solved lessons."""

import subprocess
import sys
import zipfile

import pytest

from tools import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_every_file_of_both_packages_and_no_other(wheel):
    there = {
        path.relative_to(ROOT).as_posix(): path.stat().st_size
        for package in ("serial_lora", "serial_lora_course")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for source in (ROOT / "solutions").glob("*.py"):  # what stands in for an open exercise
        there[f"serial_lora_course/solved/{source.name}"] = source.stat().st_size
    entries = [entry for entry in wheel.infolist() if ".dist-info/" not in entry.filename]
    assert {entry.filename: entry.file_size for entry in entries} == there
    assert sum(entry.compress_size for entry in entries) < 50e6


def test_it_depends_on_little_has_the_command_and_the_licence(wheel):
    texts = {
        name.rpartition("/")[2]: wheel.read(name).decode()
        for name in wheel.namelist()
        if ".dist-info/" in name
    }
    required = [line for line in texts["METADATA"].splitlines() if line.startswith("Requires-Dist")]
    bare = [line.split()[1].partition(">")[0] for line in required if "extra ==" not in line]
    assert sorted(bare) == ["numpy", "safetensors", "torch"]
    assert "serial-lora = serial_lora_course.__main__:main" in texts["entry_points.txt"]
    assert "LICENSE" in texts
