"""Blocks and models that the exercises are checked with, written apart from the lesson's own.

Blocks take and give the residual stream, (B, N, d).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from serial_lora.layers import SerialLoRA


def adapted_tokens(x: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float) -> Tensor:
    """x + scale x A^T B^T by way of the dense matrix I + scale B A."""
    dense = torch.eye(x.shape[-1]) + scale * torch.einsum("or,ri->oi", lora_B, lora_A)
    return torch.einsum("...i,oi->...o", x, dense)


class DenseBlock(nn.Module):
    """The attention half of a block."""

    def __init__(self, width: int = 8, heads: int = 2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.q, self.k, self.v, self.out):
            nn.init.normal_(layer.weight, std=0.5)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, d) each -> (B, N, d)."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def attention(self, tokens: Tensor) -> Tensor:
        """Normed tokens (B, N, d) -> what attention adds to the stream."""
        return self.attend(self.q(tokens), self.k(tokens), self.v(tokens))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class Faithful(nn.Module):
    """Serial LoRA as the paper has it."""

    def __init__(self):
        super().__init__()
        self.block, self.pair = DenseBlock(), SerialLoRA(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block.attention(self.pair(self.block.norm(x)))


class OnTheStream(Faithful):
    """The block's input is adapted before the residual split, from one of its tokens on."""

    def __init__(self, size: float, first: int = 0):
        super().__init__()
        self.first = first
        nn.init.normal_(self.pair.lora_A, std=size)

    def forward(self, x: Tensor) -> Tensor:
        adapted = [x[:, : self.first], self.pair(x[:, self.first :])]
        return self.block(torch.cat(adapted, dim=1))


class PairEach(Faithful):
    """A pair for each of q, k and v."""

    def __init__(self):
        super().__init__()
        self.pair = nn.ModuleDict({name: SerialLoRA(8, 2) for name in "qkv"})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.block.norm(x)
        q, k, v = (getattr(self.block, name)(self.pair[name](normed)) for name in "qkv")
        return x + self.block.attend(q, k, v)


class Attending(nn.Module):
    """A block around PyTorch's own attention; its width is in no name."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.MultiheadAttention(width, heads, batch_first=True)
        nn.init.normal_(self.mix.in_proj_bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x)
        return x + self.mix(tokens, tokens, tokens, need_weights=False)[0]


class Crossing(Attending):
    """A block whose attention reads other tokens for v, as DETR's does, or for k and v: cross-attention."""

    def __init__(self, width: int, *, keys: bool):
        super().__init__(width)
        self.keys = keys

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x)
        others = tokens.flip(1)
        return x + self.mix(tokens, others if self.keys else tokens, others)[0]


class TwoTowers(nn.Module):
    """Blocks of two widths at several depths."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(Attending(8), nn.Sequential(Attending(8), nn.GELU()))
        self.between, self.second = nn.Linear(8, 12), Attending(12)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, 8) -> (B, N, 12)."""
        return self.second(self.between(self.first(x)))
