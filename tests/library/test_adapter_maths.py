"""The adapters alone: the formula, number types, and refused configurations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serial_lora import SerialLoRAError
from serial_lora.layers import LoRA, SerialLoRA

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**31))


def filled(adapter, seed):
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        adapter.lora_B.copy_(torch.randn(adapter.lora_B.shape, generator=generator))
    return adapter


@settings(max_examples=60, deadline=None)
@given(shapes, st.floats(-3, 3), st.lists(st.integers(1, 4), max_size=3))
def test_formulas_entry_by_entry(shape, scale, leading):
    inputs, outputs, rank, seed = shape
    torch.manual_seed(seed)
    x = torch.randn(*leading, inputs, dtype=torch.float64)
    serial = filled(SerialLoRA(inputs, rank, scale), seed).double()
    lora = filled(LoRA(inputs, outputs, rank, scale), seed).double()
    for adapter, base in ((serial, x), (lora, torch.zeros(*leading, outputs))):
        b, a = adapter.lora_B.tolist(), adapter.lora_A.tolist()
        weight = [
            [scale * sum(b[o][j] * a[j][i] for j in range(rank)) for i in range(inputs)]
            for o in range(len(b))
        ]
        expected = base + torch.einsum("...i,oi->...o", x, torch.tensor(weight).double())
        torch.testing.assert_close(adapter(x), expected.double(), rtol=1e-5, atol=1e-5)
        assert adapter(x).dtype == x.dtype


@torch.no_grad()
@pytest.mark.parametrize("pair", [SerialLoRA(16, 16, 1.0, 0.25), LoRA(16, 16, 16, 1.0, 0.25)])
def test_dropout_takes_single_numbers_of_what_the_pair_reads(pair):
    """With A and B the identity, the change is what dropout leaves of the tokens, here ones."""
    for matrix in pair.parameters():
        matrix.copy_(torch.eye(16))
    torch.manual_seed(0)
    tokens, share = torch.ones(20, 50, 16), 0.25
    change = pair(tokens) - (tokens if isinstance(pair, SerialLoRA) else 0)
    assert change.unique().tolist() == pytest.approx([0, 1 / (1 - share)])
    lost = (change == 0).sum(-1).float()  # of each token: binomial, if each number is for itself
    assert lost.mean().item() == pytest.approx(16 * share, rel=0.05)
    assert lost.var().item() == pytest.approx(16 * share * (1 - share), rel=0.2)


def test_birth():
    torch.manual_seed(0)
    adapter = SerialLoRA(300, 200)
    assert set(dict(adapter.named_parameters())) == {"lora_A", "lora_B"}
    assert adapter.lora_A.shape == (200, 300) and adapter.lora_B.shape == (300, 200)
    assert adapter.lora_B.count_nonzero() == 0
    assert adapter.lora_A.std().item() == pytest.approx(1 / math.sqrt(3 * 300), rel=0.02)
    x = torch.randn(4, 300)
    assert torch.equal(adapter(x), x)
    assert "300 -> 200 -> 300" in repr(adapter)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_requests_leave_it_float32_and_outputs_follow_inputs(dtype):
    adapter = filled(SerialLoRA(16, 4), 0)
    before = adapter.lora_B.clone()
    adapter.to(dtype)
    assert adapter.lora_A.dtype == torch.float32 and torch.equal(adapter.lora_B, before)
    x = torch.randn(3, 16).to(dtype)
    exact = (x.float() + x.float() @ adapter.lora_A.T @ adapter.lora_B.T).to(dtype)
    assert adapter(x).dtype == dtype
    torch.testing.assert_close(adapter(x), exact)
    assert adapter.double().lora_A.dtype == torch.float64


@pytest.mark.parametrize(
    "options",
    [
        *(dict(rank=r) for r in (0, -1, True, 2.0, "4")),
        *(dict(rank=4, scale=s) for s in (float("nan"), float("inf"), 1e39, "1", True)),
        *(dict(rank=4, dropout=d) for d in (1.0, -0.1, float("nan"))),
        *(dict(rank=4, towers=t) for t in (["images"], [], "audio", "", 5, True, [["image"]])),
        *(dict(rank=4, blocks=b) for b in ([], [-1], [1.0], 3)),
        *(dict(rank=4, places=p) for p in ("mlp", (), ("attention", "out"), 3)),
        dict(rank=4, stream="all"),
    ],
    ids=str,
)
def test_configurations_out_of_range_are_refused(method, options):
    with pytest.raises(SerialLoRAError) as caught:
        method(**options)
    wrong = list(options)[-1]
    assert wrong in str(caught.value) and "\n" not in str(caught.value)
