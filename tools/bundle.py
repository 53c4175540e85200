"""Pack the course into one folder that installs on a machine without a network.

::

    make bundle                                       # or: python -m tools.bundle DIR
    make bundle-check                                 # or: ... bundle --check DIR

The folder holds the wheels of the course and of all that it needs (the tiny models' weights lie in
the course's own), the drawings of every style, the notebooks, and ``install.py``. Wheels fit one
system and one Python version, so the folder is for machines like the one that packed it. pip finds
wheels where it is told to by its own settings: an index, or a folder named in ``PIP_FIND_LINKS``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora_course.offline import offline_environment
from tools import ROOT, install_bundle
from tools.install_bundle import FACTS, SUMS, sha256, this_python

PAGES = (
    "README.md",
    "INSTRUCTORS.md",
    "GLOSSARY.md",
    "CLAIMS.md",
    "DATA_LICENSES.md",
    "LICENSE",
)
FOLDERS = ("notebooks", "solutions", "docs")
START = """\
# Serial LoRA, from scratch: everything for a machine without a network

You need Python {python} on {system} ({machine}), nothing else. In this folder:

    python3 install.py                  # into ./venv; a few minutes
    {jupyter} lab notebooks/00_start_here.ipynb

`python3 install.py --venv PLACE` installs elsewhere. The folder may be read-only then: copy
`notebooks/` and `solutions/` to where you work. On Windows say `py` for `python3`.
"""


def pack(root: Path, folder: Path) -> Path:
    """Build the folder beside its final place and move it there when it is whole.

    Args:
        root: the checkout.
        folder: where the bundle goes; an older bundle there is replaced.

    Raises:
        SerialLoRAError: something else is there, pip failed, or the disk is full.
    """
    folder = folder.absolute()
    if folder.exists() and not (folder / FACTS).is_file():
        raise SerialLoRAError(f"{folder} is there already and is no bundle: choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".bundle-") as name:
        new = Path(name) / folder.name
        new.mkdir()
        try:
            collect_wheels(root, new / "wheels")
            collect_data(new / "data")
            collect_course(root, new)
            write_facts(new)
        except OSError as error:
            raise SerialLoRAError(f"The bundle cannot be written ({error}).") from error
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    return folder


def collect_wheels(root: Path, folder: Path) -> None:
    """Build the course's wheel and let pip fetch the wheels of all that it needs."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(root)])
    (course,) = folder.glob("serial_lora-*.whl")
    _run([*pip, "download", "-q", "--only-binary=:all:", "-d", str(folder), f"{course}[course]"])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()[-8:]
        raise SerialLoRAError("\n".join([f"pip could not {command[4]} what is needed:", *lines]))


def collect_data(folder: Path) -> None:
    """The drawings of every style, in one archive: they are large and compress well."""
    from serial_lora_course.data.download import data_root
    from serial_lora_course.data.emoji import STYLES, load_emoji

    for style in STYLES:
        load_emoji(style)  # draws what has not been drawn yet
    folder.mkdir()
    shutil.make_archive(str(folder / "emoji"), "zip", data_root() / "emoji")


def collect_course(root: Path, folder: Path) -> None:
    """Notebooks, solved notebooks, and the pages that are read beside them."""
    unwanted = shutil.ignore_patterns("*.py", ".*", "__pycache__", "runs")
    for name in FOLDERS:
        shutil.copytree(root / name, folder / name, ignore=unwanted)
    for name in PAGES:
        shutil.copyfile(root / name, folder / name)
    shutil.copyfile(install_bundle.__file__, folder / "install.py")


def write_facts(folder: Path) -> None:
    """What the bundle is for, how to use it, and a checksum of every file."""
    facts = this_python()
    jupyter = r"venv\Scripts\jupyter" if os.name == "nt" else "venv/bin/jupyter"
    start = START.format(jupyter=jupyter, **facts)
    (folder / "START_HERE.md").write_text(start, encoding="utf-8")
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}" for path in files]
    (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------
# Trying it


def check(folder: Path) -> None:
    """Install the bundle into a new environment, offline; run the doctor and lesson 00 there.

    Raises:
        SerialLoRAError: a step failed; the message shows the end of what it printed.
    """
    folder = folder.absolute()
    with tempfile.TemporaryDirectory(prefix="bundle-check-") as name:
        place = Path(name)
        venv = place / "venv"
        environment = offline_environment(_bare_environment())
        environment |= {"HOME": str(place), "SERIAL_LORA_DATA": str(place / "data")}
        isolated = _without_network()
        shutil.copytree(folder / "notebooks", place / "notebooks")
        programs = venv / ("Scripts" if os.name == "nt" else "bin")
        steps = {
            "installing": [sys.executable, str(folder / "install.py"), "--venv", str(venv)],
            "the doctor": [str(programs / "serial-lora"), "doctor"],
            "lesson 00": [
                str(programs / "jupyter"),
                "execute",
                str(place / "notebooks/00_start_here.ipynb"),
            ],
        }
        for title, command in steps.items():
            done = subprocess.run(
                [*isolated, *command],
                env=environment,
                cwd=place,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                end = (done.stdout + done.stderr).strip().splitlines()[-15:]
                raise SerialLoRAError("\n".join([f"{folder}: {title} failed:", *end]))
            print(f"{title}: done", flush=True)


def _bare_environment() -> dict[str, str]:
    """What programs need to start, and nothing that could lead to this very environment."""
    kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _without_network() -> list[str]:
    """A command that takes the network away from the one behind it, where the system has one."""
    command = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None:
        return []
    # The loopback device is down in a new network, and a kernel talks to its client through it.
    script = 'ip link set lo up 2>/dev/null; exec "$@"'
    within = [*command, "sh", "-c", script, "sh"]
    tried = subprocess.run([*within, sys.executable, "-c", _LOOPBACK], capture_output=True)
    return within if tried.returncode == 0 else []


_LOOPBACK = (
    "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    "socket.create_connection(s.getsockname()).close()"
)


def size(folder: Path) -> int:
    """Bytes of all files below the folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str] | None = None) -> int:
    """Pack, or check what was packed; 0 when it worked, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bundle", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="where the bundle goes, or lies")
    parser.add_argument("--check", action="store_true", help="install it offline and try it")
    options = parser.parse_args(arguments)
    try:
        if options.check:
            check(options.folder)
        else:
            folder = pack(ROOT, options.folder)
            print(f"{folder}: {size(folder) / 1e6:.0f} MB; START_HERE.md says how to install it.")
    except SerialLoRAError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
