"""What it takes to change adapters on one model: ours, and PEFT's `set_adapter`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.steps import fill_adapters
from benchmarks.subjects import subject
from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.injection import adapter_parameters, inject
from serial_lora.named import activate, add_adapter
from serial_lora_course.labs.timing import interleave

NAMES = ("first", "second")
Switch = Callable[[nn.Module, str], object]


def two_adapters(model: nn.Module, config: AdapterConfig) -> nn.Module:
    """Two adapters of this package, with something in them."""
    inject(model, config, name=NAMES[0])
    fill_adapters(adapter_parameters(model))
    add_adapter(model, NAMES[1])
    fill_adapters(adapter_parameters(model))
    return model


def _ours(model: nn.Module, config: AdapterConfig) -> tuple[nn.Module, Switch, int]:
    """One switch copies one adapter out of the pairs and one into them."""
    two_adapters(model, config)
    size = sum(p.numel() * p.element_size() for p in adapter_parameters(model))
    return model, activate, size


def _peft(model: nn.Module, rank: int, targets: str) -> tuple[nn.Module, Switch, int]:
    import peft

    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    model = peft.get_peft_model(model, config, adapter_name=NAMES[0])
    model.add_adapter(NAMES[1], config)
    pairs = {n: p for n, p in model.named_parameters() if "lora_" in n}
    fill_adapters(pairs.values())
    size = sum(p.numel() * p.element_size() for n, p in pairs.items() if f".{NAMES[1]}." in n)
    return model, lambda model, name: model.set_adapter(name), size


def graphs(model: nn.Module, forward: Callable[[], object], switch: Switch) -> int:
    """How many programs torch.compile makes while adapters are changed four times."""
    made: list[object] = []

    def backend(graph: Any, inputs: Any) -> Callable:
        made.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(forward, backend=backend)
    with torch.no_grad():
        for turn in range(5):
            switch(model, NAMES[turn % 2])
            compiled()
    return len(made)


def measure_switching(quick: bool, rounds: int) -> list[dict[str, Any]]:
    """A row for each method: on SAM's encoder, whose layers PEFT's LoRA has layers for."""
    sam = subject("sam", quick)
    base, picture = sam.build().eval(), sam.inputs()
    rank = sam.rank
    rows = [
        ("serial_lora", "Serial LoRA", *_ours(copy.deepcopy(base), SerialLoRAConfig(rank))),
        ("lora", "LoRA on q, k, v, out", *_ours(copy.deepcopy(base), LoRAConfig(rank))),
        ("peft", "PEFT LoRA", *_peft(copy.deepcopy(base), rank, sam.peft_targets)),
    ]

    def change(model: nn.Module, switch: Switch) -> Callable[[], None]:
        def there_and_back() -> None:
            switch(model, NAMES[0])
            switch(model, NAMES[1])

        return there_and_back

    changes = {key: change(model, switch) for key, _, model, switch, _ in rows}
    times = interleave(changes, max(rounds, 20))
    return [
        {"method": key, "title": title, "adapter_bytes": size}
        | {name: value / 2 for name, value in times[key].named("seconds").items()}
        | {"ratio": times[key].ratio_to(times["peft"])}
        | {"graphs": graphs(model, lambda m=model: sam.forward(m, picture), switch)}
        for key, title, model, switch, size in rows
    ]
