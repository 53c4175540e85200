"""The memory that this process may fill: a GPU's (CUDA, Apple's MPS), or the machine's.

Where several learners use one GPU, each may fill a share of it: ``SERIAL_LORA_GPU_SHARE=0.25``.
"""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass

import psutil
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.records import device_name

SHARE = "SERIAL_LORA_GPU_SHARE"
GIB = 2**30


class MissingError(SerialLoRAError):
    """This machine lacks something that the chosen scale needs; a notebook shows the sentence alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Card:
    """What a process computes on.

    Attributes:
        name: for people.
        free: bytes that this process may still fill; without a GPU, half of what the machine has.
        share: of the whole card, that is its to fill.
    """

    name: str
    free: int
    share: float = 1.0

    def __str__(self) -> str:
        mine = "" if self.share == 1 else f", a share of {self.share:.0%}"
        return f"{self.name} ({self.free / GIB:.1f} GiB to fill{mine})"


def look_at_card(device: torch.device) -> Card:
    """The card as it is now; from here on this process keeps to its share of it.

    Raises:
        SerialLoRAError: the share is no number above 0 and up to 1.
    """
    share = _share()
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        torch.cuda.set_per_process_memory_fraction(share, device)
        used = torch.cuda.memory_allocated(device)
        kept_for_later = torch.cuda.memory_reserved(device) - used  # of this process, and empty
        free = min(free + kept_for_later, int(share * total) - used)
    elif device.type == "mps":
        torch.mps.set_per_process_memory_fraction(share)
        total = torch.mps.recommended_max_memory()
        free = int(share * total) - torch.mps.driver_allocated_memory()
    else:
        return Card(device_name(), psutil.virtual_memory().available // 2)  # others need some too
    name = device_name() if device.type == "cuda" else "Apple GPU"
    return Card(name, max(0, free), share)


def _share() -> float:
    given = os.environ.get(SHARE) or "1"
    try:
        share = float(given)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise SerialLoRAError(f"{SHARE} is a share of the GPU, above 0 and up to 1, not {given!r}.")
    return share


def release_memory(device: torch.device) -> None:
    """Give back to the card what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
