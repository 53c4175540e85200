"""Pack the course into one folder that installs on a machine without a network.

::

    python -m tools.bundle DIR            # make bundle: pack
    python -m tools.bundle DIR --check    # make bundle-check: do what its START_HERE.md says, offline

The folder holds the wheels of the course and of all that it needs (the tiny models' weights lie in
the course's own), the notebooks, and the pages beside them. Wheels fit one system and one Python
version, so the folder is for machines like the one that packed it. pip finds wheels where it is told
to by its own settings: an index, or a folder named in ``PIP_FIND_LINKS``.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pooch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.door import enter
from serial_lora_course.offline import offline_environment
from tools import ROOT

PAGES = (
    "README.md",
    "serial_lora_course/assets/serial_vs_lora.svg",  # the README's picture
    "INSTRUCTORS.md",
    "CONTRIBUTING.md",
    "GLOSSARY.md",
    "CLAIMS.md",
    "DATA_LICENSES.md",
    "LICENSE",
)
FOLDERS = ("notebooks", "solutions", "docs", "classroom", "cluster")
SUMS, START_HERE = "SHA256SUMS", "START_HERE.md"
WINDOWS = os.name == "nt"
START = """\
# Serial LoRA, from scratch: everything for a machine without a network

You need Python {version} on {system} ({machine}), nothing else. In this folder, in a terminal{shell}:

    {python} -m venv venv
    {programs}/python -m pip install --isolated --no-index --find-links wheels "serial-lora[course]"
    {programs}/serial-lora doctor
    {programs}/serial-lora open

The folder may be read-only: copy `notebooks/` and `solutions/` to where you work, go there, and say
where `wheels` lies. `sha256sum --check SHA256SUMS` (on macOS `shasum -a 256 -c SHA256SUMS`) names
every file that did not arrive as it was packed. Links to sources, tests and benchmarks lead nowhere here:
those lie in the course's repository.
"""


def pack(root: Path, folder: Path) -> None:
    """Build the folder beside its final place and move it there when it is whole.

    Args:
        root: the checkout.
        folder: where the bundle goes; an older bundle there is replaced.

    Raises:
        SerialLoRAError: something else is there, pip failed, or the disk is full.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / SUMS).is_file():
        raise SerialLoRAError(f"{folder} is there already and is no bundle: choose another folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bundle-") as name:
            new = Path(name) / folder.name
            collect_wheels(root, new / "wheels")
            unwanted = shutil.ignore_patterns("[0-9]*.py", ".*", "__pycache__", "runs")
            for part in FOLDERS:
                shutil.copytree(root / part, new / part, ignore=unwanted)
            for page in PAGES:
                (new / page).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / page, new / page)
            (new / START_HERE).write_text(start_here(), encoding="utf-8")
            files = sorted(path for path in new.rglob("*") if path.is_file())
            lines = [
                f"{pooch.file_hash(str(path))}  {path.relative_to(new).as_posix()}\n"
                for path in files
            ]
            (new / SUMS).write_text("".join(lines), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            new.rename(folder)
    except OSError as error:
        raise SerialLoRAError(f"The bundle cannot be written ({error}).") from error


def start_here() -> str:
    """The page that says how to install on a machine like this one."""
    version = "{}.{}".format(*sys.version_info[:2])
    return START.format(
        version=version,
        system=platform.system(),
        machine=platform.machine(),
        shell=" (PowerShell)" if WINDOWS else "",
        python=f"py -{version}" if WINDOWS else f"python{version}",
        programs="venv/Scripts" if WINDOWS else "venv/bin",
    )


def collect_wheels(root: Path, folder: Path) -> None:
    """Build the course's wheel and let pip fetch the wheels of all that it needs."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(root)]
    run("building the wheel", [*pip, *build])
    (course,) = folder.glob("serial_lora-*.whl")
    fetch = ["download", "-q", "--only-binary=:all:", "-d", str(folder), f"{course}[course]"]
    run("fetching wheels", [*pip, *fetch])


def check(folder: Path) -> None:
    """Do what START_HERE.md says in a new place, offline, then run lesson 00 there.

    Raises:
        SerialLoRAError: a step failed; the message shows the end of what it printed.
    """
    folder = folder.absolute()
    text = (folder / START_HERE).read_text(encoding="utf-8")
    make, install, doctor, _ = [
        shlex.split(line) for line in text.splitlines() if line.startswith("    ")
    ]
    make = [sys.executable, *make[make.index("-m") :]]
    install[install.index("wheels")] = str(folder / "wheels")
    lesson = [f"{Path(doctor[0]).parent}/jupyter-execute", "notebooks/00_start_here.ipynb"]
    # What programs need to start, and nothing that could lead to this very environment.
    kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
    bare = {name: os.environ[name] for name in kept if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="bundle-check-") as place:
        home = {"HOME": place, "USERPROFILE": place, "SERIAL_LORA_DATA": str(Path(place) / "data")}
        shutil.copytree(folder / "notebooks", Path(place) / "notebooks")
        for command in (make, install, doctor, lesson):
            run(shlex.join(command), command, cwd=place, env=offline_environment(bare) | home)
            print(f"{shlex.join(command)}: done", flush=True)


def run(what: str, command: list[str], **options) -> None:
    """Run a command quietly; the end of what it printed is the message where it fails."""
    if place := options.get("cwd"):  # where programs are looked for, with Windows' endings too
        command = [shutil.which(str(Path(place) / command[0])) or command[0], *command[1:]]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise SerialLoRAError("\n".join([f"{what} failed:", *lines]))


def main(arguments: list[str] | None = None) -> None:
    """Pack, or check what was packed.

    Raises:
        SerialLoRAError: it did not work.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tools.bundle", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="where the bundle goes, or lies")
    parser.add_argument("--check", action="store_true", help="install it offline and try it")
    options = parser.parse_args(arguments)
    if options.check:
        check(options.folder)
    else:
        pack(ROOT, options.folder)
        size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
        print(f"{options.folder}: {size / 1e6:.0f} MB; {START_HERE} says how to install it.")


if __name__ == "__main__":
    enter("tools.bundle", main, one_line=False)
