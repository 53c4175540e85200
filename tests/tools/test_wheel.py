"""The package as people install it: a wheel that carries everything the code opens."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
ROOT = Path(__file__).parents[2]


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
        path.relative_to(ROOT).as_posix()
        for package in ("serial_lora", "serial_lora_course")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == there


@pytest.mark.parametrize(
    "asset",
    [
        "emoji_subgroups.tsv",
        "paper_tables.json",
        "fewshot/nature.json",
        "weights/tiny-clip.json",
        "weights/tiny-clip.merges.txt.gz",
        "weights/tiny-clip.safetensors",
    ],
)
def test_assets_are_whole(wheel, asset):
    name = f"serial_lora_course/assets/{asset}"
    assert wheel.read(name) == (ROOT / name).read_bytes()


def test_the_command_and_the_licence_are_in_it(wheel):
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "serial-lora = serial_lora_course.cli:main" in wheel.read(entry_points).decode()
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_the_wheel_stays_small_enough_to_hand_round(wheel):
    assert sum(entry.compress_size for entry in wheel.infolist()) < 50e6
