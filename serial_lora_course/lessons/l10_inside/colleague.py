"""Merged files whose making is for the learner to find."""

from __future__ import annotations

import random
from collections.abc import Callable

from torch import nn

from serial_lora import LoRAConfig, SerialLoRAConfig

METHODS = {"LoRA": LoRAConfig, "Serial LoRA": SerialLoRAConfig, "no adapter": None}


def merged_by_a_colleague(
    adapt: Callable[..., nn.Module], number: int
) -> tuple[nn.Module, tuple[str, int, int]]:
    """A merged CLIP in float16, and its method, rank and seed, which chance chose.

    Args:
        adapt: config, seed -> a model with the adapter merged, or trained itself where config is None.
        number: of the file; another one was made in another way.
    """
    chance = random.Random(number)
    method, rank, seed = chance.choice([*METHODS]), chance.randint(4, 24), chance.randrange(10)
    config = METHODS[method]
    model = adapt(config(rank, towers=["image"]) if config else None, seed)
    return model.half(), (method, rank, seed)
