"""The two adapters: the maths and nothing else.

Serial LoRA puts one low-rank pair in front of the attention of a block (paper, equation 3):

    x' = x + scale * (x A^T) B^T        x: (..., d)    A: (r, d)    B: (d, r)

so q, k and v all read the same adapted tokens. LoRA puts a pair beside each projection
(equation 2):

    y = W x + scale * (x A^T) B^T       A: (r, d_in)   B: (d_out, r)

In both, B starts at zero: a fresh adapter changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def _autocast_type(x: Tensor) -> torch.dtype | None:
    """The type autocast runs products of x in, None outside autocast."""
    kind = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def low_rank(x: Tensor, A: Tensor, B: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """scale * (x A^T) B^T: (..., d_in) -> (..., d_out); scaled where it is cheapest, r wide."""
    return x @ A.mT * scale @ B.mT


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own number type if that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class LowRankPair(nn.Module):
    """A and B, born so that their product is zero, and kept in float32.

    A request for half or bfloat16, such as `model.bfloat16()`, leaves the pair in float32: the
    steps of an optimizer are too small for eight bits. Inside autocast the products run in its
    type.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        # A tensor, which compiled code reads anew each time: another scale is no other program.
        self.factor = torch.tensor(float(scale), dtype=torch.float64, device="cpu")
        self.lora_A = nn.Parameter(torch.empty(rank, in_features, dtype=torch.float32))
        self.lora_B = nn.Parameter(torch.empty(out_features, rank, dtype=torch.float32))
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the pair fresh: A as PyTorch draws a linear layer's weight (standard deviation
        1 / sqrt(3 d_in)), B zero."""
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    @property
    def scale(self) -> float:
        return self.factor.item()

    def delta(self, x: Tensor) -> Tensor:
        """scale * (x A^T) B^T, in the type the products run in."""
        return low_rank(self.dropout(x), self.lora_A, self.lora_B, self.factor)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What the pair adds to a weight in front of which, or beside which, it stands.

        Args:
            weight: W, (outputs, inputs), in float32 or wider.

        Returns:
            The two factors of a product, (outputs, rank) and (rank, inputs), in W's type.
        """
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LowRankPair:
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            halved = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if halved else moved

        without_values = self.lora_A.is_meta
        super()._apply(keep_float32, recurse)
        if without_values and not self.lora_A.is_meta:
            self.reset_parameters()  # `to_empty` left whatever was in memory
        return self

    def extra_repr(self) -> str:
        outputs, rank = self.lora_B.shape
        return f"{self.lora_A.shape[1]} -> {rank} -> {outputs}, scale={self.scale:g}"


class SerialLoRA(LowRankPair):
    """x + scale * (x A^T) B^T, in front of attention (paper, equation 3).

    Args:
        width: d, the size of a token.
        rank: r, the width of the bottleneck.
        scale: what the second term is multiplied by.
        dropout: share of the adapter's input dropped in training; x itself passes whole.
    """

    def __init__(self, width: int, rank: int, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__(width, width, rank, scale, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d), in the type of x; inside autocast in autocast's type.

        The attention that follows would cast to autocast's type itself: doing it here, once, saves
        a cast and lets the sum run in the small type.
        """
        autocast = _autocast_type(x)
        tokens = x.to(autocast or self.lora_A.dtype)
        adapted = tokens + self.delta(tokens)
        return adapted if autocast else adapted.to(x.dtype)

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """scale * W B and A (the paper's equation 5)."""
        left = self.factor * (weight @ self.lora_B.to(weight.dtype))
        return left, self.lora_A.to(weight.dtype)


class LoRA(LowRankPair):
    """scale * (x A^T) B^T, to be added to what a projection gives (paper, equation 2).

    Args:
        in_features, out_features: the shape of the projection beside which it stands.
        rank, scale, dropout: as in `SerialLoRA`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out): the change only, to be added to W x."""
        return self.delta(x.to(_autocast_type(x) or self.lora_A.dtype))

    def factors(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """scale * B and A (the paper's equation 4)."""
        return self.factor * self.lora_B.to(weight.dtype), self.lora_A.to(weight.dtype)
