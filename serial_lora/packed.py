"""A faster nn.MultiheadAttention."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from serial_lora.adapted import project


class PackedAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention over scaled_dot_product_attention: same weights, same result.

    A model's layers are turned into this class by `inject` and back by `eject`, as it is faster in
    training, and calls what the original reads, which is cheaper where that is adapted.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(N, L, d), or (L, N, d) unless batch_first, to the same shape; and the weights."""
        if query.dim() == 2:  # one sequence, with the weight as it is read
            asked = (need_weights, attn_mask, average_attn_weights, is_causal)
            return super().forward(query, key, value, key_padding_mask, *asked)
        of_query = _projected(self, query)
        of_key = of_query if key is query else _projected(self, key)
        of_value = of_key if value is key else _projected(self, value)
        # (N, L, heads, d / heads) or (L, N, ...) -> (N, heads, L, d / heads), without a copy
        to_heads = (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3)
        q, k, v = (
            part.unflatten(-1, (self.num_heads, self.head_dim)).permute(to_heads)
            for part in (of_query[0], of_key[1], of_value[2])
        )
        mask, weights = _as_sdpa_mask(attn_mask, key_padding_mask, q), None
        causal, dropped = is_causal and mask is None, self.dropout if self.training else 0.0
        if need_weights:  # (N, heads, L, L): what becomes of values that say which token they are
            ones = torch.eye(k.shape[-2]).to(q).expand(*k.shape[:2], -1, -1)
            weights = F.scaled_dot_product_attention(q, k, ones, mask, dropped, causal)
            attended = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            with _fastest_kernel(q):
                attended = F.scaled_dot_product_attention(q, k, v, mask, dropped, causal)
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        return self.out_proj(attended.permute(order).flatten(2)), weights


def _projected(layer: nn.MultiheadAttention, tokens: Tensor) -> tuple[Tensor, ...]:
    """q, k and v of these tokens, (N, L, d) each, adapted; no method, as users may keep `forward`."""
    return project(layer, "in_proj_weight", tokens, layer.in_proj_bias).chunk(3, dim=-1)


def _fastest_kernel(q: Tensor) -> AbstractContextManager:
    """PyTorch's own choice, but for short rows in bfloat16 on a CPU, where it is up to thrice slower."""
    short = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] <= 256
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()


def _as_sdpa_mask(mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
    """nn.MultiheadAttention's masks, (L, L) or (N heads, L, L) and (N, L), as one for (N, heads, L, L).

    Numbers are added to the scores in both places, but True hides a token there and would show it here.
    """
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, q.shape[:2])  # (N, heads, L, L)
    if padding is not None:
        padding = padding[:, None, None, :]  # (N, 1, 1, L)
    numbers = [
        q.new_zeros(part.shape).masked_fill(part, -torch.inf)
        if part.dtype == torch.bool
        else part.to(q)
        for part in (mask, padding)
        if part is not None
    ]
    return reduce(torch.add, numbers) if numbers else None
