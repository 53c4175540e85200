"""Is this machine ready for the course? One line a question, and the remedy where it is not.

Each ``check_...`` function answers one question with a :class:`Diagnosis`; :func:`doctor` runs them
all and returns a :class:`Report`. ``serial-lora doctor`` prints it and exits with 1 when something
fails.

    [OK]    all is well
    [NOTE]  fine for the tiny scale, worth knowing
    [FAIL]  something in the course will not work; the line below says what to do
"""

from __future__ import annotations

import functools
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

import serial_lora_course
from serial_lora_course.files import expanded

WEIGHTS = Path(__file__).resolve().parent / "assets" / "weights"
OLDEST_PYTHON = (3, 10)
OLDEST_TORCH = (2, 4)
TINY_MEMORY_GB = 3
TINY_DISK_GB = 1
PAPER_DISK_GB = 30
PAPER_GPU_GB = 8  # by the estimates of labs/fit.py, for all three models
PAPER_MARGIN = 0.9  # a card sold as 8 GB has less than 8 free
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
PIP = "python -m pip install"
COURSE = f'{PIP} -e ".[course]" in the course\'s folder'

wrap = functools.partial(
    textwrap.fill,
    width=100,
    subsequent_indent=" " * 8,
    break_on_hyphens=False,
    break_long_words=False,
)


@dataclass(frozen=True)
class Diagnosis:
    """The answer to one question: ``status`` is OK, NOTE or FAIL; ``remedy`` says what to do."""

    status: str
    question: str
    answer: str
    remedy: str = ""

    def __str__(self) -> str:
        line = wrap(f"{'[' + self.status + ']':<7} {self.question}: {self.answer}")
        return f"{line}\n{wrap('        -> ' + self.remedy)}" if self.remedy else line


ok, note, fail = (functools.partial(Diagnosis, status) for status in ("OK", "NOTE", "FAIL"))


@dataclass
class Report:
    """All diagnoses, in order. ``ok`` is True when none is a FAIL; ``scale`` is what fits here."""

    diagnoses: list[Diagnosis] = field(default_factory=list)
    scale: str = "tiny"

    @property
    def ok(self) -> bool:
        """Whether everything the tiny scale needs is here."""
        return all(diagnosis.status != "FAIL" for diagnosis in self.diagnoses)

    @property
    def verdict(self) -> str:
        """The last line."""
        failures = sum(diagnosis.status == "FAIL" for diagnosis in self.diagnoses)
        things = "1 thing" if failures == 1 else f"{failures} things"
        ready = "Ready: `serial-lora open` opens the lessons."
        return f"{things} to mend before you start." if failures else ready

    def __str__(self) -> str:
        return "\n".join([*map(str, self.diagnoses), self.verdict])


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Diagnosis:
    """Python 3.10 or newer."""
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        remedy = "install Python 3.10 or newer and make a new environment with it"
        return fail("Python", text, remedy)
    return ok("Python", f"{text} on {platform.system()} {platform.machine()}")


def check_torch() -> Diagnosis:
    """PyTorch can be imported, is new enough, and computes a matrix product."""
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken build raises OSError, a missing one ImportError
        return fail("PyTorch", f"{type(error).__name__}: {error}", f'{PIP} "torch>=2.4"')
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        return fail("PyTorch", torch.__version__, f'{PIP} --upgrade "torch>=2.4"')
    product = torch.eye(2) @ torch.tensor([[1.0], [2.0]])
    if product.flatten().tolist() != [1.0, 2.0]:
        return fail("PyTorch", "a 2x2 product comes out wrong", f"{PIP} --force-reinstall torch")
    return ok("PyTorch", f"{torch.__version__}, CPU threads: {torch.get_num_threads()}")


def check_threads(in_time: bool = serial_lora_course.SETTLED_IN_TIME) -> Diagnosis | None:
    """A note where PyTorch was loaded before its waiting threads could be told to sleep."""
    if in_time:
        return None
    return note(
        "Threads",
        "PyTorch was loaded before the course, so waiting threads keep their cores busy",
        "import serial_lora_course before torch: it matters beside other busy programs",
    )


def check_precision() -> Diagnosis:
    """How fast bfloat16 is beside float32; the labs' ``precision="auto"`` goes by it."""
    precision = importlib.import_module("serial_lora_course.labs.precision")
    if precision.process_state().device.type != "cpu":
        return ok(
            "Precision", {"bf16": "bfloat16", "no": "float32"}[precision.settle_precision("auto")]
        )
    speedup = precision.product_speedup()
    choice = "labs compute in float32" if speedup < 1 else "each lab measures a step of its own"
    return ok(
        "Precision", f"bfloat16 products are {speedup:.1f} times as fast as float32; {choice}"
    )


def check_device() -> Diagnosis:
    """What the lessons compute on: CUDA, Apple's MPS, or the CPU."""
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return ok("Device", f"CUDA: {', '.join(names)}")
    if torch.backends.mps.is_available():
        return ok("Device", "MPS (Apple's GPU)")
    if shutil.which("nvidia-smi"):
        return note(
            "Device",
            "CPU, although an NVIDIA driver is here",
            "this PyTorch was built without CUDA, or the driver is too old for it; "
            "pytorch.org/get-started names the build for your driver",
        )
    return ok("Device", "CPU: enough for every lesson at tiny scale")


def free_memory_gb() -> float | None:
    """Memory that a new process can use, in GB; None without the package that reads it."""
    try:
        return importlib.import_module("psutil").virtual_memory().available / 1e9
    except ImportError:
        return None


def free_gpu_memory_gb() -> float | None:
    """Free memory of the emptiest CUDA device, in GB; None without one."""
    cuda = importlib.import_module("torch").cuda
    if not cuda.is_available():
        return None
    return max(cuda.mem_get_info(device)[0] for device in range(cuda.device_count())) / 1e9


