"""Checks of lesson 02: the size of any LoRA, and the rank at which it is as large as Serial LoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise


def numel_of(shapes: list[tuple[int, int]], rank: int) -> int:
    """The elements of all pairs, counted by PyTorch on the meta device."""
    sizes = [size for i, o in shapes for size in ((rank, i), (o, rank))]
    return sum(torch.empty(size, device="meta").numel() for size in sizes)


def size_by(of_pair: Callable[[int, int, int], int]) -> Callable:
    """The sum over all pairs of something that is not a pair's size."""
    return lambda shapes, rank: sum(of_pair(i, o, rank) for i, o in shapes)


@exercise(
    "2.1",
    "the formula equals numel() for one matrix and for several, square or not",
    {
        "matrices are taken to be square: outputs can differ from inputs": (
            size_by(lambda i, o, r: 2 * i * r)
        ),
        "matrices are taken to be square: inputs can differ from outputs": (
            size_by(lambda i, o, r: 2 * o * r)
        ),
        "only A is counted: B holds outputs x rank more": size_by(lambda i, o, r: i * r),
        "only B is counted: A holds rank x inputs more": size_by(lambda i, o, r: o * r),
        "those are the full matrices, not the pairs": size_by(lambda i, o, r: i * o),
        "those are the full matrices, times the rank": size_by(lambda i, o, r: i * o * r),
        "the rank is left out": size_by(lambda i, o, r: i + o),
        "neither matrix of a pair has a bias": size_by(lambda i, o, r: r * i + r + o * r + o),
        "only the first matrix is counted: add all up": lambda shapes, rank: rank * sum(shapes[0]),
        "only the last matrix is counted: add all up": lambda shapes, rank: rank * sum(shapes[-1]),
        "those are bytes: the number of elements is asked for": size_by(
            lambda i, o, r: 4 * r * (i + o)
        ),
    },
)
def numbers_in_pairs() -> Iterator[Case]:
    """The formula against numel() of tensors with these shapes."""
    for shapes, rank in (
        ([(512, 2048)], 8),
        ([(6, 3), (3, 3)], 1),
        ([(768, 768)] * 4, 32),
        ([(768, 2304), (768, 768)], 5),
    ):
        what = f"the numbers in pairs of rank {rank} for {shapes}"
        yield Case(what, (shapes, rank), numel_of(shapes, rank))


def by_trying(shapes: list[tuple[int, int]], width: int, rank: int) -> int:
    """The largest rank that fits, one after the other."""
    budget, one, found = numel_of([(width, width)], rank), numel_of(shapes, 1), 0
    while (found + 1) * one <= budget:
        found += 1
    return found


def total(shapes: list[tuple[int, int]]) -> int:
    """What one rank costs."""
    return sum(i + o for i, o in shapes)


@exercise(
    "2.2",
    "no larger rank fits, and that one does, for square matrices and others",
    {
        "the fraction is upside down: Serial LoRA's size is above the line": (
            lambda shapes, width, rank: total(shapes) * rank // (2 * width)
        ),
        "it is rounded up or to the nearest: at most as many numbers, so round down": (
            lambda shapes, width, rank: round(2 * width * rank / total(shapes)),
            lambda shapes, width, rank: -(-2 * width * rank // total(shapes)),
        ),
        "that is one rank too many: the first that no longer fits": (
            lambda shapes, width, rank: 2 * width * rank // total(shapes) + 1
        ),
        "rank 0 is never returned: it is the answer where rank 1 does not fit": (
            lambda shapes, width, rank: max(1, 2 * width * rank // total(shapes))
        ),
        "Serial LoRA's pair has two matrices: 2 x width x rank": (
            lambda shapes, width, rank: width * rank // total(shapes)
        ),
        "pairs are counted, but a pair that is not square has another size": (
            lambda shapes, width, rank: rank // len(shapes)
        ),
        "a quarter of the rank is right for four square matrices alone": (
            lambda shapes, width, rank: rank // 4
        ),
        "only one side of the matrices is counted: a pair holds inputs + outputs": (
            lambda shapes, width, rank: width * rank // sum(i for i, _ in shapes),
            lambda shapes, width, rank: width * rank // sum(o for _, o in shapes),
        ),
        "it is rounded down too early: multiply first, divide once": (
            lambda shapes, width, rank: rank // (total(shapes) // (2 * width))
        ),
        "full matrices are compared, not pairs": (
            lambda shapes, width, rank: width * width * rank // sum(i * o for i, o in shapes)
        ),
    },
)
def rank_of_equal_size() -> Iterator[Case]:
    """The largest rank that fits, against trying them all."""
    for shapes, width, rank in (
        ([(48, 48)] * 4, 48, 8),
        ([(48, 48)] * 3, 48, 80),
        ([(48, 120), (48, 96)], 48, 70),
        ([(48, 24)] * 3 + [(24, 48)], 48, 50),
        ([(48, 12), (40, 48)], 48, 90),
        ([(48, 48)] * 4, 48, 3),
    ):
        what = f"the rank of equal size for {shapes}, width {width}, Serial LoRA's rank {rank}"
        yield Case(what, (shapes, width, rank), by_trying(shapes, width, rank))
