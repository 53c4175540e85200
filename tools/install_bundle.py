"""Install the course from this folder; no network is asked for.

    python3 install.py                  into ./venv
    python3 install.py --venv PLACE     elsewhere

Every file is compared with its checksum first, so a copy that went wrong on the way is told.
"""

# This file lies in a bundle as install.py and uses the standard library alone.

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

FACTS, SUMS = "bundle.json", "SHA256SUMS"
PUT_DATA = """
import shutil, sys
from serial_lora_course.data.download import data_root
place = data_root() / "emoji"
if not place.exists():
    shutil.unpack_archive(sys.argv[1], place)
"""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def wrong_files(folder: Path) -> list:
    """Files of the bundle that are missing or not what was packed."""
    wrong = []
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            wrong.append(name)
    return wrong


def this_python() -> dict:
    """What wheels have to fit: the version of Python, the system, and the machine."""
    return {
        "python": "{}.{}".format(*sys.version_info[:2]),
        "system": platform.system(),
        "machine": platform.machine(),
    }


def misfit(folder: Path) -> str:
    """Why the wheels do not fit this Python; empty when they do."""
    wanted, here = json.loads((folder / FACTS).read_text(encoding="utf-8")), this_python()
    if here == wanted:
        return ""
    text = "Python {python} on {system} ({machine})"
    return f"This bundle is for {text.format(**wanted)}, and this is {text.format(**here)}."


def install(folder: Path, venv: Path) -> None:
    """Make the environment and put everything into it."""
    programs = venv / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / ("python.exe" if os.name == "nt" else "python"))
    # pip's own settings could name an index, or hold versions back: none of them counts here.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    clean["PIP_CONFIG_FILE"] = os.devnull
    steps = [
        [sys.executable, "-m", "venv", str(venv)],
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-index",
            "--find-links",
            str(folder / "wheels"),
            "serial-lora[course]",
        ],
        [python, "-m", "ipykernel", "install", "--sys-prefix", "--name", "python3"],
        [python, "-c", PUT_DATA, str(folder / "data" / "emoji.zip")],
    ]
    for step in steps:  # in this folder, since Python finds packages where it is started
        subprocess.run(step, check=True, env=clean, cwd=folder)


def main() -> int:
    """0 when all is installed, 1 with one sentence when it is not."""
    folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Install the course from this folder, offline.")
    parser.add_argument("--venv", type=Path, default=folder / "venv", help="where to install")
    options = parser.parse_args()
    problem = misfit(folder)
    wrong = [] if problem else wrong_files(folder)
    if wrong:
        problem = f"Copy this folder again: {', '.join(wrong[:5])} did not arrive as packed."
    elif not problem and options.venv.exists():
        problem = f"{options.venv} is there already: remove it, or say another with --venv."
    if problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"Installing into {options.venv}; this takes a few minutes.", flush=True)
    try:
        install(folder, options.venv.absolute())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"Installing failed: {error}", file=sys.stderr)
        return 1
    print("Done. START_HERE.md says how to open the first lesson.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
