"""A model of one's own: attention of a family that the library does not know.

Its blocks run attention and MLP side by side, both on the same normed tokens, as ViT-22B and some
language models do; its keys and values come out of one weight.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapters,
    eject,
    inject,
    load_adapter,
    merge,
    save_adapter,
)
from serial_lora import attention as families
from serial_lora.sites import AttentionSite, Projection


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

    def __init__(self, image_size: int, patch: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn((image_size // patch) ** 2, width))
        self.stages = nn.ModuleList(ParallelBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.patches(pictures).flatten(2).transpose(1, 2) + self.position  # (B, N, d)
        for block in self.stages:
            x = block(x)
        return self.norm(x).mean(dim=1)


@pytest.fixture
def register(monkeypatch):
    """register_family, with the list of families as it was after the test."""
    monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
    return families.register_family


def parallel_sites(model):
    for name, block in model.named_modules():
        if isinstance(block, ParallelBlock):
            yield one_site(name, block.attention.query.in_features)


def one_site(name: str, width: int) -> AttentionSite:
    def of(path, start=0):
        return Projection(f"{name}.attention.{path}", "weight", start, width, width)

    parts = {"q": of("query"), "k": of("key_value"), "v": of("key_value", width)}
    index = int(name.split(".")[-1])
    return AttentionSite(name, "image", index, width, None, parts | {"out": of("collect")})


def with_dense_weights(plain: ParallelViT, adapted: nn.Module, beside: bool) -> ParallelViT:
    """The plain model with the pairs of an adapted one multiplied out into its own weights.

    ``beside`` for LoRA's own pairs; else Serial LoRA's, in front of the attention alone.
    """
    tensors, model = adapted.state_dict(), copy.deepcopy(plain)
    for index, block in enumerate(model.stages):
        layers, prefix = block.attention, f"stages.{index}"
        key, value = layers.key_value.weight.chunk(2)
        weights = {"q": layers.query.weight, "k": key, "v": value}
        if beside:
            for part, weight in (weights | {"out": layers.collect.weight}).items():
                weight += product_of(tensors, f"{prefix}.lora_{part}")
        else:
            dense = torch.eye(key.shape[-1]) + product_of(tensors, f"{prefix}.serial_lora")
            for weight in weights.values():
                weight.copy_(torch.einsum("oi,id->od", weight, dense))
    return model


def product_of(tensors: dict[str, torch.Tensor], pair: str) -> torch.Tensor:
    """B A of a pair in a state dict."""
    return torch.einsum("or,rd->od", tensors[f"{pair}.lora_B"], tensors[f"{pair}.lora_A"])


@torch.no_grad()
@pytest.mark.parametrize(("config", "beside"), [(SerialLoRAConfig, False), (LoRAConfig, True)])
def test_a_registered_family_is_adapted_merged_and_saved(register, config, beside, tmp_path):
    torch.manual_seed(0)
    plain = ParallelViT(image_size=8, patch=4, width=12, heads=3, depth=2).eval()
    with pytest.raises(SerialLoRAError, match="register_family"):
        inject(plain, config(rank=2))
    assert register(parallel_sites) is parallel_sites
    model = inject(copy.deepcopy(plain), config(rank=2))
    for pair in adapters(model).values():
        pair.lora_B.normal_(std=0.3)
    pictures = torch.randn(2, 3, 8, 8)
    expected = with_dense_weights(plain, model, beside)(pictures).detach()
    torch.testing.assert_close(model(pictures), expected, rtol=1e-4, atol=1e-5)
    file = save_adapter(model, tmp_path / "own.safetensors")
    torch.testing.assert_close(load_adapter(copy.deepcopy(plain), file)(pictures), model(pictures))
    torch.testing.assert_close(merge(model)(pictures), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(eject(model)(pictures), plain(pictures))
