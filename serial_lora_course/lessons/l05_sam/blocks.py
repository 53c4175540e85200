"""A windowed block that the exercises are checked with, one window after another, in plain sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WindowBlock(nn.Module):
    """The attention half of a SAM block: norm1, attn and window_size, on a random start.

    ``attn`` takes any number of windows (N, side, side, d) and lets the tokens of each attend to
    one another, with a bias in every projection, so that a zero token does not stay zero.
    """

    def __init__(self, width: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm1 = nn.LayerNorm(width)
        nn.init.normal_(self.norm1.weight)
        nn.init.normal_(self.norm1.bias)
        self.attn = WindowAttention(width)


class WindowAttention(nn.Module):
    """PyTorch's attention over the tokens of each window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(width, num_heads=1, batch_first=True)
        for parameter in self.attend.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, windows: Tensor) -> Tensor:
        """(N, height, width, d) -> the same shape."""
        tokens = windows.flatten(1, 2)
        return self.attend(tokens, tokens, tokens, need_weights=False)[0].view_as(windows)


class Change(nn.Module):
    """x + B A x + bias, the bias being zero for a Serial LoRA pair."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.randn(2, width))
        self.lora_B = nn.Parameter(torch.randn(width, 2))
        self.bias = nn.Parameter(torch.randn(width) * bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return x + torch.einsum("...i,ri,or->...o", x, self.lora_A, self.lora_B) + self.bias


def one_window_at_a_time(attn, tokens: Tensor, side: int, adapt=None) -> Tensor:
    """Attention within windows of (B, H, W, d), each cut out, filled up with zeros and put back.

    ``adapt`` is applied to what a window was filled up to, zeros included.
    """
    result = torch.zeros_like(tokens)
    _, height, width, _ = tokens.shape
    for top in range(0, height, side or height):
        for left in range(0, width, side or width):
            rows = slice(top, min(top + (side or height), height))
            columns = slice(left, min(left + (side or width), width))
            cut = tokens[:, rows, columns]
            tall, wide = cut.shape[1:3]
            full = tokens.new_zeros(len(tokens), side or height, side or width, tokens.shape[-1])
            full[:, :tall, :wide] = cut
            full = full if adapt is None else adapt(full)
            result[:, rows, columns] = attn(full)[:, :tall, :wide]
    return result
