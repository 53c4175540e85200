"""CLIP's attention with a layer of its own for each projection, so that LoRA can wrap them one by one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F


class OpenAttention(nn.Module):
    """An `nn.MultiheadAttention` whose projections q, k, v and out are what ``wrap`` makes of them.

    Args:
        packed: q, k and v of one width, in one weight; its weights stay shared.
        wrap: from an `nn.Linear` to the layer that takes its place, such as LoRA round it.
    """

    def __init__(self, packed: nn.MultiheadAttention, wrap: Callable[[nn.Linear], nn.Module]):
        super().__init__()
        self.heads, width = packed.num_heads, packed.embed_dim
        weights, biases = packed.in_proj_weight.chunk(3), packed.in_proj_bias.chunk(3)
        layers = [nn.Linear(width, width) for _ in "qkv"]
        for layer, W, b in zip(layers, weights, biases, strict=True):
            layer.weight, layer.bias = nn.Parameter(W.detach()), nn.Parameter(b.detach())
        layers.append(packed.out_proj)
        self.q, self.k, self.v, self.out = map(wrap, layers)

    def forward(self, x: Tensor, *_, attn_mask: Tensor | None = None, **__) -> tuple[Tensor, None]:
        """Attention of tokens (B, N, d) to themselves: (B, N, d), and no weights.

        Args:
            attn_mask: (N, N), added to the scores.
        """
        projected = (layer(x) for layer in (self.q, self.k, self.v))  # (B, N, d) each
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in projected)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask)  # (B, heads, N, d / heads)
        return self.out(mixed.transpose(1, 2).flatten(-2)), None
