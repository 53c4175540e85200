"""The average of factors that a sum of products is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from serial_lora import activate, adapters
from serial_lora.several import Pair


@torch.no_grad()
def average_factors(model: nn.Module, weights: Mapping[str, float]) -> None:
    """Put (w1 B1 + w2 B2)(w1 A1 + w2 A2) into every pair, in place of the adapter in force.

    Args:
        weights: name of an adapter of the model -> its weight; all have one rank.
    """
    parts = []
    for name, weight in weights.items():
        pairs = adapters(activate(model, name)).values()
        parts.append([[weight * m.detach().clone() for m in pair.parameters()] for pair in pairs])
    for pair, *of_pair in zip(adapters(model).values(), *parts, strict=True):
        for matrix, *terms in zip(pair.parameters(), *of_pair, strict=True):
            matrix.copy_(sum(terms))


def first_pair(model: nn.Module, name: str) -> Pair:
    """A and B of an adapter in the first block; the adapter is in force afterwards."""
    pair = next(iter(adapters(activate(model, name)).values()))
    return pair.lora_A.detach().clone(), pair.lora_B.detach().clone()
