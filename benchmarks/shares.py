"""How much of a lab's run is not training: not forward, backward or the optimizer's steps?"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, get_type_hints
from unittest import mock

import torch

from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.registry import get_lab

RUNS = {
    "clip": ("travel", 16, 0.10),
    "sam": ("food", 50, 0.15),
    "sd3": ("openmoji", 100, 0.35),
}
"""Of each lab, under LoRA and Serial LoRA: data set, amount, and the share that may be no training."""


def _timed(owner: type, name: str, spent: list) -> AbstractContextManager:
    """For as long as it is entered, the name and the seconds of every call of a method are kept."""
    real = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        result = real(*args, **kwargs)
        spent.append((name, time.perf_counter() - begin))
        return result

    return mock.patch.object(owner, name, timed)


def measure_shares(quick: bool) -> list[dict[str, Any]]:
    """For each lab's first runs on a data set the seconds, and the share of them that is no training."""
    rows = []
    for name, (dataset, amount, at_most) in RUNS.items():
        kind, spent, begin = get_lab(name), [], time.perf_counter()
        short = {"min_steps": 2, "epochs": 1} if quick else {}
        if quick and name == "sd3":
            short["drawing_steps"] = 1
        with (
            _timed(get_type_hints(kind.objective)["return"], "forward", spent),
            _timed(torch.Tensor, "backward", spent),
            _timed(torch.optim.AdamW, "step", spent),
        ):
            records = run_lab(name, [dataset], seeds=1, amounts=amount, progress=False, **short)
        seconds = time.perf_counter() - begin
        # A forward pass counts when a backward pass follows; others measure.
        training = sum(own for what, own in spent if what != "forward")
        training += sum(own for (_, own), (after, _) in pairwise(spent) if after == "backward")
        about = f"{name}: {dataset}, {amount} {kind.unit}, {len(records)} methods"
        rows.append(
            {
                "first runs of a lab on a data set": about,
                "seconds": seconds,
                "not training": 1 - training / seconds,
                "aim: at most": at_most,
            }
        )
    return rows
