"""Faults that were planted in the library and once survived its tests: each is seen here by what users see."""

import gc
import weakref

import pytest
import torch
from torch import nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    activate,
    adapter_names,
    adapter_parameters,
    add_adapter,
    count_parameters,
    disabled,
    inject,
    per_sample,
    set_scale,
)
from tests.library.tiny_models import TINY, PlainAttention, fill_adapters


def two(model: nn.Module, method=SerialLoRAConfig) -> nn.Module:
    """With the adapters "a" and "b", the second in force."""
    inject(model, method(rank=2), name="a")
    fill_adapters(model, seed=1)
    add_adapter(model, "b")
    fill_adapters(model, seed=2)
    return model.eval()


# ---------------------------------------------------------------- a switch that fails halfway


@pytest.mark.parametrize("writes", ["copy_", "fill_"])
def test_a_switch_that_fails_says_so_and_changes_nothing(writes, monkeypatch):
    tiny = TINY["plain"]
    model = two(tiny.build())
    before, write, left = tiny.run(model), getattr(torch.Tensor, writes), [1]

    def fails_once(tensor, *arguments, **options):
        if left:
            left.pop()
            raise MemoryError
        return write(tensor, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(torch.Tensor, writes, fails_once)
        activate(model, "a")
    assert adapter_names(model)[0] == "b"
    assert torch.equal(tiny.run(model), before)
    assert not torch.allclose(tiny.run(activate(model, "a")), before)


# ------------------------------------------------------------- tokens that q, k and v have in common


def keys_first() -> tuple[nn.Module, PlainAttention, torch.Tensor, dict[str, torch.Tensor]]:
    """A model whose keys are computed first, its tokens, and its queries with either adapter."""
    model = two(TINY["plain"].build())
    attention = next(m for m in model.modules() if isinstance(m, PlainAttention))
    tokens = torch.randn(2, 5, 32)
    queries = {}
    for name in ("a", "b"):
        activate(model, name)
        queries[name] = attention.q(tokens.clone())
    assert not torch.allclose(queries["a"], queries["b"])
    attention.k(tokens)
    return model, attention, tokens, queries


@torch.no_grad()
def test_tokens_that_a_layer_read_with_one_adapter_are_not_given_to_another_in_a_block():
    model, attention, tokens, queries = keys_first()
    with per_sample(model, ["a", "b"]):
        mixed = attention.q(tokens)
    expected = torch.stack([queries["a"][0], queries["b"][1]])
    torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-5)
    attention.k(tokens)
    with disabled(model):
        base = attention.q(tokens)
    torch.testing.assert_close(attention.q(tokens), queries["b"], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(base, queries["b"], atol=1e-4)


@pytest.mark.parametrize("change", [lambda m: activate(m, "a"), lambda m: set_scale(m, 0.0)])
@torch.no_grad()
def test_tokens_that_a_layer_read_before_a_switch_are_not_given_to_another_after_it(change):
    model, attention, tokens, _ = keys_first()
    change(model)
    torch.testing.assert_close(attention.q(tokens), attention.q(tokens.clone()))


@torch.no_grad()
def test_no_tokens_are_kept_once_all_have_read_them():
    model, attention, tokens, _ = keys_first()
    attention.q(tokens), attention.v(tokens)
    seen = weakref.ref(tokens)
    del tokens
    gc.collect()
    assert seen() is None


# ----------------------------------------------------------------------- attention's own dropout


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
    assert all(p.requires_grad for p in adapter_parameters(adapted))


# ------------------------------------------------------------------ the adapter's own dropout, counts


@pytest.mark.parametrize("method", [SerialLoRAConfig, LoRAConfig])
@torch.no_grad()
def test_the_adapters_dropout_spares_the_tokens_themselves(method):
    tiny = TINY["plain"]
    base = tiny.run(tiny.build())
    model = inject(tiny.build(), method(rank=2, dropout=0.9)).train()
    torch.testing.assert_close(tiny.run(model), base)  # fresh: what is dropped comes to nothing
    fill_adapters(model, seed=1)
    assert not torch.allclose(tiny.run(model), tiny.run(model))
    assert torch.equal(tiny.run(model.eval()), tiny.run(model))


def test_pairs_that_are_frozen_count_as_the_adapters_and_do_not_learn():
    model = inject(TINY["plain"].build(), SerialLoRAConfig(rank=2))
    before = count_parameters(model)
    model.requires_grad_(False)
    after = count_parameters(model)
    assert (after.trainable, after.adapter, after.total) == (0, before.adapter, before.total)
