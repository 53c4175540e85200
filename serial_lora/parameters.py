"""The parameters of an adapted model: the adapters' own, all counted, and in groups for an optimizer.

LoRA+ (Hayou, Ghosh and Yu, "LoRA+: Efficient Low Rank Adaptation of Large Models", 2024) gives B a
higher learning rate than A; the paper uses a ratio of 20. A ratio of 1 is plain LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from serial_lora.errors import NO_ADAPTERS, SerialLoRAError, require_number
from serial_lora.state import adapters, records


def adapter_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The tensors lora_A and lora_B of every adapter, for an optimizer or for counting."""
    for adapter in adapters(model).values():
        yield from adapter.parameters()


@dataclass(frozen=True)
class ParameterCount:
    """What a model holds.

    Attributes:
        trainable: elements of the parameters that require gradients.
        total: elements of all parameters, adapters included.
        adapter: elements of the injected adapters' parameters.
    """

    trainable: int
    total: int
    adapter: int


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count a model's parameters; each shared tensor once. Works with and without adapters."""
    parameters = list(model.parameters())
    return ParameterCount(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters),
        adapter=sum(p.numel() for p in adapter_parameters(model)),
    )


def lora_plus_groups(
    model: nn.Module, lr: float, ratio: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Every trainable tensor of the model in exactly one group, for any torch optimizer.

    Args:
        lr: learning rate of A, and of whatever else is trainable (`also_train`).
        ratio: learning rate of B divided by that of A.
        weight_decay: for every group.

    Returns:
        Groups with the keys name, params, lr and weight_decay, named "lora_A", "lora_B" and "other";
        none that is empty.
    """
    require_number("lr", lr, least=0)
    require_number("ratio", ratio, above=0)
    require_number("weight_decay", weight_decay, least=0)
    require_number("lr times ratio", lr * ratio)
    found = list(adapters(model).values())
    if not found:
        raise SerialLoRAError(NO_ADAPTERS)
    for _, injection in records(model):
        injection.refuse_merged()  # they would not learn
        injection.refuse_inside()
    first, second = [pair.lora_A for pair in found], [pair.lora_B for pair in found]
    own = {id(parameter) for parameter in first + second}
    others = [p for p in model.parameters() if id(p) not in own]
    groups = []
    kinds = {"lora_A": (first, lr), "lora_B": (second, lr * ratio), "other": (others, lr)}
    for name, (parameters, rate) in kinds.items():
        learning = list(dict.fromkeys(p for p in parameters if p.requires_grad))  # pairs may share
        if learning:
            settings = {"lr": float(rate), "weight_decay": float(weight_decay)}
            groups.append({"name": name, "params": learning} | settings)
    return groups
