"""How many numbers an adapter holds: by formula, and by walking a model.

Source: "Serial Low-rank Adaptation of Vision Transformer" (ICME 2025), equations 1-3.
"""

from __future__ import annotations

from torch import nn

from serial_lora.attention import find_attention_sites
from serial_lora.config import AdapterConfig
from serial_lora.errors import SerialLoRAError, require_number
from serial_lora.records import adapter_shapes

BYTES_PER_FLOAT32 = 4


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
