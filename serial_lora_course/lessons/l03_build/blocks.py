"""Blocks and models that the exercises are checked with, written apart from the lesson's own.

Blocks take and give the residual stream, (B, N, d).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


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


class Pair(nn.Module):
    """A fresh pair, as the lesson's, by way of the dense matrix."""

    def __init__(self, width: int, rank: int, scale: float = 1.0, size: float = 1.0):
        super().__init__()
        self.scale = scale
        self.lora_A = nn.Parameter(size * torch.randn(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))

    def forward(self, x: Tensor) -> Tensor:
        return adapted_tokens(x, self.lora_A, self.lora_B, self.scale)

    def merged(self, weight: Tensor) -> Tensor:
        """W (I + scale B A): a row of W meets the transposed change, as a token meets the change."""
        return adapted_tokens(weight, self.lora_B.T, self.lora_A.T, self.scale)


class Wired(nn.Module):
    """A block with fresh pairs that runs as it is told: run(block, *pairs, x)."""

    def __init__(self, run: Callable, pairs: int = 1, size: float = 1.0):
        super().__init__()
        self.run, self.block = run, DenseBlock()
        self.pairs = nn.ModuleList(Pair(8, 2, size=size) for _ in range(pairs))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.block, *self.pairs, x)


def in_front(block: DenseBlock, pair: Pair, x: Tensor) -> Tensor:
    """Serial LoRA as the paper has it."""
    return x + block.attention(pair(block.norm(x)))


def on_the_stream(block: DenseBlock, pair: Pair, x: Tensor) -> Tensor:
    """The block's input is adapted before the residual split."""
    return block(pair(x))


def one_each(block: DenseBlock, for_q: Pair, for_k: Pair, for_v: Pair, x: Tensor) -> Tensor:
    """A pair for each of q, k and v."""
    normed = block.norm(x)
    return x + block.attend(block.q(for_q(normed)), block.k(for_k(normed)), block.v(for_v(normed)))


def behind_attention(block: DenseBlock, pair: Pair, x: Tensor) -> Tensor:
    """What attention adds is adapted."""
    return x + pair(block.attention(block.norm(x)))


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