def check_memory(free_gb: float | None) -> Diagnosis:
    """Enough free memory for the largest tiny lesson."""
    if free_gb is None:
        return note("Memory", "cannot be read here", f"{PIP} psutil, to see it")
    answer = f"{free_gb:.1f} GB free"
    if free_gb >= TINY_MEMORY_GB:
        return ok("Memory", answer)
    return fail(
        "Memory",
        f"{answer}, a lesson needs up to {TINY_MEMORY_GB} GB",
        "close other programs, and shut down other notebooks' kernels: each keeps its memory",
    )


def check_gpu_memory(free_gb: float | None) -> Diagnosis | None:
    """How much of the GPU is free; None without a GPU."""
    if free_gb is None:
        return None
    answer = f"{free_gb:.1f} GB free"
    if fits_paper(free_gb):
        return ok("GPU memory", answer)
    return note(
        "GPU memory",
        f"{answer}, and the paper's scale wants {PAPER_GPU_GB}",
        "`nvidia-smi` shows who holds it: another notebook's kernel keeps its memory until "
        "it is shut down",
    )


def data_folder() -> Path:
    """Where data are kept; the home folder without the package that knows."""
    try:
        return importlib.import_module("serial_lora_course.data.folders").data_root()
    except ImportError:
        return expanded("~")


def check_disk(folder: Path) -> Diagnosis:
    """Enough room for the tiny data; a note when the paper's data would not fit."""
    while not os.path.exists(folder):  # Path.exists raises where it may not look
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    answer = f"{free_gb:.0f} GB free where data are kept"
    if free_gb < TINY_DISK_GB:
        remedy = f"free at least {TINY_DISK_GB} GB, or name another folder in SERIAL_LORA_DATA"
        return fail("Disk", answer, remedy)
    if free_gb < PAPER_DISK_GB:
        remedy = f"enough for tiny; the paper's data and weights want about {PAPER_DISK_GB} GB"
        return note("Disk", answer, remedy)
    return ok("Disk", answer)


def required_packages() -> list[str]:
    """The requirement strings of the library and the course; none where they are not installed."""
    try:
        return metadata.requires("serial-lora") or []
    except metadata.PackageNotFoundError:
        return []


def check_packages(requirements: Iterable[str]) -> list[Diagnosis]:
    """Every requirement is installed in a version that fits; one line for all that are."""
    # Here, so that a machine without this package reaches the questions before it.
    from packaging.requirements import Requirement

    fitting, wrong = [], []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "course"}):
            continue
        name, wanted = requirement.name, f'"{requirement.name}{requirement.specifier}"'
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(fail(name, "missing", f"{PIP} {wanted}"))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting.append(f"{name} {version}")
        else:
            answer = f"{version}, wanted {requirement.specifier}"
            wrong.append(fail(name, answer, f"{PIP} --upgrade {wanted}"))
    if not fitting and not wrong:
        return [note("Packages", "serial-lora is not installed, only imported", COURSE)]
    return [ok("Packages", ", ".join(fitting)), *wrong]


def check_import(name: str) -> Diagnosis | None:
    """A diagnosis where a package is there and does not import."""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a broken extension raises
        answer = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return fail(f"import {name}", answer, f"{PIP} --force-reinstall the package with {name}")
    return None


def check_weights(folder: Path = WEIGHTS) -> Diagnosis:
    """The tiny models' weights came with the package: a file or a folder beside each card."""
    sizes, missing = [], []
    for card in sorted(folder.glob("*.card.json")):
        name = card.name.removesuffix(".card.json")
        files = [folder / f"{name}.safetensors", *(folder / name).rglob("*.safetensors")]
        total = sum(path.stat().st_size for path in files if path.is_file())
        if total:
            sizes.append(f"{name} ({total / 1e6:.0f} MB)")
        else:
            missing.append(name)
    if missing or not sizes:
        answer = f"{', '.join(missing) or 'all'} missing in {'/'.join(folder.parts[-3:])}"
        remedy = f'{COURSE}, with --force-reinstall, or "make weights" to train them'
        return fail("Tiny weights", answer, remedy)
    return ok("Tiny weights", ", ".join(sizes))


def fits_paper(free_gpu_gb: float | None) -> bool:
    """Whether the paper's models, as their labs settle for a small card, fit this much."""
    return free_gpu_gb is not None and free_gpu_gb >= PAPER_MARGIN * PAPER_GPU_GB


def check_scale(free_gpu_gb: float | None) -> Diagnosis:
    """Which scale fits this machine."""
    if fits_paper(free_gpu_gb):
        return ok("Scale", "tiny, and the paper's, as each lab settles for the memory that is free")
    return ok("Scale", f"tiny; the paper's wants a GPU with {PAPER_GPU_GB} GB or more")


def doctor(verbose: bool = False) -> Report:
    """Ask every question and return the report.

    Args:
        verbose: print it, too; otherwise the report holds it all.
    """
    torch_diagnosis = check_torch()
    there = torch_diagnosis.status == "OK"
    gpu = free_gpu_memory_gb() if there else None
    answers = [
        check_python(),
        torch_diagnosis,
        check_threads(),
        check_device() if there else None,
        check_precision() if there else None,
        check_memory(free_memory_gb()),
        check_gpu_memory(gpu),
        check_disk(data_folder()),
        *check_packages(required_packages()),
        *map(check_import, IMPORTED),
        check_weights(),
        check_scale(gpu),
    ]
    report = Report(list(filter(None, answers)), "paper" if fits_paper(gpu) else "tiny")
    if verbose:
        print(report, flush=True)
    return report
