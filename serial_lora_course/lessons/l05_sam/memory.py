"""The memory of a training step of SAM: how much it takes, and how to take less."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint


def save_memory(encoder: nn.Module, precision: torch.autocast) -> None:
    """Run an image encoder in that precision, and let each block keep nothing but its input.

    What a block computed is computed again on the way back. Not by the re-entrant kind of checkpoint, which
    gives no gradient to an adapter behind a frozen stem.
    """
    encoder.forward = precision(encoder.forward)
    for block in encoder.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def peak_memory(step: Callable, model: nn.Module, *arguments: Any) -> int:
    """The most bytes of tensors that live at once in two steps of training, the model's own among them.

    The optimizer makes its state in the first, so the second has all of it from the start.
    """
    weights = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    if next(model.parameters()).is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(2):
            step(model, *arguments)
        return weights + torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or the profiler prints when it starts
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        for _ in range(2):
            step(model, *arguments)
    events = [each for each in seen.profiler.kineto_results.events() if each.name() == "[memory]"]
    taken = [each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())]
    return weights + max(accumulate(taken))
