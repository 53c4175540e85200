"""Clocks, and the machine."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import torch


def interleave(
    steps: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every step, one entry a round, in an order that turns from round to round."""
    names, seconds = list(steps), {name: [] for name in steps}
    for turn in range(warm_up + rounds):
        gc.collect()
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            begin = time.perf_counter()
            steps[name]()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def compared(seconds: list[float], others: list[float], to: str) -> dict[str, float]:
    """A row's clock: the median, half of what lies between the quartiles, and the ratio to others.

    The ratio is the median of those of each round, so a slow while of the machine changes it little.
    """
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    ratio = statistics.median(a / b for a, b in zip(seconds, others, strict=True))
    return {
        "ms": 1e3 * statistics.median(seconds),
        "± ms": 500 * (high - low),
        f"ratio to {to}": ratio,
    }


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
