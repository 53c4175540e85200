"""Checks of lesson 02: the size of any LoRA, and its rank at Serial LoRA's size."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise


def numel_of(shapes: list[tuple[int, int]], rank: int) -> int:
    """The elements of all pairs, counted by PyTorch on the meta device."""
    sizes = [size for i, o in shapes for size in ((rank, i), (o, rank))]
    return sum(torch.empty(size, device="meta").numel() for size in sizes)


@exercise("2.1", "the formula equals numel() for one matrix and for several, square or not")
def lora_parameters() -> Iterator[Case]:
    """The formula against numel() of tensors with these shapes."""
    for shapes, rank in (
        ([(3, 3), (6, 3), (2, 5)], 2),
        ([(512, 2048)], 8),
        ([(4, 6)], 9),  # a rank above both sides
        ([(6, 3), (3, 3)], 1),
        ([(768, 768)] * 4, 32),
        ([(768, 2304), (768, 768)], 5),
    ):
        what = f"the parameters of pairs of rank {rank} for {shapes}"
        yield Case(what, (shapes, rank), numel_of(shapes, rank))


@exercise(
    "2.2", "the rank fits and the next larger one does not, for square and rectangular matrices"
)
def rank_of_equal_size() -> Iterator[Case]:
    """The largest rank that fits, against trying them all, one after the other."""
    for shapes, width, rank in (
        ([(48, 48)] * 4, 48, 8),
        ([(12, 12)], 48, 20),  # smaller than the pair: a rank far above Serial LoRA's
        ([(20, 36), (36, 20)], 48, 7),
        ([(48, 48)] * 3, 48, 80),
        ([(48, 120), (48, 96)], 48, 70),
        ([(48, 24)] * 3 + [(24, 48)], 48, 50),
        ([(48, 12), (40, 48)], 48, 90),
        ([(48, 48)] * 4, 48, 3),
        ([(8, 9)], 48, 3),  # one parameter less than rank 17 has
    ):
        budget, fits = numel_of([(width, width)], rank), 0
        while numel_of(shapes, fits + 1) <= budget:
            fits += 1
        what = f"the rank of equal size for {shapes}, width {width}, Serial LoRA's rank {rank}"
        yield Case(what, (shapes, width, rank), fits)
