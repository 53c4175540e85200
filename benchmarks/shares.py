"""How much of a lab's run is not training: not forward, backward or the optimizer's steps?"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, get_type_hints
from unittest import mock

import torch

from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.registry import get_lab

RUNS = {"clip": ("travel", 16), "sam": ("food", 50), "sd3": ("openmoji", 100)}
"""The run of each lab, under LoRA and Serial LoRA: data set and amount of training data."""
AT_MOST = {"clip": 0.10, "sam": 0.15, "sd3": 0.35}
"""The share of it that may be no training."""


def _timed(owner: type, name: str, tell: Callable[[float], None]) -> AbstractContextManager:
    """For as long as it is entered, every call of a method tells how many seconds it took."""
    real = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        result = real(*args, **kwargs)
        tell(time.perf_counter() - begin)
        return result

    return mock.patch.object(owner, name, timed)


def measure_shares(quick: bool, rounds: int = 1) -> list[dict[str, Any]]:
    """For each lab's first runs on a data set the seconds, and the share of them that is no training."""
    return [_measured(name, quick) for name in RUNS]


def _measured(name: str, quick: bool) -> dict[str, Any]:
    kind, (dataset, amount) = get_lab(name), RUNS[name]
    short = {"min_steps": 2, "epochs": 1} if quick else {}
    if quick and name == "sd3":
        short["drawing_steps"] = 1
    forward: list[float] = []
    training: list[float] = []
    begin = time.perf_counter()
    with (  # a forward pass counts when a backward pass follows; others measure
        _timed(get_type_hints(kind.objective)["return"], "forward", forward.append),
        _timed(torch.Tensor, "backward", lambda spent: training.extend((forward[-1], spent))),
        _timed(torch.optim.AdamW, "step", training.append),
    ):
        records = run_lab(name, [dataset], seeds=1, amounts=amount, progress=False, **short)
    seconds = time.perf_counter() - begin
    return {
        "first runs of a lab on a data set": f"{name}: {dataset}, {amount} {kind.unit}, {len(records)} methods",
        "seconds": seconds,
        "not training": 1 - sum(training) / seconds,
        "aim: at most": AT_MOST[name],
    }
