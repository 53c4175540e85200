"""What a process computes on: its device, in which precision, and its part of a GPU that a class shares.

A class server may set two things: ``SERIAL_LORA_GPU_SHARE=0.25``, the part of the GPU's memory that a
process may fill, and ``SERIAL_LORA_GPU_QUEUE=/srv/class/GPU-....lock``, a file of that GPU whose lock every
training of a notebook or a lab waits for, so that one trains at a time. Which GPU, ``CUDA_VISIBLE_DEVICES`` says.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from filelock import FileLock, Timeout
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.threads import share_of_cores

SHARE = "SERIAL_LORA_GPU_SHARE"
QUEUE = "SERIAL_LORA_GPU_QUEUE"
PATIENCE = 2  # seconds until a word is said
EVERYBODY = 0o666  # learners have accounts of their own, and each must be able to take the lock
GIB = 2**30
PRECISIONS = ("auto", "bf16", "no")
LOOKING = {"tiny": "no", "paper": "auto"}
"""Scale -> precision of what is computed with a model to look at it, one picture at a time."""


class MissingError(SerialLoRAError):
    """This machine lacks something that the chosen scale needs; a notebook shows the sentence alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def this_device() -> torch.device:
    """The GPU (CUDA, Apple's MPS) where there is one, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_name() -> str:
    """The device, for people."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def loader_workers(scale: str) -> int:
    """Processes that prepare pictures: one for each core that training leaves, up to 16.

    The tiny pictures are prepared faster than they are sent.
    """
    if scale == "tiny":
        return 0
    return min(16, max(1, (share_of_cores() or os.cpu_count() or 1) - 1))


# ------------------------------------------------------------------------------------- precision


def settle_precision(wanted: str, model: nn.Module | None = None) -> str:
    """``bf16`` or ``no`` (float32): the wanted one, or for ``auto`` bfloat16 where a GPU has it natively.

    On CPUs bfloat16 is the luck of the processor: half the time of float32 with AVX-512's instructions
    for it, ten times as long without.

    Args:
        model: that computes; weights in bfloat16, as SD3's at paper scale, compute in bfloat16.
    """
    if wanted != "auto":
        return wanted
    if model is not None and any(p.dtype == torch.bfloat16 for p in model.parameters()):
        return "bf16"
    on_gpu = this_device().type == "cuda"
    native = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "no"


def autocast(
    device: torch.device, precision: str, model: nn.Module | None = None
) -> torch.autocast:
    """A precision, settled, for the length of a block."""
    enabled = settle_precision(precision, model) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


# ---------------------------------------------------------------------------------------- memory


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still fill; from here on it keeps to its share of the GPU.

    Without a GPU, half of what the machine has: others need some too.
    """
    given = os.environ.get(SHARE) or "1"
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise SerialLoRAError(f"{SHARE} is a share of the GPU, above 0 and up to 1, not {given!r}.")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        torch.cuda.set_per_process_memory_fraction(share, device)
        used = torch.cuda.memory_allocated(device)
        kept_for_later = torch.cuda.memory_reserved(device) - used  # of this process, and empty
        return max(0, min(free + kept_for_later, int(share * total) - used))
    if device.type == "mps":
        torch.mps.set_per_process_memory_fraction(share)
        total = torch.mps.recommended_max_memory()
        return max(0, int(share * total) - torch.mps.driver_allocated_memory())
    return psutil.virtual_memory().available // 2


def release_memory(device: torch.device) -> None:
    """Give back to the GPU what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


# ----------------------------------------------------------------------------------------- queue


@contextmanager
def turn(device: torch.device) -> Iterator[None]:
    """Have the GPU alone for the length of the block, where there is a queue for it."""
    place = os.environ.get(QUEUE)
    if not place or device.type == "cpu":
        yield
        return
    lock = FileLock(place, mode=EVERYBODY)
    try:
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            print("Somebody else's training is on the GPU; this one begins when that has ended.")
            lock.acquire()
    except OSError as error:
        raise SerialLoRAError(
            f"The queue for the GPU, {place}, cannot be used ({error.strerror}); ask whoever set {QUEUE}."
        ) from error
    try:
        yield
    finally:
        release_memory(device)
        lock.release()
