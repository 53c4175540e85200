"""Is this machine ready for the course? One line a question, and the remedy where it is not.

Each ``check_...`` function answers one question with a :class:`Diagnosis`; :func:`doctor` runs them
all and returns a :class:`Report`. ``serial-lora doctor`` prints it and exits with 1 when something
fails.

    [OK]    all is well
    [NOTE]  fine for the tiny scale, worth knowing
    [FAIL]  something in the course will not work; the line below says what to do
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

ASSETS = Path(__file__).resolve().parent / "assets"
OLDEST_PYTHON = (3, 10)
OLDEST_TORCH = (2, 4)
TINY_MEMORY_GB = 3.0
TINY_DISK_GB = 1.0
PAPER_DISK_GB = 30.0
# Cards of the paper scale, in GB of free memory, with what fits each. A card sold as 16 GB has
# less than 16 free, so a tier is reached at nine tenths of its name.
TIERS = ((24, "CLIP, SAM and SD3"), (16, "CLIP and SAM"), (8, "CLIP"))
TIER_MARGIN = 0.9
LINE_WIDTH = 100
PIP = "python -m pip install"


@dataclass(frozen=True)
class Diagnosis:
    """The answer to one question: ``status`` is OK, NOTE or FAIL; ``remedy`` says what to do."""

    status: str
    question: str
    answer: str
    remedy: str = ""

    def __str__(self) -> str:
        line = _wrapped(f"{'[' + self.status + ']':<7} {self.question}: {self.answer}")
        return f"{line}\n{_wrapped('        -> ' + self.remedy)}" if self.remedy else line


def _wrapped(text: str) -> str:
    """Long lines, such as all packages with their versions, continue under the first word."""
    return textwrap.fill(
        text, LINE_WIDTH, subsequent_indent=" " * 8, break_on_hyphens=False, break_long_words=False
    )


@dataclass
class Report:
    """All diagnoses, in order. ``ok`` is True when none is a FAIL; ``scale`` is what fits here."""

    diagnoses: list[Diagnosis] = field(default_factory=list)
    scale: str = "tiny"

    @property
    def ok(self) -> bool:
        """Whether everything the tiny scale needs is here."""
        return all(diagnosis.status != "FAIL" for diagnosis in self.diagnoses)

    def __str__(self) -> str:
        failures = sum(diagnosis.status == "FAIL" for diagnosis in self.diagnoses)
        verdict = (
            "Ready: open a lesson with `make lab`."
            if self.ok
            else f"{failures} thing{'s' if failures > 1 else ''} to mend before you start."
        )
        return "\n".join([*map(str, self.diagnoses), verdict])


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Diagnosis:
    """Python 3.10 or newer."""
    text = ".".join(map(str, version))
    if version >= OLDEST_PYTHON:
        return Diagnosis("OK", "Python", f"{text} on {platform.system()} {platform.machine()}")
    return Diagnosis(
        "FAIL", "Python", text, "install Python 3.10 or newer and make a new environment with it"
    )


def check_torch() -> Diagnosis:
    """PyTorch can be imported, is new enough, and computes a matrix product."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build raises OSError, a missing one ImportError
        return Diagnosis(
            "FAIL", "PyTorch", f"{type(error).__name__}: {error}", f'{PIP} "torch>=2.4"'
        )
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        return Diagnosis("FAIL", "PyTorch", torch.__version__, f'{PIP} --upgrade "torch>=2.4"')
    product = torch.eye(2) @ torch.tensor([[1.0], [2.0]])
    if product.flatten().tolist() != [1.0, 2.0]:
        return Diagnosis(
            "FAIL", "PyTorch", "a 2x2 product comes out wrong", f"{PIP} --force-reinstall torch"
        )
    threads = torch.get_num_threads()
    return Diagnosis("OK", "PyTorch", f"{torch.__version__}, {threads} CPU threads")


