"""A model of one's own: attention of a family that the library does not know."""

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
    register_family,
    save_adapter,
)
from serial_lora import attention as families
from serial_lora.sites import AttentionSite, Projection

WIDTH = 12


class ParallelAttention(nn.Module):
    """Beside an MLP, on the same normed tokens; its keys and values come out of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.collect = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH)  # keys above, values below

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)"""
        k, v = self.key_value(tokens).chunk(2, dim=-1)
        return self.collect(F.scaled_dot_product_attention(self.query(tokens), k, v))


class ParallelBlock(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)), with one norm for both."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(WIDTH), ParallelAttention()
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        return x + self.attention(tokens=normed) + self.mlp(normed)


def parallel_sites(model):
    for name, block in model.named_modules():
        if isinstance(block, ParallelBlock):
            parts = {
                part: Projection(f"{name}.attention.{layer}", "weight", start, WIDTH, WIDTH)
                for part, layer, start in (
                    ("q", "query", 0),
                    ("k", "key_value", 0),
                    ("v", "key_value", WIDTH),
                    ("out", "collect", 0),
                )
            }
            yield AttentionSite(name, "image", int(name), WIDTH, None, parts)


def with_dense_weights(plain: nn.Module, adapted: nn.Module) -> nn.Module:
    """The plain model with the pairs of an adapted one multiplied out into its own weights."""
    products = {name: pair.lora_B @ pair.lora_A for name, pair in adapters(adapted).items()}
    model = copy.deepcopy(plain)
    for index, block in enumerate(model):
        layers = block.attention
        key, value = layers.key_value.weight.chunk(2)
        weights = {"q": layers.query.weight, "k": key, "v": value, "out": layers.collect.weight}
        for part, weight in weights.items():
            if f"{index}.lora_{part}" in products:
                weight += products[f"{index}.lora_{part}"]
            elif part != "out":
                weight += weight @ products[f"{index}.serial_lora"]
    return model


@torch.no_grad()
@pytest.mark.parametrize("config", [SerialLoRAConfig, LoRAConfig])
def test_a_registered_family_is_adapted_merged_and_saved(config, tmp_path, monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
    torch.manual_seed(0)
    plain = nn.Sequential(ParallelBlock(), ParallelBlock()).eval()
    with pytest.raises(SerialLoRAError, match="register_family"):
        inject(plain, config(rank=2))
    assert register_family(parallel_sites) is parallel_sites
    model = inject(copy.deepcopy(plain), config(rank=2))
    for pair in adapters(model).values():
        pair.lora_B.normal_(std=0.3)
    tokens = torch.randn(2, 5, WIDTH)
    expected = with_dense_weights(plain, model)(tokens)
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-5)
    file = save_adapter(model, tmp_path / "own.safetensors")
    torch.testing.assert_close(load_adapter(copy.deepcopy(plain), file)(tokens), model(tokens))
    torch.testing.assert_close(merge(model)(tokens), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(eject(model)(tokens), plain(tokens))
