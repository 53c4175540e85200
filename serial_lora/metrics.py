"""Measures, each a pure function of tensors."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of rows of ``scores`` (N, classes) whose largest entry is at ``labels`` (N,)."""
    return multiclass_accuracy(
        scores, labels, num_classes=scores.shape[1], average="micro"
    ).item()
