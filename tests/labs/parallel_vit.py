"""A vision transformer of no family that the package knows, for lesson 12.

Its blocks run attention and MLP side by side, both on the same normed tokens, as ViT-22B and some
language models do; its keys and values come out of one weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ParallelAttention(nn.Module):
    """Attention whose keys and values come out of one weight."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)  # keys above, values below
        self.collect = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)"""
        q, (k, v) = self.query(tokens), self.key_value(tokens).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, N, d / heads)
        return self.collect(mixed.transpose(1, 2).flatten(2))


class ParallelBlock(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)), with one norm for both."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = ParallelAttention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)"""
        normed = self.norm(x)
        return x + self.attention(tokens=normed) + self.mlp(normed)


class ParallelViT(nn.Module):
    """Pictures (B, 3, size, size) -> one vector each, (B, d)."""

    def __init__(
        self, image_size: int = 48, patch: int = 8, width: int = 64, heads: int = 4, depth: int = 3
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn((image_size // patch) ** 2, width))
        self.stages = nn.ModuleList(ParallelBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.patches(pictures).flatten(2).transpose(1, 2) + self.position  # (B, N, d)
        for block in self.stages:
            x = block(x)
        return self.norm(x).mean(dim=1)
