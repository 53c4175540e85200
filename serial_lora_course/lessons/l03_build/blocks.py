"""Blocks and adapters that the exercises are checked with, written apart from the lesson's own.

They are plain matrix products and einsums, one head after another, so that the same
slip cannot hide in both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def adapted_tokens(x: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float) -> Tensor:
    """x + scale x A^T B^T by way of the dense matrix I + scale B A."""
    dense = torch.eye(x.shape[-1]) + scale * torch.einsum("or,ri->oi", lora_B, lora_A)
    return torch.einsum("...i,oi->...o", x, dense)


class DenseBlock(nn.Module):
    """The attention half of a block, one head after another, in plain matrix products."""

    def __init__(self, width: int = 8, heads: int = 2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.heads = heads
        for name in ("q", "k", "v", "out"):
            layer = nn.Linear(width, width)
            nn.init.normal_(layer.weight, std=0.5)
            setattr(self, name, layer)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, d) each -> (B, N, d)."""
        size = q.shape[-1] // self.heads
        mixed = []
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            scores = torch.einsum("bnc,bmc->bnm", q[..., part], k[..., part]) / math.sqrt(size)
            mixed.append(torch.einsum("bnm,bmc->bnc", scores.softmax(-1), v[..., part]))
        return self.out(torch.cat(mixed, dim=-1))

    def attention(self, tokens: Tensor) -> Tensor:
        """Normed tokens (B, N, d) -> what attention adds to the stream."""
        return self.attend(self.q(tokens), self.k(tokens), self.v(tokens))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return x + self.attention(self.norm(x))


class Pair(nn.Module):
    """x + B A x; ``fresh`` leaves B at zero."""

    def __init__(self, width: int = 8, rank: int = 2, fresh: bool = True):
        super().__init__()
        self.lora_A = nn.Parameter(torch.randn(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        if not fresh:
            nn.init.normal_(self.lora_B)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return adapted_tokens(x, self.lora_A, self.lora_B, 1.0)


class Faithful(nn.Module):
    """Serial LoRA as the paper has it."""

    def __init__(self, fresh: bool = True):
        super().__init__()
        self.block = DenseBlock()
        self.pair = Pair(fresh=fresh)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return x + self.block.attention(self.pair(self.block.norm(x)))


class Ineffective(Faithful):
    """The adapted values are stored, and the plain block runs."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        self.stored = self.block.q(self.pair(self.block.norm(x))).detach()
        return self.block(x)


class OnTheStream(Faithful):
    """The block's input is adapted before the residual split."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return self.block(self.pair(x))


class PairEach(nn.Module):
    """A pair for each of q, k and v."""

    def __init__(self, fresh: bool = True):
        super().__init__()
        self.block = DenseBlock()
        self.pairs = nn.ModuleDict({name: Pair(fresh=fresh) for name in "qkv"})

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        normed = self.block.norm(x)
        q, k, v = (getattr(self.block, name)(self.pairs[name](normed)) for name in "qkv")
        return x + self.block.attend(q, k, v)


class SharedPair(PairEach):
    """One pair that q, k and v all refer to: three names, one pair."""

    def __init__(self, fresh: bool = True):
        super().__init__(fresh)
        self.pairs["k"] = self.pairs["v"] = self.pairs["q"]


class EqualPairs(PairEach):
    """A pair for each of q, k and v, all with the same numbers at the start."""

    def __init__(self, fresh: bool = True):
        super().__init__(fresh)
        for name in "kv":
            self.pairs[name].load_state_dict(self.pairs["q"].state_dict())
