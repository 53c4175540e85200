"""Precisions and instructions that are measured side by side."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

PRECISIONS = ("float32", "bfloat16")
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""The environment in which torch takes a processor for one that has nothing newer than AVX2."""


def precision_context(precision: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast for "bfloat16", nothing for "float32"."""
    if precision == "bfloat16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()
