"""How many numbers an adapter holds: by formula, by walking a model, and by counting tensors.

Source: "Serial Low-rank Adaptation of Vision Transformer" (ICME 2025), equations 1-3.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from serial_lora.attention import find_attention_sites
from serial_lora.config import AdapterConfig
from serial_lora.errors import SerialLoRAError, require_number
from serial_lora.records import adapter_shapes, adapters, records

BYTES_PER_FLOAT32 = 4

# --------------------------------------------------------------------------- closed forms


def pair_count(inputs: int, outputs: int, rank: int) -> int:
    """Elements of one low-rank pair: A is (rank, inputs), B is (outputs, rank).

    Raises:
        SerialLoRAError: if a number is not a whole number of at least 1, or the rank is larger
            than the smaller side of the matrix it is meant to approximate.
    """
    for name, number in (("inputs", inputs), ("outputs", outputs), ("rank", rank)):
        require_number(name, number, whole=True, least=1)
    if rank > min(inputs, outputs):
        raise SerialLoRAError(
            f"rank {rank} is above {min(inputs, outputs)}, the width it is meant to reduce; "
            "choose a smaller rank."
        )
    return rank * (inputs + outputs)


def serial_lora_count(width: int, depth: int, rank: int) -> int:
    """Serial LoRA's parameters: one pair a block, 2 * width * rank * depth (paper, eq. 3)."""
    require_number("depth", depth, whole=True, least=1)
    return depth * pair_count(width, width, rank)


def lora_count(width: int, depth: int, rank: int) -> int:
    """LoRA's parameters with a pair on q, k, v and out: 8 * width * rank * depth (paper, eq. 2)."""
    require_number("depth", depth, whole=True, least=1)
    return 4 * depth * pair_count(width, width, rank)


# --------------------------------------------------------------------------- counting a model


@dataclass(frozen=True)
class ParameterCount:
    """What a model holds.

    Attributes:
        trainable: elements of the parameters that require gradients.
        total: elements of all parameters, adapters included.
        adapter: elements of the injected adapters' parameters.
        adapter_bytes: bytes of those, at the precision they are kept in.
        also_trained: elements of the parameters that learn beside the adapters.
    """

    trainable: int
    total: int
    adapter: int
    adapter_bytes: int
    also_trained: int = 0

    @property
    def share(self) -> float:
        """Trainable parameters as a share of all."""
        return self.trainable / self.total if self.total else 0.0

    def __str__(self) -> str:
        others = f", what learns beside them {self.also_trained:,}" if self.also_trained else ""
        return (
            f"{self.trainable:,} of {self.total:,} parameters are trainable ({self.share:.2%}); "
            f"the adapters hold {self.adapter:,} ({self.adapter_bytes:,} bytes){others}"
        )


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count a model's parameters; each shared tensor once. Works with and without adapters."""
    parameters = list(model.parameters())
    adapter = [p for pair in adapters(model).values() for p in pair.parameters()]
    learners = [m for _, record in records(model) for m in record.also_train.values()]
    beside = {id(p): p for module in learners for p in module.parameters()}.values()
    return ParameterCount(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters),
        adapter=sum(p.numel() for p in adapter),
        adapter_bytes=sum(p.numel() * p.element_size() for p in adapter),
        also_trained=sum(p.numel() for p in beside),
    )


def enumerate_count(model: nn.Module, config: AdapterConfig) -> int:
    """What adapters of this config would hold, read off the model's own weights.

    Raises:
        SerialLoRAError: if the model has no known attention, or the rank is above a width.
    """
    sites = find_attention_sites(model, config.towers, config.blocks, config.stream)
    return sum(
        pair_count(*shape, config.rank)
        for site in sites
        for shape in adapter_shapes(site, config).values()
    )
