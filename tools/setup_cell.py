"""The first code cell of every lesson, written once here and repeated word for word in each.

It runs before the package is there, so it can import nothing of ours. Where the package is missing it
installs the course's folder around the notebook, and nothing else: the course is on no package index,
and a package of its name there would be somebody else's. Without that folder it says in one sentence
what to get, or, in a learner's notebook of a course that has a public address, gets it from there, as
Colab needs. torch, torchvision and NumPy stay exactly as the machine has them, and nothing else is ever
downgraded, because a hosted image (Colab, Kaggle) is a set of versions that fit one another.
"""

SETUP_CELL = """\
# Where the course is missing, its folder around this notebook is installed; nothing is downgraded.
import os
import subprocess
import sys
from importlib import metadata, util

if util.find_spec("serial_lora_course") is None:
    project = "../pyproject.toml"
    if not os.path.isfile(project) or b'name = "serial-lora"' not in open(project, "rb").read():
        raise FileNotFoundError("Get the course's whole folder, and open this in its notebooks/.")
    frozen = ("torch", "torchvision", "torchaudio", "numpy")
    with open("already_installed.txt", "w") as constraints:
        for name, version in {(d.metadata["Name"], d.version) for d in metadata.distributions()}:
            keep = f"=={version}" if name in frozen else f">={version.split('+')[0]}"
            print(f"{name}{keep}", file=constraints)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "already_installed.txt"]
    subprocess.run([*pip, "..[course]"], check=True)"""

MISSING = (
    'raise FileNotFoundError("Get the course\'s whole folder, and open this in its notebooks/.")'
)
FETCHED = """\
subprocess.run(["git", "clone", "--depth", "1", "{address}", "course"], check=True)
        os.chdir("course/notebooks")"""


def setup_cell(address: str) -> str:
    """The set-up cell of a learner's notebook, given the course's public address or no address."""
    if not address:
        return SETUP_CELL
    return SETUP_CELL.replace(MISSING, FETCHED.format(address=address))
