"""Checks of lesson 00: the adapter in one line, what was lost and gained, and how far a vector moved."""

from __future__ import annotations

from collections.abc import Iterator
from math import hypot
from operator import mul

import torch

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise


@exercise(
    "0.1", "the output equals x (I + scale B A)ᵀ for tokens of any shape, and so do gradients"
)
def adapted() -> Iterator[Case]:
    """Tokens of three shapes, through one dense matrix."""
    for shape, rank, scale in (((2, 5, 12), 3, 0.5), ((4, 4), 4, 1.0), ((2, 3, 4, 8), 2, 3)):
        width = shape[-1]
        x, A, B = torch.randn(shape), torch.randn(rank, width), torch.randn(width, rank)
        for tensor in (x, A, B):
            tensor.requires_grad_()
        dense = torch.eye(width) + scale * torch.einsum("or,ri->oi", B, A)
        yield Case(
            f"tokens of shape {shape} at rank {rank} and scale {scale}",
            (x, A, B, scale),
            torch.einsum("...i,oi->...o", x, dense),
            leaves=lambda x, A, B, scale: {"x": x, "A": A, "B": B},
        )


@exercise("0.2", "lost and gained are paired, photograph by photograph, for three sets of answers")
def lost_and_gained() -> Iterator[Case]:
    """One photograph after the other."""
    for count, classes in ((6, 3), (40, 4), (9, 2)):
        before, after, truth = torch.randint(classes, (3, count))
        pairs = [(bool(a == t), bool(b == t)) for a, b, t in zip(before, after, truth, strict=True)]
        expected = tuple(
            torch.tensor([i for i in range(count) if pairs[i] == kind], dtype=torch.long)
            for kind in ((True, False), (False, True))
        )
        what = f"{count} photographs of {classes} classes"
        yield Case(what, (before, after, truth), expected, form="return two tensors of places")


@exercise("0.3", "1 - cosine, row by row, for vectors of any length")
def how_far() -> Iterator[Case]:
    """Row by row, with lengths and products in plain numbers."""
    for count, width, longest in ((3, 2, 1), (70, 9, 10), (5, 5, 4)):
        old, new = (torch.randn(count, width, dtype=torch.float64) for _ in range(2))
        if longest == 1:
            old, new = (each / each.norm(dim=1, keepdim=True) for each in (old, new))
        else:
            old, new = old * longest, new * (1 + longest * torch.rand(count, 1))
        rows = list(zip(old.tolist(), new.tolist(), strict=True))
        cosines = [sum(map(mul, a, b)) / (hypot(*a) * hypot(*b)) for a, b in rows]
        expected = torch.tensor([1 - each for each in cosines], dtype=torch.float64)
        lengths = "length 1" if longest == 1 else "any length"
        yield Case(f"{count} vectors of {lengths} in {width} dimensions", (old, new), expected)
