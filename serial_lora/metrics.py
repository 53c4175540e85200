"""Measures, each a pure function of tensors."""

from __future__ import annotations

from torch import Tensor


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of ``scores`` (N, classes) whose largest entry is at ``labels`` (N,)."""
    return (scores.argmax(dim=1) == labels).float().mean().item()
