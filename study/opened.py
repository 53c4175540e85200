"""Attention with its projections as plain linear layers, within reach of any adapter.

Other libraries want an nn.Linear for each of q, k, v and out. SAM has one for q, k and v together, open_clip
has weights without a layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from serial_lora.sites import AttentionSite

PARTS = ("q", "k", "v")


class OpenedQKV(nn.Module):
    """q, k and v of one (3 d, d) weight as three layers; tokens (..., d) to (..., 3 d)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        biases = [None] * 3 if bias is None else bias.chunk(3)
        for name, rows, own in zip(PARTS, weight.chunk(3), biases, strict=True):
            self.add_module(name, _linear(rows, own))

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([self.q(tokens), self.k(tokens), self.v(tokens)], dim=-1)


class OpenedAttention(nn.Module):
    """nn.MultiheadAttention of tokens to themselves, batch first: same weights, same result."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, self.batch_first = attention.num_heads, True
        self.qkv = OpenedQKV(attention.in_proj_weight, attention.in_proj_bias)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)

    def forward(
        self, query: Tensor, *_: Tensor, attn_mask: Tensor | None = None, **__: object
    ) -> tuple[Tensor, None]:
        """(N, L, d) to (N, L, d); the mask is added to the scores, (L, L)."""
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(query).chunk(3, dim=-1)
        )  # each (N, heads, L, d / heads)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if attn_mask is not None:
            scores = scores + attn_mask.to(scores.dtype)
        attended = scores.softmax(-1).to(v.dtype) @ v
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen layer over these very numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer


def open_projections(
    model: nn.Module, sites: Iterable[AttentionSite], undo: ExitStack
) -> dict[str, dict[str, str]]:
    """Open every site's attention until ``undo`` closes.

    Returns:
        For each site's label the dotted names of its "q", "k", "v" and "out", each an nn.Linear.
    """
    names: dict[str, dict[str, str]] = {}
    for site in sites:
        owners = {part: projection.module for part, projection in site.projections.items()}
        name, layer = owners["q"], model.get_submodule(owners["q"])
        if isinstance(layer, nn.MultiheadAttention):
            replace(model, name, OpenedAttention(layer), undo)
            owners = {part: f"{name}.qkv.{part}" for part in PARTS} | {"out": f"{name}.out_proj"}
        elif name == owners["k"]:
            replace(model, name, OpenedQKV(layer.weight, layer.bias), undo)
            owners |= {part: f"{name}.{part}" for part in PARTS}
        names[site.label] = owners
    return names


def replace(model: nn.Module, name: str, layer: nn.Module, undo: ExitStack) -> None:
    """Put a layer in another's place until ``undo`` closes."""
    around, _, own = name.rpartition(".")
    parent = model.get_submodule(around)
    undo.callback(setattr, parent, own, getattr(parent, own))
    setattr(parent, own, layer.train(parent.training))
