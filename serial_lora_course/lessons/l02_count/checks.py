"""Checks of lesson 02: the size of any LoRA, its rank at Serial LoRA's size, and what a model lacks."""

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


@exercise("2.3", "every name that one block lacks and another has, and no other")
def missing_matrices() -> Iterator[Case]:
    """Towers of up to eleven blocks, each possible name looked up in the list."""
    for lengths, matrices, gone in (
        ({"blocks": 3}, ("q.weight", "out.weight"), {"blocks.2.out.weight"}),
        ({"blocks": 11}, ("q.weight", "to_out.0.weight"), {"blocks.0.q.weight"}),
        ({"a": 2, "b": 4}, ("q.weight", "k.weight", "v.weight"), {"b.1.k.weight", "b.3.v.weight"}),
        ({"c": 3}, ("q.weight", "k.weight", "v.weight"), {"c.1.k.weight", "c.1.v.weight"}),
        ({"blocks": 2}, ("q.weight",), set()),
        ({"x": 3}, ("q.weight", "v.weight"), {"x.0.v.weight", "x.1.v.weight"}),  # one block has it
        ({"x": 11}, ("q.weight", "v.weight"), {"x.1.v.weight", "x.9.q.weight"}),
    ):
        full = [
            f"{t}.{n}.{m}" for t, blocks in lengths.items() for n in range(blocks) for m in matrices
        ]
        there = [name for name in full if name not in gone]
        yield Case(
            f"what is missing, where {sum(lengths.values())} blocks have {len(there)} matrices",
            (there,),
            [name for name in full if name in gone],
            read=lambda names, _: sorted(names),
            form="return a list of whole names, such as transformer_blocks.3.attn.to_q.weight",
        )
