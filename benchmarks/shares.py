"""How much of a lab's run is not training: not forward, backward or the optimizer's steps?"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_type_hints
from unittest import mock

import torch

from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.registry import get_lab

RUNS = {"clip": ("travel", 0.10), "sam": ("food", 0.15), "sd3": ("openmoji", 0.35)}
"""Of each lab a data set, and the share of a run that may be no training."""


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
    """Two rows a lab: its first runs on a data set, LoRA's and Serial LoRA's, and two further ones.

    The first ones also import, load, and measure the model that is not adapted.
    """
    rows, folder = [], TemporaryDirectory()
    short = {"min_steps": 2, "epochs": 1} if quick else {}
    for (name, (dataset, at_most)), seed in product(RUNS.items(), (1, 2)):
        spent, begin = [], time.perf_counter()
        fast = {"drawing_steps": 1} if quick and name == "sd3" else {}
        with (
            _timed(get_type_hints(get_lab(name).objective)["return"], "forward", spent),
            _timed(torch.Tensor, "backward", spent),
            _timed(torch.optim.AdamW, "step", spent),
        ):
            out = Path(folder.name) / f"{name}.jsonl"
            run_lab(name, [dataset], seeds=[seed], out=out, progress=False, **short, **fast)
        seconds = time.perf_counter() - begin
        # A forward pass counts when a backward pass follows; others measure.
        training = sum(own for what, own in spent if what != "forward")
        training += sum(own for (_, own), (after, _) in pairwise(spent) if after == "backward")
        rows.append(
            {
                "two runs": f"{name}: {dataset}, {'first' if seed == 1 else 'further'}",
                "seconds": seconds,
                "not training": 1 - training / seconds,
                "aim: at most": at_most,
            }
        )
    return rows