def check_device() -> Diagnosis:
    """What the lessons compute on: CUDA, Apple's MPS, or the CPU."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Diagnosis("OK", "Device", f"CUDA: {', '.join(names)}")
    if torch.backends.mps.is_available():
        return Diagnosis("OK", "Device", "MPS (Apple's GPU)")
    if shutil.which("nvidia-smi"):
        return Diagnosis(
            "NOTE",
            "Device",
            "CPU, although an NVIDIA driver is here",
            "this PyTorch was built without CUDA, or the driver is too old for it; "
            "pytorch.org/get-started names the build for your driver",
        )
    return Diagnosis("OK", "Device", "CPU: enough for every lesson at tiny scale")


def free_memory_gb() -> float | None:
    """Memory that a new process can use, in GB; None where it cannot be told."""
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().available / 1e9


def free_gpu_memory_gb() -> float | None:
    """Free memory of the emptiest CUDA device, in GB; None without one."""
    import torch

    if not torch.cuda.is_available():
        return None
    devices = range(torch.cuda.device_count())
    return max(torch.cuda.mem_get_info(device)[0] for device in devices) / 1e9


def check_memory(free_gb: float | None) -> Diagnosis:
    """Enough free memory for the largest tiny lesson."""
    if free_gb is None:
        return Diagnosis("NOTE", "Memory", "cannot be read here", f"{PIP} psutil, to see it")
    answer = f"{free_gb:.1f} GB free"
    if free_gb >= TINY_MEMORY_GB:
        return Diagnosis("OK", "Memory", answer)
    return Diagnosis(
        "FAIL",
        "Memory",
        f"{answer}, a lesson needs up to {TINY_MEMORY_GB:.0f} GB",
        "close other programs, and shut down other notebooks' kernels: each keeps its memory",
    )


def check_gpu_memory(free_gb: float | None) -> Diagnosis | None:
    """How much of the GPU is free; None without a GPU."""
    if free_gb is None:
        return None
    tier = fitting_tier(free_gb)
    answer = f"{free_gb:.1f} GB free"
    if tier:
        return Diagnosis("OK", "GPU memory", answer)
    return Diagnosis(
        "NOTE",
        "GPU memory",
        f"{answer}, below the smallest tier of the paper scale",
        "`nvidia-smi` shows who holds it: another notebook's kernel keeps its memory until "
        "it is shut down",
    )


def check_disk(folder: Path | None = None) -> Diagnosis:
    """Enough room for the tiny data; a note when the paper's data would not fit."""
    place = folder or Path.home()
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(place).free / 1e9
    answer = f"{free_gb:.0f} GB free in {folder or 'your home folder'}"
    if free_gb < TINY_DISK_GB:
        return Diagnosis(
            "FAIL", "Disk", answer, f"free at least {TINY_DISK_GB:.0f} GB, or move the data folder"
        )
    if free_gb < PAPER_DISK_GB:
        return Diagnosis(
            "NOTE",
            "Disk",
            answer,
            f"enough for tiny; the paper's data and weights want about {PAPER_DISK_GB:.0f} GB",
        )
    return Diagnosis("OK", "Disk", answer)


def required_packages() -> list[str]:
    """The requirement strings of the library and the course; none where they are not installed."""
    try:
        return metadata.requires("serial-lora") or []
    except metadata.PackageNotFoundError:
        return []


def check_packages(requirements: Iterable[str] | None = None) -> list[Diagnosis]:
    """Every requirement is installed in a version that fits; one line for all that are."""
    from packaging.requirements import Requirement

    texts = required_packages() if requirements is None else list(requirements)
    if not texts:
        return [
            Diagnosis(
                "NOTE",
                "Packages",
                "serial-lora is not installed, only imported",
                f"{PIP} -e '.[course]'",
            )
        ]
    fitting, diagnoses = [], []
    for requirement in map(Requirement, texts):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "course"}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            diagnoses.append(
                Diagnosis("FAIL", requirement.name, "missing", f'{PIP} "{_plain(requirement)}"')
            )
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting.append(f"{requirement.name} {version}")
        else:
            diagnoses.append(
                Diagnosis(
                    "FAIL",
                    requirement.name,
                    f"{version}, wanted {requirement.specifier}",
                    f'{PIP} --upgrade "{_plain(requirement)}"',
                )
            )
    broken = [diagnosis for diagnosis in map(_check_import, IMPORTED) if diagnosis]
    if fitting:
        diagnoses.insert(0, Diagnosis("OK", "Packages", ", ".join(fitting)))
    return diagnoses + broken


