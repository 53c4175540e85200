"""What counts in an adapter that was just made: what is trained, and what its two matrices hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Parts
from serial_lora_course.checking.message import require

TRAINED, B_START, A_START, KINDS = (
    "the trained parameters and their shapes",
    "lora_B at the start",
    "lora_A at the start",
    "the types of the numbers",
)


def fresh_pair(A: tuple[int, int], B: tuple[int, int]) -> Parts:
    """What is expected of an adapter with matrices of these shapes."""
    shapes = {"lora_A": A, "lora_B": B}
    values = (shapes, "all zero", "random numbers of ordinary size", "torch.float32")
    return Parts(zip((TRAINED, B_START, A_START, KINDS), values, strict=True))


def facts_of(adapter: nn.Module, another: nn.Module, base: bool = False) -> dict[str, object]:
    """What an adapter is like, beside another made in the same way; but for a frozen base, if it has one."""
    kind, cause = type(adapter).__name__, "inherit from nn.Module and call super().__init__() first"
    require(isinstance(adapter, nn.Module), "the object", "an nn.Module", f"a {kind}", cause)
    found = {n: p for n, p in adapter.named_parameters() if p.requires_grad or not base}
    shapes = {n: tuple(p.shape) if p.requires_grad else "frozen" for n, p in found.items()}
    if set(found) != {"lora_A", "lora_B"}:
        return {TRAINED: shapes, B_START: "", A_START: "", KINDS: ""}
    return {
        TRAINED: shapes,
        B_START: "other numbers" if adapter.lora_B.any() else "all zero",
        A_START: start_of(adapter.lora_A, another.lora_A),
        KINDS: ", ".join(sorted({str(p.dtype) for p in found.values()})),
    }


def start_of(A: Tensor, another: Tensor) -> str:
    """What an A at the start is like, in words."""
    if not A.any():
        return "all zero"
    if not A.isfinite().all():
        return "not all finite"
    if (A == A[:1]).all():
        return "all rows equal"
    if torch.equal(A, another):
        return "the same in each adapter"
    spread = A.std().item()
    ordinary = 1e-3 < spread < 10
    return (
        "random numbers of ordinary size"
        if ordinary
        else f"numbers with a standard deviation of {spread:.1g}"
    )
