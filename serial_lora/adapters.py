"""The two adapters: the maths and nothing else.

Serial LoRA puts one low-rank pair in front of the attention of a block (paper, equation 3):

    x' = x + scale * (x A^T) B^T        x: (..., d)    A: (r, d)    B: (d, r)

so q, k and v all read the same adapted tokens. LoRA puts a pair beside each projection
(equation 2):

    y = W x + scale * (x A^T) B^T       A: (r, d_in)   B: (d_out, r)

In both, B starts at zero: a fresh adapter changes nothing. Where the adapters go is told in
`serial_lora.attention`, how they get there in `serial_lora.inject`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError

TOWERS = ("image", "text")
STREAMS = ("image", "text", "both")


@dataclass(frozen=True)
class AdapterConfig:
    """What to put into a model. Use `SerialLoRAConfig` or `LoRAConfig`.

    Attributes:
        rank: r, the width of the bottleneck; at least 1.
        scale: what the adapter's contribution is multiplied by (the paper uses none, which is 1).
        dropout: share of the adapter's input that is dropped in training; the base never is.
        towers: "image", "text" or both; None adapts every tower the model has.
        blocks: indices of the blocks to adapt in each tower; None adapts them all.
        stream: which tokens of a two-stream transformer (SD3) to adapt: "image", "text", "both".

    Raises:
        SerialLoRAError: if a value is outside its range.
    """

    rank: int
    scale: float = 1.0
    dropout: float = 0.0
    towers: tuple[str, ...] | None = None
    blocks: tuple[int, ...] | None = None
    stream: str = "image"

    method: ClassVar[str]

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise SerialLoRAError(
                f"rank must be a whole number of at least 1, not {self.rank!r}; 4 to 64 is usual."
            )
        scale = _number("scale", self.scale)
        dropout = _number("dropout", self.dropout)
        if not 0 <= dropout < 1:
            raise SerialLoRAError(
                f"dropout is a share from 0 up to but not including 1, not {self.dropout!r}."
            )
        if self.stream not in STREAMS:
            raise SerialLoRAError(
                f"stream must be one of {', '.join(STREAMS)}, not {self.stream!r}."
            )
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "dropout", dropout)
        object.__setattr__(self, "towers", _subset_of_towers(self.towers))
        object.__setattr__(self, "blocks", _block_indices(self.blocks))


@dataclass(frozen=True)
class SerialLoRAConfig(AdapterConfig):
    """One pair a block, in front of q, k and v: 2 * d * r parameters."""

    method: ClassVar[str] = "serial_lora"


@dataclass(frozen=True)
class LoRAConfig(AdapterConfig):
    """The paper's baseline, a pair for each of q, k, v and out: 8 * d * r parameters a block."""

    method: ClassVar[str] = "lora"


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SerialLoRAError(f"{name} must be a finite number, not {value!r}.")
    return float(value)


def _subset_of_towers(towers: Collection[str] | str | None) -> tuple[str, ...] | None:
    if towers is None:
        return None
    chosen = tuple(towers) if isinstance(towers, Collection) else ()
    if isinstance(towers, str):
        chosen = (towers,)
    if not chosen or any(tower not in TOWERS for tower in chosen):
        raise SerialLoRAError(f"towers must name some of {', '.join(TOWERS)}, not {towers!r}.")
    return tuple(tower for tower in TOWERS if tower in chosen)


def _block_indices(blocks: Collection[int] | None) -> tuple[int, ...] | None:
    if blocks is None:
        return None
    chosen = tuple(blocks) if isinstance(blocks, Collection) else ()
    wrong = [b for b in chosen if isinstance(b, bool) or not isinstance(b, int) or b < 0]
    if not chosen or wrong:
        raise SerialLoRAError(
            f"blocks must be a list of block indices counted from 0, not {blocks!r}."
        )
    return tuple(sorted(set(chosen)))


def _autocast_type(x: Tensor) -> torch.dtype | None:
    """The type autocast runs products of x in, None outside autocast."""
    kind = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


class _LowRankPair(nn.Module):
    """A and B, born so that their product is zero, and kept in float32.

    A is drawn as PyTorch draws the weight of a linear layer (standard deviation 1 / sqrt(3 d_in));
    B is zero. A request for half or bfloat16, such as `model.bfloat16()`, moves the pair to the
    new device but leaves it in float32: the steps of an optimizer are too small for eight bits of
    precision. Inside autocast the products run in the autocast type all the same.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, scale: float, dropout: float
    ) -> None:
        super().__init__()
        self.rank, self.scale = rank, scale
        self.lora_A = nn.Parameter(torch.empty(rank, in_features, dtype=torch.float32))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, dtype=torch.float32))
        self.dropout = nn.Dropout(dropout)
        self.enabled = True  # read by the hooks in `serial_lora.inject`
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def delta(self, x: Tensor) -> Tensor:
        """scale * (x A^T) B^T: (..., d_in) -> (..., d_out), in the type the products run in."""
        hidden = F.linear(self.dropout(x), self.lora_A)  # (..., r)
        if self.scale != 1:
            hidden = hidden * self.scale  # cheaper here, r wide, than d wide at the end
        return F.linear(hidden, self.lora_B)  # (..., d_out)

    def _apply(self, fn, recurse=True):
        def keep_float32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            halved = moved.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(moved.device) if halved else moved

        return super()._apply(keep_float32, recurse)

    def extra_repr(self) -> str:
        outputs, rank = self.lora_B.shape
        return f"{self.lora_A.shape[1]} -> {rank} -> {outputs}, scale={self.scale:g}"


class SerialLoRA(_LowRankPair):
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


class LoRA(_LowRankPair):
    """scale * (x A^T) B^T, to be added to what a projection gives (paper, equation 2).

    Args:
        in_features, out_features: the shape of the projection beside which it stands.
        rank, scale, dropout: as in `SerialLoRA`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, out_features, rank, scale, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_in) -> (..., d_out): the change only, to be added to W x."""
        return self.delta(x.to(_autocast_type(x) or self.lora_A.dtype))
