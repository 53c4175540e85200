"""PackedAttention against the nn.MultiheadAttention it replaces."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from serial_lora import LoRAConfig, SerialLoRAConfig, inject
from serial_lora.packed import PackedAttention


def twins(width, heads, **options):
    original = nn.MultiheadAttention(width, heads, **options)
    torch.manual_seed(0)
    for parameter in original.parameters():
        nn.init.normal_(parameter, std=0.3)
    packed = copy.deepcopy(original)
    packed.__class__ = PackedAttention
    return original, packed


def masks(kind, length, batch, heads):
    causal = torch.full((length, length), float("-inf")).triu(1)
    return {
        "none": None,
        "bool": causal.isinf(),
        "float": causal,
        "per head bool": causal.isinf().expand(batch * heads, -1, -1),
        "per head float": torch.randn(batch * heads, length, length) + causal,
    }[kind]


@settings(max_examples=80, deadline=None)
@given(
    heads=st.sampled_from([1, 2, 3, 4]),
    head_width=st.sampled_from([1, 3, 8]),
    batch=st.integers(1, 3),
    length=st.integers(1, 7),
    flags=st.fixed_dictionaries(dict(batch_first=st.booleans(), bias=st.booleans())),
    training=st.booleans(),
    kind=st.sampled_from(["none", "bool", "float", "per head bool", "per head float"]),
    padded=st.sampled_from([None, bool, float]),
    weights=st.sampled_from([None, "of each head", "mean"]),
)
def test_same_outputs_and_gradients(
    heads, head_width, batch, length, flags, training, kind, padded, weights
):
    width = heads * head_width
    shape = (batch, length, width) if flags["batch_first"] else (length, batch, width)
    mask = masks(kind, length, batch, heads)
    padding = torch.arange(length).expand(batch, -1) >= max(1, length - 1)  # the first stays
    if (mask is None and padded is float) or (mask is not None and mask.dtype != torch.bool):
        padding = torch.zeros(batch, length).masked_fill(padding, float("-inf"))
    options = dict(attn_mask=mask, key_padding_mask=padding if padded else None)
    options |= dict(need_weights=weights is not None, average_attn_weights=weights == "mean")
    results = []
    for layer in twins(width, heads, **flags):
        x = torch.linspace(-2, 2, batch * length * width).sin().reshape(shape).requires_grad_()
        output, seen = layer.train(training)(x, x, x, **options)
        assert output.shape == shape and (seen is None) == (weights is None)
        gradients = torch.autograd.grad(output.sin().sum(), [x, *layer.parameters()])
        results.append((output, *gradients, *([] if seen is None else [seen])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [False, True])
@torch.no_grad()
def test_what_is_causal_needs_no_mask(weights):
    """The original asks for a mask as well, which hides what comes later and nothing else."""
    original, packed = twins(6, 2, batch_first=True)
    x = torch.randn(2, 5, 6)
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected, _ = original(x, x, x, attn_mask=later, need_weights=weights)
    found, _ = packed(x, x, x, is_causal=True, need_weights=weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("method", [SerialLoRAConfig, LoRAConfig])
@torch.no_grad()
def test_the_dropout_of_attention_itself_stays(method, weights):
    """A fresh adapter changes nothing, so outputs spread in training as those of the plain layer do."""
    torch.manual_seed(0)
    plain = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    plain.self_attn.dropout = 0.5
    adapted = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    adapted.load_state_dict(plain.state_dict())
    adapted.self_attn.dropout = 0.5
    inject(adapted, method(rank=2))
    tokens = torch.randn(1, 6, 16)
    spread = {}
    for name, layer in (("plain", plain.train()), ("adapted", adapted.train())):
        attention = layer.self_attn
        runs = [attention(tokens, tokens, tokens, need_weights=weights)[0] for _ in range(400)]
        spread[name] = torch.stack(runs).std(0).mean().item()
        still = [attention.eval()(tokens, tokens, tokens, need_weights=weights)[0] for _ in "12"]
        assert torch.equal(*still)
        attention.train()
    assert spread["plain"] > 0.01
    assert spread["adapted"] == pytest.approx(spread["plain"], rel=0.15)
