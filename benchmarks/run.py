"""Measure everything and collect it as one dictionary."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.measure import machine
from benchmarks.report import Results
from benchmarks.savings import measure_savings
from benchmarks.steps import measure_group
from benchmarks.subjects import subject

PRECISIONS = ("float32", "bfloat16")


def run(
    keys: Sequence[str],
    precisions: Sequence[str] = PRECISIONS,
    rounds: int = 5,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
    store: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Measure every model in every precision, one group after another, in this process.

    `say` is told what is being measured; `store` is given the results so far after each group, so
    that a run which is stopped keeps what it has.
    """
    groups: list[dict[str, Any]] = []
    savings: list[dict[str, Any]] = []
    results = {"machine": machine(), "quick": quick, "groups": groups, "savings": savings}
    begin = time.perf_counter()
    for key in keys:
        for precision in precisions:
            say(f"[{time.perf_counter() - begin:4.0f} s] {key}, {precision}")
            torch.manual_seed(0)
            groups.append(measure_group(subject(key, quick), precision, rounds))
            gc.collect()
            if key == "clip":
                savings += measure_savings(quick, precision, rounds)
                gc.collect()
            store(results)
    say(f"[{time.perf_counter() - begin:4.0f} s] done")
    return results
