"""What does it take to change from one adapter to another? Ours, and PEFT's `set_adapter`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import peft
from torch import nn

from benchmarks.measure import compared, interleave
from benchmarks.models import SUBJECTS
from serial_lora import LoRAConfig, SerialLoRAConfig, activate, add_adapter, inject

NAMES = ("first", "second")


def with_ours(model: nn.Module, config: SerialLoRAConfig | LoRAConfig) -> Callable[[str], object]:
    """Two adapters of this package; the switch copies one out of the pairs and one into them."""
    add_adapter(inject(model, config, name=NAMES[0]), NAMES[1])
    return partial(activate, model)


def with_peft(model: nn.Module, rank: int, targets: str) -> Callable[[str], object]:
    """Two adapters of PEFT; the switch goes through its layers and sets their names."""
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    model = peft.get_peft_model(model, config, adapter_name=NAMES[0])
    model.add_adapter(NAMES[1], config)
    return model.set_adapter


def measure_switching(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """A row for each method: two adapters on SAM's encoder, there and back in turns."""
    sam = SUBJECTS["sam"](quick)
    model = partial(copy.deepcopy, sam.model)
    switches = {
        "Serial LoRA": with_ours(model(), SerialLoRAConfig(sam.rank)),
        "LoRA on q, k, v, out": with_ours(model(), LoRAConfig(sam.rank)),
        "PEFT LoRA": with_peft(model(), sam.rank, sam.peft_targets),
    }
    both = {
        method: lambda switch=switch: [switch(name) for name in NAMES]
        for method, switch in switches.items()
    }
    times = interleave(both, max(rounds, 20))
    halves = {method: [pair / 2 for pair in seconds] for method, seconds in times.items()}
    return [
        {"two adapters on SAM's encoder": m} | compared(halves[m], halves["PEFT LoRA"], "PEFT's")
        for m in halves
    ]
