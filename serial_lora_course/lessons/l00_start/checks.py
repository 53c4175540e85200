"""Checks of lesson 00: the adapter in one line, what was lost and gained, and averages put back."""

from __future__ import annotations

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


@exercise("0.3", "words have the averages asked for, and differences between photographs stay")
def with_averages() -> Iterator[Case]:
    """Word by word, from the differences to the first photograph."""
    for count, words in ((3, 2), (70, 9), (5, 5)):
        scores, averages = 10 * torch.randn(count, words), 10 * torch.randn(words)
        apart = scores - scores[:1]
        columns = [apart[:, w] - sum(apart[:, w]) / count + averages[w] for w in range(words)]
        what = f"scores of {count} photographs for {words} words"
        yield Case(what, (scores, averages), torch.stack(columns, dim=1))
