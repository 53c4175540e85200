"""Checks of lesson 00: the adapter in one line, and a search."""

from __future__ import annotations

import math
from collections.abc import Iterator

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


@exercise(
    "0.2", "the places are those of the smallest angles, in order, for three sets of pictures"
)
def search() -> Iterator[Case]:
    """The angles one by one, and the places sorted by them."""
    for number, width, count in ((6, 4, 6), (40, 8, 5), (9, 3, 1)):
        pictures, sentence = torch.randn(number, width), torch.randn(width)
        pictures /= pictures.norm(dim=1, keepdim=True)
        sentence /= sentence.norm()
        angles = [math.acos(torch.dot(row, sentence).clamp(-1, 1)) for row in pictures]
        nearest = sorted(range(number), key=angles.__getitem__)[:count]
        yield Case(
            f"the {count} nearest of {number} pictures",
            (pictures, sentence, count),
            torch.tensor(nearest),
            form="return the places alone, a tensor of `count` whole numbers",
        )