# Import names whose failure would stop a lesson in the middle (compiled extensions, above all).
IMPORTED = (
    "torchvision",
    "open_clip",
    "segment_anything",
    "accelerate",
    "skimage",
    "sklearn",
    "matplotlib",
    "ipywidgets",
    "anywidget",
)


def _check_import(name: str) -> Diagnosis | None:
    try:
        importlib.import_module(name)
    except Exception as error:
        return Diagnosis(
            "FAIL",
            f"import {name}",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            f"{PIP} --force-reinstall the package that holds {name}",
        )
    return None


def _plain(requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def check_weights(folder: Path = ASSETS / "weights") -> Diagnosis:
    """The tiny models' weights came with the package."""
    files = sorted(folder.glob("*.safetensors"))
    # Each model's config lies beside its weights and tells that they should be there.
    models = {path.stem for path in folder.glob("*.json") if not path.name.endswith(".card.json")}
    missing = sorted(models - {path.stem for path in files})
    if missing or not files:
        return Diagnosis(
            "FAIL",
            "Tiny weights",
            f"{', '.join(missing) or 'all'} missing in {'/'.join(folder.parts[-3:])}",
            f'{PIP} --force-reinstall --no-deps serial-lora, or "make weights" to train them',
        )
    sizes = [f"{path.name} ({path.stat().st_size / 1e6:.0f} MB)" for path in files]
    return Diagnosis("OK", "Tiny weights", ", ".join(sizes))


def fitting_tier(free_gpu_gb: float | None) -> int | None:
    """The largest paper tier (8, 16 or 24) that this much free GPU memory reaches, else None."""
    if free_gpu_gb is None:
        return None
    return next((size for size, _ in TIERS if free_gpu_gb >= TIER_MARGIN * size), None)


def check_scale(free_gpu_gb: float | None) -> Diagnosis:
    """Which scale fits this machine."""
    tier = fitting_tier(free_gpu_gb)
    if tier is None:
        return Diagnosis(
            "OK", "Scale", 'scale="tiny" fits; scale="paper" wants a CUDA GPU of 8 GB or more'
        )
    labs = dict(TIERS)[tier]
    return Diagnosis("OK", "Scale", f'scale="tiny", and scale="paper" for {labs} ({tier} GB tier)')


def doctor(verbose: bool = False, data_folder: str | os.PathLike | None = None) -> Report:
    """Ask every question and return the report.

    Args:
        verbose: print each line as soon as it is known, and the verdict at the end; otherwise print
            nothing, the report holds it all.
        data_folder: where data will lie, for the disk question; the home folder when left out.
    """
    report = Report()

    def add(*diagnoses: Diagnosis | None) -> None:
        for diagnosis in filter(None, diagnoses):
            report.diagnoses.append(diagnosis)
            if verbose:
                print(diagnosis, flush=True)

    add(check_python())
    torch_finding = check_torch()
    add(torch_finding)
    gpu = None
    if torch_finding.status == "OK":
        add(check_device())
        gpu = free_gpu_memory_gb()
    add(check_memory(free_memory_gb()), check_gpu_memory(gpu))
    add(check_disk(Path(data_folder) if data_folder else None))
    add(*check_packages(), check_weights(), check_scale(gpu))
    report.scale = "paper" if fitting_tier(gpu) else "tiny"
    if verbose:
        print(str(report).splitlines()[-1], flush=True)
    return report
