"""PackedAttention against the nn.MultiheadAttention it replaces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from serial_lora import LoRAConfig, SerialLoRAError, disabled, inject, merge
from serial_lora.packed import PackedAttention
from tests.library.tiny_models import TINY


def twins(width, heads, batch_first, bias=True, dropout=0.0):
    torch.manual_seed(0)
    original = nn.MultiheadAttention(
        width, heads, batch_first=batch_first, bias=bias, dropout=dropout
    )
    for parameter in original.parameters():
        nn.init.normal_(parameter, std=0.3)
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(
        width, heads, batch_first=batch_first, bias=bias, dropout=dropout
    )
    packed.load_state_dict(original.state_dict())
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


KINDS = ["none", "bool", "float", "per head bool", "per head float"]


@settings(max_examples=80, deadline=None)
@given(
    heads=st.sampled_from([1, 2, 3, 4]),
    head_width=st.sampled_from([1, 3, 8]),
    batch=st.integers(1, 3),
    length=st.integers(1, 7),
    batch_first=st.booleans(),
    bias=st.booleans(),
    training=st.booleans(),
    kind=st.sampled_from(KINDS),
)
def test_same_outputs_and_gradients(
    heads, head_width, batch, length, batch_first, bias, training, kind
):
    width = heads * head_width
    original, packed = twins(width, heads, batch_first, bias)
    original.train(training)
    packed.train(training)
    shape = (batch, length, width) if batch_first else (length, batch, width)
    mask = masks(kind, length, batch, heads)
    results = []
    for layer in (original, packed):
        x = torch.linspace(-2, 2, batch * length * width).sin().reshape(shape).requires_grad_()
        output, weights = layer(x, x, x, need_weights=False, attn_mask=mask)
        assert weights is None and output.shape == shape
        results.append((output, *torch.autograd.grad(output.sin().sum(), [x, *layer.parameters()])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_eval_fast_path_equals_ours():
    """In evaluation the original takes a fused native path; the results agree to rounding."""
    original, packed = twins(32, 4, batch_first=True)
    original.eval(), packed.eval()
    x = torch.randn(3, 7, 32)
    expected = original(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(packed(x, x, x, need_weights=False)[0], expected, atol=2e-6, rtol=0)


@torch.no_grad()
def test_everything_else_falls_back_to_the_original():
    original, packed = twins(16, 2, batch_first=True)
    x, y = torch.randn(2, 5, 16), torch.randn(2, 4, 16)
    padding = torch.tensor([[False] * 4 + [True], [False] * 5])
    calls = [
        dict(query=x, key=x, value=x),
        dict(query=x, key=x, value=x, average_attn_weights=False),
        dict(query=x, key=x, value=x, key_padding_mask=padding, need_weights=False),
        dict(query=x, key=y, value=y, need_weights=False),
        dict(query=x[0], key=x[0], value=x[0], need_weights=False),
    ]
    for call in calls:
        for a, b in zip(original(**call), packed(**call), strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
    with pytest.raises(RuntimeError, match="is_causal"):
        packed(x, x, x, need_weights=False, is_causal=True)


def test_attention_dropout_is_kept():
    _, packed = twins(16, 2, batch_first=True, dropout=0.5)
    x = torch.randn(2, 5, 16)
    assert not torch.equal(
        packed(x, x, x, need_weights=False)[0], packed(x, x, x, need_weights=False)[0]
    )
    packed.eval()
    assert torch.equal(
        packed(x, x, x, need_weights=False)[0], packed(x, x, x, need_weights=False)[0]
    )


@torch.no_grad()
def test_lora_never_goes_missing_silently():
    """A call that would bypass LoRA is refused; merged or disabled it is the original's."""
    model = inject(TINY["open_clip"].build(), LoRAConfig(rank=2))
    layer = model.visual.transformer.resblocks[0].attn
    x = torch.randn(2, 5, 32)
    with pytest.raises(SerialLoRAError, match="need_weights=False"):
        layer(x, x, x)
    with disabled(model):
        assert layer(x, x, x)[1].shape == (2, 5, 5)
    merge(model)
    assert layer(x, x, x)[1].shape == (2, 5, 5)
