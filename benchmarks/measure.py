"""Clocks, and the machine."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch


def clocked(
    steps: Mapping[str, Callable[[], object]], against: str, to: str, rounds: int = 5
) -> dict[str, dict[str, float]]:
    """Each step's median, half of what lies between the quartiles, and the ratio to the one ``against``.

    Steps are interleaved in an order that turns from round to round, after one round to warm up. The
    ratio is the median of those of each round, so a slow while of the machine changes it little.
    """
    names, seconds = list(steps), {name: [] for name in steps}
    for turn in range(1 + rounds):
        gc.collect()
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            begin = time.perf_counter()
            steps[name]()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    rows = {}
    for name, own in seconds.items():
        low, median, high = 1e3 * np.percentile(own, (25, 50, 75))
        ratio = np.median(np.divide(own, seconds[against]))
        rows[name] = {"ms": median, "± ms": (high - low) / 2, f"ratio to {to}": float(ratio)}
    return rows


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
