"""A grid of runs in one process and on Ray workers of this machine: throughput, and what a run costs besides."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from serial_lora_course.labs.grid import Done, here, make_grid
from serial_lora_course.labs.ray_grid import on_ray
from serial_lora_course.labs.ray_workers import Share
from serial_lora_course.labs.records import Kept, Record

ASKED = ("clip", ["nature"], ["lora", "serial_lora"], [4], (1, 2, 3, 4, 5, 6))


def is_installed() -> bool:
    """Whether Ray is; without it nothing here can be measured."""
    return find_spec("ray") is not None


def timed(doing: Callable[..., Any], quick: bool) -> tuple[dict[str, float], list[Record]]:
    """A grid, from what is asked for to the last record; every run on one thread.

    ``begin`` is what passes until the first run begins: in one process imports are over by then, workers
    have theirs before them. ``overhead`` is what passes for each run beside its own seconds.
    """
    some = {"min_steps": 2, "epochs": 1} if quick else {}
    asked = ASKED[:-1] + ((1, 2),) if quick else ASKED
    started, ends, done = time.perf_counter(), [], []
    for one in doing(make_grid(*asked, **some), Kept(None), progress=False):
        ends.append(time.perf_counter() - started)
        done.append(one)
    return _row(ends, done), [one.record for one in sorted(done, key=lambda one: one.place)]


def _row(ends: list[float], done: list[Done]) -> dict[str, float]:
    begin, workers = ends[0] - done[0].seconds, max(one.workers for one in done)
    own = sum(one.seconds for one in done)
    return {
        "workers": workers,
        "runs": len(done),
        "seconds": ends[-1],
        "begin": begin,
        "own": own / len(done),
        "overhead": (workers * (ends[-1] - begin) - own) / len(done),
    }


def measure_cluster(quick: bool) -> list[dict[str, Any]]:
    """A row for one process, one for one worker, and one for a worker on every core."""
    import ray

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, alone = [], None
        for title, cores in (
            ("one process", 0),
            ("Ray, one worker", 1),
            ("Ray", os.cpu_count() or 1),
        ):
            if cores:
                ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
            try:
                row, records = timed(partial(on_ray, Share(gpus=0.0)) if cores else here, quick)
            finally:
                ray.shutdown()
            alone = alone or [record.measures for record in records]
            equal = [record.measures for record in records] == alone
            rows.append({"title": title, "equal": equal} | row)
    finally:
        torch.set_num_threads(threads)
    pace = [row["runs"] / (row["seconds"] - row["begin"]) for row in rows]
    return [row | {"ratio": each / pace[0]} for row, each in zip(rows, pace, strict=True)]
