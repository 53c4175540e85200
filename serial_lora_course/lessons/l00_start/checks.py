"""Checks of lesson 00: the adapter in one line, what was lost and gained, and pairs switched off."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from serial_lora.layers import SerialLoRA
from serial_lora_course.checking.case import Case, Parts
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


@exercise(
    "0.3",
    "what is asked sees no change from these pairs and all of the others', and each works again",
)
def without() -> Iterator[Case]:
    """Pairs in a row, asked with some switched off, and then again; the rest in one dense matrix."""
    for count, off in ((2, (0,)), (3, (0, 2)), (4, (1, 2, 3))):
        pairs = [SerialLoRA(6, 2, 0.5) for _ in range(count)]
        for pair in pairs:
            nn.init.normal_(pair.lora_B)
        x, on = torch.randn(4, 6), [pair for i, pair in enumerate(pairs) if i not in off]
        expected = [x @ dense(kept).detach() for kept in (on, pairs)]
        yield Case(
            f"{len(off)} of {count} pairs switched off",
            ([pairs[i] for i in off], partial(nn.Sequential(*pairs).requires_grad_(False), x)),
            Parts(zip(("what was asked", "what is asked afterwards"), expected, strict=True)),
            read=lambda said, _, ask: (said, ask()),
            may_change=True,
        )


def dense(pairs: list[SerialLoRA]) -> torch.Tensor:
    """All of them as one matrix, for rows."""
    all_of_it = torch.eye(6)
    for pair in pairs:
        all_of_it = all_of_it @ (torch.eye(6) + pair.scale * pair.lora_B @ pair.lora_A).T
    return all_of_it
