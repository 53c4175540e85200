"""How much of a lab's run is training: forward and backward passes and the optimizer's steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, get_type_hints
from unittest import mock

import psutil
import torch
from accelerate import Accelerator

from serial_lora_course.labs import precision, sd3
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.registry import get_lab

RUNS = {"clip": ("travel", 16), "sam": ("food", 50), "sd3": ("openmoji", 100)}
"""The run of each lab, under LoRA and Serial LoRA: data set and amount of training data."""
AT_MOST = {"clip": 0.10, "sam": 0.15, "sd3": 0.35}
"""The share of it that may be no training."""


def _timed(
    owner: type | ModuleType, name: str, tell: Callable[[float], None]
) -> AbstractContextManager:
    """For as long as it is entered, every call of a function tells how many seconds it took."""
    real = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        result = real(*args, **kwargs)
        tell(time.perf_counter() - begin)
        return result

    return mock.patch.object(owner, name, timed)


def measure_share(name: str, quick: bool) -> dict[str, Any]:
    """Seconds of a lab's runs, of the training in them, and of what was loaded before.

    ``once`` are those of what is done once for a data set and kept: measuring the base, choosing the
    precision, encoding SD3's pictures; ``further`` is the share of the rest without them.
    """
    loading = time.time() - psutil.Process().create_time()
    kind, (dataset, amount) = get_lab(name), RUNS[name]
    some = {"min_steps": 2, "epochs": 1} if quick else {}
    if quick and name == "sd3":
        some["drawing_steps"] = 1
    objective = get_type_hints(kind.objective)["return"]
    forward: list[float] = []
    training: list[float] = []
    once: list[float] = []
    begin = time.perf_counter()
    with (  # a forward pass counts when a backward pass follows; others look at memory or speed
        _timed(objective, "forward", forward.append),
        _timed(Accelerator, "backward", lambda spent: training.extend((forward[-1], spent))),
        _timed(torch.optim.AdamW, "step", training.append),
        _timed(precision, "_faster_forward", once.append),
        _timed(kind, "measure_base", once.append),
        _timed(sd3, "encode_style", once.append),
    ):
        records = run_lab(name, [dataset], seeds=1, amounts=amount, progress=False, **some)
    seconds = time.perf_counter() - begin
    return {
        "lab": name,
        "run": f"{dataset}, {amount} {kind.unit}, {len(records)} methods",
        "seconds": seconds,
        "training": sum(training),
        "once": sum(once),
        "rest": 1 - sum(training) / seconds,
        "further": 1 - sum(training) / (seconds - sum(once)),
        "at_most": AT_MOST[name],
        "loading": loading,
    }
