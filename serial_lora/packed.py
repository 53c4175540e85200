"""Attention layers that had to be opened: their projections, within reach of an adapter."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class PackedAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention over scaled_dot_product_attention: same weights, same result.

    A model's layers are turned into this class by `inject` and back by `eject`. It is faster in
    training, and its two projections are within reach of an adapter: the original never calls
    `out_proj`, so a hook there would never run.

    Attributes:
        after_in_proj: None, or LoRA's hook (layer, (tokens,), projected) -> projected, (..., 3 d).
    """

    after_in_proj: Callable | None = None

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
        """(N, L, d), or (L, N, d) unless batch_first, or (L, d), to the same shape; and the weights."""
        masks = dict(attn_mask=attn_mask, is_causal=is_causal)
        asked = dict(need_weights=need_weights, average_attn_weights=average_attn_weights)
        if query.dim() == 2:  # one sequence: a batch of one
            batch = 0 if self.batch_first else 1
            tokens = (each.unsqueeze(batch) for each in (query, key, value))
            padding = None if key_padding_mask is None else key_padding_mask[None]
            attended, weights = PackedAttention.forward(self, *tokens, padding, **masks, **asked)
            return attended.squeeze(batch), None if weights is None else weights.squeeze(0)
        parts = _projected(self, query)
        if query is not key or key is not value:
            parts = (parts[0], _projected(self, key)[1], _projected(self, value)[2])
        # (N, L, heads, d / heads) or (L, N, ...) -> (N, heads, L, d / heads), without a copy
        to_heads = (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3)
        q, k, v = (
            part.unflatten(-1, (self.num_heads, self.head_dim)).permute(to_heads) for part in parts
        )
        mask, weights = _as_sdpa_mask(attn_mask, key_padding_mask, q), None
        causal, dropped = is_causal and mask is None, self.dropout if self.training else 0.0
        if need_weights:
            scores = q @ k.mT * self.head_dim**-0.5  # (N, heads, L, L)
            if causal:
                mask = torch.full_like(scores, -torch.inf).triu(1)
            if mask is not None:
                scores = scores + mask
            weights = F.dropout(scores.softmax(-1), dropped)
            attended = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            with _fastest_kernel(q):
                attended = F.scaled_dot_product_attention(q, k, v, mask, dropped, causal)
        order = (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3)
        return self.out_proj(attended.permute(order).flatten(2)), weights


def _projected(layer: nn.MultiheadAttention, tokens: Tensor) -> tuple[Tensor, ...]:
    """q, k and v of these tokens, with what LoRA adds."""
    packed = F.linear(tokens, layer.in_proj_weight, layer.in_proj_bias)  # (N, L, 3 d)
    lora = getattr(layer, "after_in_proj", None)  # may be called after `eject`, by the user
    return (packed if lora is None else lora(layer, (tokens,), packed)).chunk(3, dim=-1)


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
    return sum(numbers) if numbers else None


class WatchedForward:
    """The forward of an attention that reads weights without calling their layers, watched.

    open_clip's own `Attention` calls `F.linear` on its raw `in_proj_weight`, timm's BEiT and EVA on
    `self.qkv.weight`, torchvision's Swin in a function, where no hook can stand; this watches for that
    call, in a forward of the user's too. Set as the attention's `forward`.

    Attributes:
        users: the attention's earlier forward where it is not its class's.
        hooks: the module that has a weight, the weight's name in it, and what a hook on a layer with
            this weight would be.
        acts: False while the adapter is merged and once it has been taken out.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, self.users = layer, vars(layer).get("forward")
        self.hooks: list[tuple[nn.Module, str, Any]] = []
        self.acts = False

    def __call__(self, *args, **kwargs):
        with _Watch(self.hooks) if self.acts else nullcontext():
            if self.users is not None:
                return self.users(*args, **kwargs)
            return type(self.layer).forward(self.layer, *args, **kwargs)


class _Watch(torch.overrides.TorchFunctionMode):
    def __init__(self, hooks: list[tuple[nn.Module, str, Any]]) -> None:
        super().__init__()
        self.hooks = hooks

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.linear:
            call = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            for owner, parameter, hook in self.hooks:
                if call["weight"] is getattr(owner, parameter):
                    return hook.around(owner, call.pop("input"), call)
        return function(*args, **kwargs)


def passed_by(model: nn.Module, path: str) -> bool:
    """Whether the module around this layer hands on its weight, as its code says, and calls it not."""
    around, _, layer = path.rpartition(".")
    try:
        code = inspect.getsource(type(model.get_submodule(around)).forward)
    except (OSError, TypeError):
        return False
    return bool(re.search(rf"self\.{re.escape(layer)}\.weight\b(?!\.)", code))
