"""What lesson 01's figures and tables say, in words."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor


def read_needed(needed: Mapping[str, int], full: int, allowed: float) -> str:
    """What rank each matrix needs for a miss; ``full`` is the highest there is."""
    ranks = ", ".join(f"{rank} for {name}" for name, rank in needed.items())
    return f"To miss no more than {allowed:.0%} takes rank {ranks}; the full rank is {full}."


def read_first_ranks(table: pd.DataFrame) -> str:
    """Which wishes of :func:`serial_lora_course.labs.pairs.first_ranks` Serial LoRA reaches."""
    never = table["Serial LoRA"] == "never"
    reached = ", ".join(
        f"“{row.wish}” at rank {rank}"
        for row, rank in zip(table[~never].itertuples(), table["Serial LoRA"][~never], strict=True)
    )
    missed = ", ".join(
        f"{share} of “{wish}”"
        for wish, share in table[never][["wish", "Serial LoRA at full rank misses"]].to_numpy()
    )
    return (
        f"LoRA and the black line reach all {len(table)} wishes. Serial LoRA reaches {reached or 'none'}; at full "
        f"rank it still misses {missed or 'nothing'}."
    )


def read_miss(miss: float, curves: Mapping[str, Tensor], rank: int) -> str:
    """How near a serial pair comes to a real wish, and how near the others do.

    Args:
        miss: of the pair of this rank.
        curves: what :func:`serial_lora_course.measures.lowrank.misses_by_method` says.
    """
    lora, one_space, serial = curves.values()
    same = int((one_space > lora[rank]).sum())
    return (
        f"At rank {rank} LoRA misses {lora[rank]:.0%} of the gradients and the serial pair {miss:.0%}; at full "
        f"rank it still misses {serial[-1]:.0%}. One row space is as good as LoRA at rank {same}, where wishes "
        f"with nothing in common would need up to {3 * rank}."
    )


def read_floors(floors: pd.DataFrame) -> str:
    """How turned and mixed wishes move the floor, and what the floor means for a step's loss."""
    turned = floors[[f"{part} turned" for part in "qkv"]].sub(floors["as it is"], axis=0)
    low, high, mean = (
        100 * each for each in (turned.min().min(), turned.max().max(), turned.stack().mean())
    )
    floor = torch.tensor(floors["as it is"].mean())
    return (
        f"Turning a wish round moves the floor by {low:+.1f} to {high:+.1f} points, {mean:+.1f} on average; "
        f"mixing the rows brings it from {floor:.0%} to {floors['rows mixed'].mean():.0%}. The part that Serial "
        f"LoRA can express makes an angle of {torch.rad2deg(torch.asin(floor)):.0f} degrees with the wish, and a "
        f"step of the same length along it lowers the loss at first {(1 - floor**2) ** 0.5:.0%} as fast."
    )


def read_first_steps(steps: pd.DataFrame) -> str:
    """By what factor the first step depends on the size of W, for each method and optimizer."""
    sizes = steps.filter(like="W times")
    factors = sizes.max(axis=1) / sizes.min(axis=1)
    said = ", ".join(
        f"{factor:.1f} for {method} under {name.partition(',')[0]}"
        for (name, method), factor in factors.items()
    )
    return f"The largest first step over the smallest, for one and the same function: {said}."
