"""Which precision is faster here: ``auto`` is settled by measuring, once for each model in a process.

bfloat16 is several times faster than float32 on a GPU and on processors with instructions for it,
and ten times slower on those without. How much of a step profits differs from model to model, so
forward passes of the run itself decide, unless plain products are slower already. A backward pass
is the same products twice over, and would tell the same for twice as long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache

import torch
from accelerate.utils import send_to_device
from torch import nn

from serial_lora_course.labs.processes import process_state

PRECISIONS = ("auto", "bf16", "no")
LOOKING = {"tiny": "no", "paper": "auto"}
"""Scale -> precision of what is computed with a model to look at it, one picture at a time."""
ROUNDS = 3
ENOUGH = 1.5  # where one is so many times as fast in two rounds, no further one is measured
CLEARLY = 2.0
"""How many times as fast products must be where they alone decide: a step is not products alone."""

_settled: dict[tuple[object, ...], str] = {}


def settle_precision(
    wanted: str, objective: nn.Module | None = None, first_batch: Callable[[], object] = list
) -> str:
    """``bf16`` or ``no`` (float32): the wanted one, or for ``auto`` the faster one here.

    On a GPU that is bfloat16 where the card has it. On a CPU it is float32 unless bfloat16 was
    measured to be faster. Several processes must agree and cannot be measured one by one: float32.

    Args:
        objective: ``forward(batch)`` is the loss; None where nothing is trained, and products decide.
        first_batch: gives the batch to measure with; called only if it is needed.
    """
    if wanted != "auto":
        return wanted
    if objective is not None and in_bfloat16(objective):
        return "bf16"
    state = process_state()
    if state.device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    if state.device.type != "cpu" or state.num_processes > 1 or product_speedup() < 1:
        return "no"
    if objective is None:
        return "bf16" if product_speedup() > CLEARLY else "no"
    frozen = tuple(tuple(p.shape) for p in objective.parameters() if not p.requires_grad)
    key = (type(objective), torch.get_num_threads(), frozen)
    if key not in _settled:
        _settled[key] = _faster_forward(objective, send_to_device(first_batch(), state.device))
    return _settled[key]


def in_bfloat16(model: nn.Module) -> bool:
    """Whether weights of a model are in bfloat16, as SD3's at paper scale: float32 would not fit."""
    return any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def autocast(
    device: torch.device, precision: str, model: nn.Module | None = None
) -> torch.autocast:
    """The precision of a forward pass outside the training loop, of a model if that may matter."""
    if precision == "auto" and model is not None and in_bfloat16(model):
        precision = "bf16"
    return torch.autocast(
        device.type, torch.bfloat16, enabled=settle_precision(precision) == "bf16"
    )


def product_speedup() -> float:
    """How many times as fast as in float32 a product runs in bfloat16 on this CPU."""
    single, half = product_seconds()
    return single / half


@cache
def product_seconds(rows: int = 512, width: int = 256) -> list[float]:
    """Of tokens (rows, width) that meet a weight (width, width), in float32 and in bfloat16."""
    single = torch.ones(rows, width), torch.ones(width, width)
    half = [each.bfloat16() for each in single]
    return _fastest(lambda: nn.functional.linear(*single), lambda: nn.functional.linear(*half))


def _faster_forward(objective: nn.Module, batch: object) -> str:
    """Time a step's forward pass in both precisions; the random state stays."""

    def forward(precision: str) -> None:
        with autocast(process_state().device, precision):
            objective(batch)

    was_training = objective.training
    objective.train()
    try:
        with torch.random.fork_rng(devices=[]):
            single, half = _fastest(lambda: forward("no"), lambda: forward("bf16"))
    finally:
        objective.train(was_training)
    return "bf16" if half < single else "no"


def _fastest(*candidates: Callable[[], object]) -> list[float]:
    """Seconds of each candidate: the least of a few, in turns, after a round that warms up."""
    least = [math.inf for _ in candidates]
    for round_number in range(ROUNDS + 1):
        for index, candidate in enumerate(candidates):
            started = time.perf_counter()
            candidate()
            seconds = time.perf_counter() - started
            least[index] = min(least[index], seconds if round_number else math.inf)
        if round_number > 1 and max(least) > ENOUGH * min(least):
            break
    return least
