"""Pack the course into one folder that installs without a network: ``python -m tools.bundle DIR``.

The folder is the course as in a clone, and the wheels of all that it needs. Wheels fit one system
and one Python version, so it is for machines like the one that packed it.
pip takes PyTorch's CUDA build on Linux, 3 GB of it: for machines without a card, pack with
``PIP_EXTRA_INDEX_URL`` in the environment, set to the address that pytorch.org/get-started shows for "CPU".
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora_course.door import enter
from tools import ROOT

START = """\
# Serial LoRA, from scratch: everything for a machine without a network

You need Python {version} on {system} ({machine}), nothing else. Copy this folder to your disk: the
course is used from where it lies. There, in a terminal:

    python{version} -m venv venv
    venv/bin/python -m pip install --isolated --no-index --find-links wheels -e ".[course]"
    venv/bin/serial-lora doctor
    venv/bin/serial-lora open

On Windows it is `py -{version}` and `venv/Scripts`.
"""
PACKED = ("serial_lora", "serial_lora_course", "notebooks", "solutions", "docs", "classroom")


def pack(root: Path, folder: Path) -> None:
    """Build the bundle of a checkout, and move it to its place when it is whole."""
    if folder.exists():
        raise SerialLoRAError(f"{folder} is there already: remove it, or choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bundle-") as name:
        new = Path(name, folder.name)
        collect_wheels(root, new / "wheels")
        unwanted = shutil.ignore_patterns(".*", "__pycache__", "runs")
        for part in PACKED:
            shutil.copytree(root / part, new / part, ignore=unwanted)
        for page in (*root.glob("*.md"), root / "LICENSE", root / "pyproject.toml"):
            shutil.copyfile(page, new / page.name)
        facts = {"system": platform.system(), "machine": platform.machine()}
        version = "{}.{}".format(*sys.version_info[:2])
        (new / "START_HERE.md").write_text(START.format(version=version, **facts), "utf-8")
        new.rename(folder)


def collect_wheels(root: Path, folder: Path) -> None:
    """Let pip fetch the wheels of all that the course needs, and of what installs it."""
    run_pip("wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(root))
    (course,) = folder.glob("serial_lora_course-*.whl")  # says what it needs, and goes
    wanted = [f"{course}[course]", "hatchling>=1.27", "editables"]
    run_pip("download", "--only-binary=:all:", "-d", str(folder), *wanted)
    course.unlink()


def run_pip(*words: str) -> None:
    """Run pip of this Python."""
    if subprocess.run([sys.executable, "-m", "pip", "-q", *words]).returncode:
        raise SerialLoRAError(f"pip {words[0]} failed; nothing was packed.")


def main(arguments: list[str] | None = None) -> None:
    """Pack.

    Raises:
        SerialLoRAError: it did not work.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.bundle", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the bundle goes")
    folder = parser.parse_args(arguments).folder.absolute()
    pack(ROOT, folder)
    print(f"{folder}: START_HERE.md says how to install it.")


if __name__ == "__main__":
    enter("tools.bundle", main)
