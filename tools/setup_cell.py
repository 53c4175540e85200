"""The first code cell of every lesson, written once here and repeated word for word in each.

It runs before the package is there, so it can import nothing of ours. On a hosted machine (Colab,
Kaggle) it installs what is missing; torch, torchvision and NumPy stay exactly as the machine has
them, and nothing else is ever downgraded, because a hosted image is a set of versions that fit one
another. Anywhere else it does nothing. What it installs is the course's folder around the notebook:
the course is on no package index, and a package of its name there would be somebody else's.
"""

SETUP_CELL = """\
# Colab and Kaggle: install what is missing, downgrade nothing. Elsewhere: nothing happens here.
import os
import subprocess
import sys
from importlib import metadata, util

hosted = "COLAB_RELEASE_TAG" in os.environ or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
if hosted and util.find_spec("serial_lora_course") is None:
    if not os.path.isfile("../pyproject.toml"):
        raise FileNotFoundError("Bring the course's whole folder, and open its notebooks/ here.")
    frozen = ("torch", "torchvision", "torchaudio", "numpy")
    with open("already_installed.txt", "w") as constraints:
        for name, version in {(d.metadata["Name"], d.version) for d in metadata.distributions()}:
            keep = f"=={version}" if name in frozen else f">={version.split('+')[0]}"
            print(f"{name}{keep}", file=constraints)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "already_installed.txt"]
    subprocess.run([*pip, "..[course]"], check=True)"""
