"""Clocks: contestants timed in turns, so that a slow while slows all of them; the machine's name."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant over the rounds.

    Attributes:
        seconds: one entry a round, warm-up left out.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, in seconds; 0 with fewer than three rounds."""
        if len(self.seconds) < 3:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2

    def named(self, name: str) -> dict[str, float]:
        """Median and spread as two entries of a row of results."""
        return {name: self.median, f"{name}_spread": self.spread}

    def ratio_to(self, other: Timing) -> float:
        """The median over rounds of this contestant's seconds over the other's.

        Both ran in every round, so a machine that slows down for a while slows both.
        """
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleave(
    steps: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, Timing]:
    """Time every step once a round, in an order that turns from round to round."""
    return in_turns(
        {name: partial(_seconds_of, step) for name, step in steps.items()}, rounds, warm_up
    )


def _seconds_of(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def in_turns(
    measures: Mapping[str, Callable[[], float]],
    rounds: int,
    warm_up: int = 1,
    told: Callable[[int], object] = lambda done: None,
) -> dict[str, Timing]:
    """The same of contestants that time themselves, in seconds; ``told`` hears how many rounds are done."""
    names = list(measures)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warm_up + rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                elapsed = measures[name]()
                if turn >= warm_up:
                    seconds[name].append(elapsed)
            gc.collect()
            told(turn + 1)
    finally:
        if collecting:
            gc.enable()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
