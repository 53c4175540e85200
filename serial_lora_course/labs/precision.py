"""What a run computes in: bfloat16 where a GPU has it natively, float32 everywhere else.

On CPUs bfloat16 is the luck of the processor: half the time of float32 with AVX-512's instructions for
it, ten times as long without. The tiny models compute in float32 on every machine, so that all
learners get the same numbers.
"""

from __future__ import annotations

import torch
from torch import nn

from serial_lora_course.labs.processes import process_state

PRECISIONS = ("auto", "bf16", "no")
LOOKING = {"tiny": "no", "paper": "auto"}
"""Scale -> precision of what is computed with a model to look at it, one picture at a time."""


def settle_precision(wanted: str, model: nn.Module | None = None) -> str:
    """``bf16`` or ``no`` (float32): the wanted one, or for ``auto`` the rule's.

    Args:
        model: that computes; weights in bfloat16 compute in bfloat16.
    """
    if wanted != "auto":
        return wanted
    if model is not None and in_bfloat16(model):
        return "bf16"
    on_gpu = process_state().device.type == "cuda"
    native = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if native else "no"


def in_bfloat16(model: nn.Module) -> bool:
    """Whether weights of a model are in bfloat16, as SD3's at paper scale: float32 would not fit."""
    return any(parameter.dtype == torch.bfloat16 for parameter in model.parameters())


def autocast(
    device: torch.device, precision: str, model: nn.Module | None = None
) -> torch.autocast:
    """The precision of a forward pass outside the training loop."""
    enabled = settle_precision(precision, model) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
