"""What lesson 03 measures, and three probes.

A probe is a question to any block that claims to be Serial LoRA: a module that keeps the plain block
as ``.block``, whose last layer is ``.block.out``, and that names its matrices ``lora_A`` and
``lora_B``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import open_clip
import pandas as pd
import torch
from torch import Tensor, nn


def small_clip() -> nn.Module:
    """A small CLIP of open_clip's class with random, frozen weights: width 128, 64 numbers a picture."""
    vision = {"image_size": 64, "patch_size": 16, "width": 128, "layers": 4, "head_width": 32}
    text = {"width": 64, "layers": 2, "heads": 2, "vocab_size": 512, "context_length": 16}
    return (
        open_clip.CLIP(embed_dim=64, vision_cfg=vision, text_cfg=text).eval().requires_grad_(False)
    )


def largest_moves(before: Mapping[str, Tensor], model: nn.Module) -> dict[str, float]:
    """How far the base's tensors, ``lora_A`` and ``lora_B`` have moved at most.

    Args:
        before: name -> value of each parameter at first.
    """
    moved = {"base": 0.0, "lora_A": 0.0, "lora_B": 0.0}
    for name, value in model.named_parameters():
        kind = name.rpartition(".")[2]
        kind = kind if kind in moved else "base"
        moved[kind] = max(moved[kind], (value.detach() - before[name]).abs().max().item())
    return moved


def trained_copy(adapted: nn.Module) -> nn.Module:
    """A copy whose ``lora_B`` hold random numbers, as if training had moved them."""
    result = copy.deepcopy(adapted)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if name.endswith("lora_B"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return result


@torch.no_grad()
def reaches_output(adapted: nn.Module, x: Tensor) -> bool:
    """Whether a trained adapter changes the block's output for x (B, N, d)."""
    return not torch.allclose(trained_copy(adapted)(x), adapted(x))


@torch.no_grad()
def leaves_stream_alone(adapted: nn.Module, x: Tensor) -> bool:
    """Whether x passes a trained block as it is once attention adds nothing."""
    silent = trained_copy(adapted)
    for parameter in silent.block.out.parameters():
        parameter.zero_()
    return torch.allclose(silent(x), x)


def number_of_pairs(adapted: nn.Module) -> int:
    """How many different pairs there are, whatever number of names each has."""
    return len({id(p) for name, p in adapted.named_parameters() if name.endswith("lora_A")})


def probe_table(
    blocks: Mapping[str, nn.Module],
    x: Tensor,
    has_effect: Callable[[nn.Module, Tensor], bool] = reaches_output,
    keeps_residual: Callable[[nn.Module, Tensor], bool] = leaves_stream_alone,
    pairs_in: Callable[[nn.Module], int] = number_of_pairs,
) -> pd.DataFrame:
    """One row a block, one column a probe, and the verdict."""
    rows = {}
    for name, adapted in blocks.items():
        effect, stream = has_effect(adapted, x), keeps_residual(adapted, x)
        pairs = pairs_in(adapted)
        right = effect and stream and pairs == 1
        rows[name] = {
            "has an effect": "yes" if effect else "NO",
            "leaves the stream alone": "yes" if stream else "NO",
            "pairs": str(pairs) if pairs == 1 else f"{pairs} (NOT 1)",
            "Serial LoRA?": "yes" if right else "no",
        }
    return pd.DataFrame(rows).T
