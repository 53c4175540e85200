"""What lesson 10 asks for, for whoever skips an exercise: sums, chains and one pair for each sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""A (r, d) and B (d, r)."""


def add_pairs(pairs: Sequence[Pair], weights: Sequence[float]) -> Pair:
    """One pair for the sum of w_i B_i A_i, of the sum of their ranks."""
    weighted = [(A * weight, B) for weight, (A, B) in zip(weights, pairs, strict=True)]
    return torch.cat([A for A, _ in weighted]), torch.cat([B for _, B in weighted], dim=1)


def chain_pairs(first: Pair, second: Pair) -> Pair:
    """One pair for (I + B2 A2)(I + B1 A1), of the sum of their ranks."""
    (A1, B1), (A2, B2) = first, second
    return torch.cat([A1, A2]), torch.cat([B1 + B2 @ (A2 @ B1), B2], dim=1)


def adapt_each(x: Tensor, all_A: Tensor, all_B: Tensor, which: Tensor) -> Tensor:
    """x + x A^T B^T with a pair for each sample: x (B, N, d), A (K, r, d), B (K, d, r), which (B,)."""
    hidden = torch.einsum("ntd,nrd->ntr", x, all_A[which])
    return x + torch.einsum("ntr,ndr->ntd", hidden, all_B[which])
