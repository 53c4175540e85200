"""An adapted model as if it had been trained."""

from __future__ import annotations

import copy

import torch
from torch import nn


def trained_copy(adapted: nn.Module) -> nn.Module:
    """A copy whose ``lora_B`` hold random numbers, as if training had moved them."""
    result = copy.deepcopy(adapted)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if name.endswith("lora_B"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return result
