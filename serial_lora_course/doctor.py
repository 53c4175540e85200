"""Is this machine ready for the course? What is wrong, each with its remedy, and little where nothing is.

Each ``look_at_...`` function yields what it finds wrong; :func:`doctor` asks them all.

    NOTE  fine for the tiny scale, worth knowing
    FAIL  something in the course will not work; the line below says what to do
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import serial_lora_course

WEIGHTS = Path(__file__).resolve().parent / "assets" / "weights"
OLDEST_TORCH = (2, 4)
MEMORY_GB, DISK_GB, PAPER_DISK_GB = 3, 1, 30
# Import names whose failure would stop a lesson in the middle (compiled extensions, above all).
IMPORTED = ("torchvision", "open_clip", "segment_anything", "accelerate", "skimage", "sklearn")
IMPORTED += ("matplotlib", "ipywidgets", "anywidget")
PIP = "python -m pip install"
COURSE = f'{PIP} -e ".[course]" in the course\'s folder'


class Problem(NamedTuple):
    """Something that is wrong (``level`` FAIL) or worth knowing (NOTE), and what to do about it."""

    level: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.level}  {self.what}\n      -> {self.remedy}"


@dataclass(frozen=True)
class Report:
    """What this machine is, in one line, and what is wrong with it."""

    machine: str
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether everything the tiny scale needs is here."""
        return all(each.level != "FAIL" for each in self.problems)

    def __str__(self) -> str:
        wrong = sum(each.level == "FAIL" for each in self.problems)
        verdict = (
            f"To mend before you start: {wrong}."
            if wrong
            else "Ready: `serial-lora open` opens the lessons."
        )
        return "\n".join([self.machine, *map(str, self.problems), verdict])


def doctor() -> Report:
    """Look at everything."""
    found = [*look_at_torch()]
    there = "torch" in sys.modules
    found += look_at_gpu() if there else ()
    found += look_at_packages("serial-lora")
    for name in IMPORTED:
        found += look_at_import(name)
    found += look_at_weights()
    if all(
        each.level != "FAIL" for each in found
    ):  # else a package for one of these may be missing
        import psutil

        from serial_lora_course.data.releases import data_root

        found += look_at_memory(psutil.virtual_memory().available / 1e9)
        found += look_at_disk(data_root())
    return Report(_machine(there), tuple(found))


def _machine(torch_there: bool) -> str:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if not torch_there:
        return python
    torch = sys.modules["torch"]
    device = f"CPU with {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        free = max(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())) / 1e9
        device = f"CUDA, {torch.cuda.get_device_name()}, {free:.1f} GB free"
    elif torch.backends.mps.is_available():
        device = "MPS"
    return f"{python}, PyTorch {torch.__version__}, {device}"


def look_at_torch(in_time: bool = serial_lora_course.SETTLED_IN_TIME) -> Iterator[Problem]:
    """Can PyTorch be imported, is it new enough, does it compute, and do its idle threads sleep?"""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build raises OSError, a missing one ImportError
        yield Problem("FAIL", f"PyTorch: {type(error).__name__}: {error}", f'{PIP} "torch>=2.4"')
        return
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        remedy = f'{PIP} --upgrade "torch>=2.4"'
        yield Problem("FAIL", f"PyTorch {torch.__version__} is too old", remedy)
    elif (torch.eye(2) @ torch.tensor([[1.0], [2.0]])).flatten().tolist() != [1.0, 2.0]:
        yield Problem("FAIL", "a product of PyTorch's is wrong", f"{PIP} --force-reinstall torch")
    if not in_time:
        remedy = "import serial_lora_course before torch: it matters beside other busy programs"
        yield Problem("NOTE", "PyTorch was loaded first, and its idle threads stay busy", remedy)


def look_at_gpu() -> Iterator[Problem]:
    """Is there a GPU that PyTorch cannot use?"""
    torch = importlib.import_module("torch")
    there = torch.cuda.is_available() or torch.backends.mps.is_available()
    if not there and shutil.which("nvidia-smi"):
        remedy = "pytorch.org/get-started names the PyTorch build for your driver"
        yield Problem("NOTE", "an NVIDIA driver is here, and PyTorch cannot use it", remedy)


def look_at_memory(free_gb: float) -> Iterator[Problem]:
    """Is enough memory free for the largest tiny lesson?"""
    if free_gb < MEMORY_GB:
        what = f"{free_gb:.1f} GB of memory are free, and a lesson needs up to {MEMORY_GB}"
        yield Problem("FAIL", what, "close other programs, and shut down other notebooks' kernels")


def look_at_disk(folder: Path) -> Iterator[Problem]:
    """Is there room for the tiny data, and for the paper's?"""
    while not os.path.exists(folder):  # Path.exists raises where it may not look
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    what = f"{free_gb:.1f} GB of disk are free where data are kept"
    if free_gb < DISK_GB:
        yield Problem("FAIL", what, "free some, or name another folder in SERIAL_LORA_DATA")
    elif free_gb < PAPER_DISK_GB:
        yield Problem("NOTE", what, f"enough for tiny; the paper's want about {PAPER_DISK_GB} GB")


def look_at_packages(of: str) -> Iterator[Problem]:
    """Is everything that a package and its course require installed, in a version that fits?"""
    # Here, so that a machine without this package reaches the questions before it.
    from packaging.requirements import Requirement

    try:
        required = metadata.requires(of) or []
    except metadata.PackageNotFoundError:
        yield Problem("NOTE", f"{of} is not installed, only imported", COURSE)
        required = []
    for each in map(Requirement, required):
        if each.marker is not None and not each.marker.evaluate({"extra": "course"}):
            continue
        wanted = f'{PIP} --upgrade "{each.name}{each.specifier}"'
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            yield Problem("FAIL", f"{each.name} is missing", wanted)
            continue
        if not each.specifier.contains(version, prereleases=True):
            yield Problem("FAIL", f"{each.name} {version} is not {each.specifier}", wanted)


def look_at_import(name: str) -> Iterator[Problem]:
    """Does a package that is there import?"""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken extension raises
        what = f"import {name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        yield Problem("FAIL", what, f"{PIP} --force-reinstall the package with {name}")


def look_at_weights(folder: Path = WEIGHTS) -> Iterator[Problem]:
    """Did the tiny models' weights come with the package: a file or a folder beside each card?"""
    names = [card.name.removesuffix(".card.json") for card in folder.glob("*.card.json")]
    missing = [
        name
        for name in sorted(names)
        if not (folder / f"{name}.safetensors").is_file()
        and not any((folder / name).rglob("*.safetensors"))
    ]
    if missing or not names:
        what = f"weights of tiny models are missing: {', '.join(missing) or 'all'}"
        yield Problem("FAIL", what, f"{COURSE}, with --force-reinstall")
