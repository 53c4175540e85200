"""What holds for every family of models and both methods (the list of the design, section 5)."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import re

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    adapters,
    disabled,
    eject,
    inject,
    merge,
    unmerge,
)
from serial_lora.config import AdapterConfig
from tests.library.tiny_models import (
    RANK,
    adapted,
    assert_same_bits,
    bits,
    blocks_of,
    fill_adapters,
)

CLOSE = dict(rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_disabled_is_the_base_nests_and_survives_exceptions(tiny, method):
    model = tiny.build()
    base = tiny.run(model)
    fill_adapters(inject(model, method(rank=RANK, stream=tiny.stream)))
    expected, before = tiny.run(model), bits(model)
    with disabled(model):
        torch.testing.assert_close(tiny.run(model), base, rtol=1e-5, atol=2e-6)
        with pytest.raises(RuntimeError, match="stop"), disabled(model):
            raise RuntimeError("stop")
        torch.testing.assert_close(tiny.run(model), base, rtol=1e-5, atol=2e-6)
    assert torch.equal(tiny.run(model), expected)
    assert_same_bits(before, bits(model))
    with pytest.raises(SerialLoRAError, match="unmerge"), disabled(merge(model)):
        pass


@torch.no_grad()
def test_base_keys_stay_and_copies_are_whole(tiny, method):
    keys = set(tiny.build().state_dict())
    model = adapted(tiny, method)
    assert keys <= set(model.state_dict())
    added = set(model.state_dict()) - keys
    assert added == {n for n in model.state_dict() if n.endswith(("lora_A", "lora_B"))}
    expected = tiny.run(model)
    stored = io.BytesIO()
    torch.save(model, stored)
    stored.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(stored, weights_only=False),
        unmerge(pickle.loads(pickle.dumps(merge(model)))),
    ]
    unmerge(model)
    for twin in copies:
        assert torch.equal(tiny.run(twin), expected)
        for adapter in adapters(twin).values():
            adapter.lora_B.zero_()
        assert (tiny.run(twin) - expected).abs().max() > 1e-4
        assert torch.equal(tiny.run(model), expected)  # nothing is shared with the copy
        assert set(eject(twin).state_dict()) == keys


@torch.no_grad()
def test_towers_and_blocks_are_respected(tiny, method):
    for tower in tiny.towers:
        model = inject(
            tiny.build(), method(rank=RANK, stream=tiny.stream, towers=[tower], blocks=[1])
        )
        names = {name.rpartition(".")[0] for name in adapters(model)}
        assert len(names) == 1
        all_names = [block for block, _, _ in blocks_of(tiny, model)]
        second = [name for name in all_names if re.search(r"(^|\D)1$", name)]
        assert names <= set(second)
    absent = {"image", "text"} - set(tiny.towers)
    for options in [dict(blocks=[1, 9])] + [dict(towers=[tower]) for tower in absent]:
        model = tiny.build()
        with pytest.raises(SerialLoRAError, match="this model has no"):
            inject(model, method(rank=RANK, stream=tiny.stream, **options))
        assert not adapters(model) and all(p.requires_grad for p in model.parameters())


def test_bad_requests_leave_the_model_untouched(tiny, method):
    model = tiny.build()
    requests = [(method(rank=33, stream=tiny.stream), "rank 33"), ({"rank": 4}, "LoRAConfig")]
    requests.append((AdapterConfig(rank=4), "LoRAConfig"))
    if tiny.stream == "image" and not hasattr(model, "transformer_blocks"):
        requests += [(method(rank=RANK, stream=stream), "stream") for stream in ("text", "both")]
    for config, noun in requests:
        with pytest.raises(SerialLoRAError, match=noun):
            inject(model, config)
    assert_same_bits(bits(tiny.build()), bits(model))
    assert all(p.requires_grad for p in model.parameters())
    once = bits(inject(model, method(rank=RANK, stream=tiny.stream)))
    for other in (SerialLoRAConfig, LoRAConfig):
        with pytest.raises(SerialLoRAError, match="eject"):
            inject(model, other(rank=RANK, stream=tiny.stream))
    assert_same_bits(once, bits(model))


@torch.no_grad()
def test_adapter_dropout_works_in_training_only(tiny, method):
    model = adapted(tiny, method, dropout=0.5)
    assert torch.equal(tiny.run(model), tiny.run(model))
    plain = adapted(tiny, method)
    assert torch.equal(tiny.run(model), tiny.run(plain))
    model.train()
    assert not torch.equal(tiny.run(model), tiny.run(model))
    for adapter in adapters(model).values():  # with B = 0 nothing is left to drop
        adapter.lora_B.zero_()
    assert torch.equal(tiny.run(model), tiny.run(model))


def test_checkpointed_gradients_are_equal(tiny, method):
    model = adapted(tiny, method).train()
    parameters = list(adapter_parameters(model))
    plain = torch.autograd.grad(tiny.run(model).square().mean(), parameters, allow_unused=True)
    for name in {name for name, _, _ in blocks_of(tiny, model)}:
        block = model.get_submodule(name)
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    again = torch.autograd.grad(tiny.run(model).square().mean(), parameters, allow_unused=True)
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(b, a)


def test_autocast_bfloat16_with_float32_adapters(tiny, method):
    model = adapted(tiny, method).train()
    expected = tiny.run(model).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = tiny.run(model)
    torch.testing.assert_close(output.float(), expected, rtol=0.1, atol=0.1)
    output.float().square().mean().backward()
    for parameter in adapter_parameters(model):
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@torch.no_grad()
def test_bfloat16_base_merges_and_comes_back(tiny, method):
    """The merge is that of the same weights in float32, rounded once; the base comes back."""
    model = tiny.build().bfloat16()
    before = bits(model)
    fill_adapters(inject(model, method(rank=RANK, stream=tiny.stream))).bfloat16()
    assert all(p.dtype == torch.float32 for p in adapter_parameters(model))
    merged = bits(merge(model))
    reference = adapted(tiny, method)
    reference.load_state_dict({n: before.get(n, t) for n, t in reference.state_dict().items()})
    for name, tensor in merge(reference).state_dict().items():
        if name in before:
            assert torch.equal(merged[name], tensor.to(merged[name].dtype)), name
    assert_same_bits(before, bits(eject(model)))
