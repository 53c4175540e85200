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
from torch.utils.hooks import RemovableHandle

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    adapters,
    disabled,
    eject,
    inject,
    lora_plus_groups,
    merge,
    set_scale,
    unmerge,
)
from serial_lora.config import AdapterConfig
from tests.library.tiny_models import (
    RANK,
    TINY,
    adapted,
    assert_same_bits,
    bits,
    blocks_of,
    fill_adapters,
    write_dense,
)

CLOSE = dict(rtol=1e-4, atol=2e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("error:no adapter went into")  # nothing was passed over
@pytest.mark.parametrize("training", [False, True])
def test_fresh_adapter_equals_base(tiny, method, training):
    model = tiny.build().train(training)
    base = tiny.run(model)
    inject(model, method(rank=RANK, stream=tiny.stream))
    torch.testing.assert_close(tiny.run(model), base, rtol=1e-5, atol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize("later", [False, True])
def test_equals_dense_weights_written_by_hand(tiny, method, later):
    """With the scale that it was given, or with one set later."""
    model = adapted(tiny, method, scale=0.3 if later else 0.7).double()
    if later:
        set_scale(model, 0.7)
    plain = write_dense(tiny, tiny.build().double(), model, 0.7)
    if "sd3" in type(model).__name__.lower():  # computes its time embedding in float32
        model, plain, close = model.float(), plain.float(), CLOSE
    else:
        torch.set_default_dtype(torch.float64)
        close = dict(rtol=1e-9, atol=1e-9)
    try:
        torch.testing.assert_close(tiny.run(model), tiny.run(plain), **close)
    finally:
        torch.set_default_dtype(torch.float32)


def test_only_adapters_learn(tiny, method):
    model = adapted(tiny, method).train()
    before = bits(model)
    own = {id(parameter) for parameter in adapter_parameters(model)}
    optimizer = torch.optim.AdamW(adapter_parameters(model), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        tiny.run(model).square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (id(parameter) in own), name
            assert (parameter.grad is not None) == (id(parameter) in own), name
        optimizer.step()
    changed = {
        name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {name for name in before if name.endswith(("lora_A", "lora_B"))}


@torch.no_grad()
def test_merge_unmerge_eject(tiny, method):
    model = tiny.build()
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    plain_bits, base = bits(model), tiny.run(model)
    types = [type(module) for module in model.modules()]
    adapted_model = fill_adapters(inject(model, method(rank=RANK, stream=tiny.stream, scale=0.5)))
    assert adapted_model is model
    adapted_bits, expected = bits(model), tiny.run(model)
    assert (expected - base).abs().max() > 1e-3

    merge(model)
    merged_bits = bits(model)
    torch.testing.assert_close(tiny.run(model), expected, **CLOSE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    merge(model)  # a second merge does nothing
    assert_same_bits(merged_bits, bits(model))
    unmerge(model)
    assert_same_bits(adapted_bits, bits(model))
    assert torch.equal(tiny.run(model), expected)
    unmerge(model)

    eject(merge(model))
    assert_same_bits(plain_bits, bits(model))
    assert torch.equal(tiny.run(model), base)
    assert types == [type(module) for module in model.modules()]
    assert trainable == [parameter.requires_grad for parameter in model.parameters()]

    expected = tiny.run(fill_adapters(inject(model, method(rank=RANK, stream=tiny.stream))))
    assert bits(eject(model, keep_merged=True)).keys() == plain_bits.keys()
    torch.testing.assert_close(tiny.run(model), expected, **CLOSE)
    with pytest.raises(SerialLoRAError, match="no adapters"):
        merge(model)


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
        for verb in (merge, eject):
            with pytest.raises(SerialLoRAError, match="disabled"):
                verb(model)
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


def test_counts_follow_the_formula_and_every_tensor_is_in_one_group_of_lora_plus(tiny, method):
    model = inject(tiny.build(), method(rank=RANK, stream=tiny.stream))
    blocks = blocks_of(tiny, model)
    pairs = len(blocks) if method is SerialLoRAConfig else sum(len(p) for _, _, p in blocks)
    assert sum(p.numel() for p in adapter_parameters(model)) == 2 * 32 * RANK * pairs
    assert len(adapters(model)) == pairs
    expected = set()
    for block, suffix, parts in blocks:
        kinds = ["serial_lora"] if method is SerialLoRAConfig else [f"lora_{p}" for p in parts]
        expected |= {f"{block}.{kind}{suffix}" for kind in kinds}
    assert set(adapters(model)) == expected
    groups = lora_plus_groups(model, lr=2e-4, ratio=20, weight_decay=0.01)
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    placed = [(trainable.pop(id(p)), group) for group in groups for p in group["params"]]
    assert not trainable and all(name.endswith(group["name"]) for name, group in placed)
    rates = [(group["name"], group["lr"], group["weight_decay"]) for group in groups]
    assert rates == [("lora_A", 2e-4, 0.01), ("lora_B", 20 * 2e-4, 0.01)]


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


@torch.no_grad()
def test_new_hooks_do_not_displace_those_of_a_loaded_model(method, monkeypatch):
    """In a new process hooks are numbered from zero again; a loaded adapter must not get lost."""
    tiny = TINY["timm"]
    model = adapted(tiny, method)
    expected, stored = tiny.run(model), pickle.dumps(model)
    monkeypatch.setattr(RemovableHandle, "next_id", 0)
    loaded = pickle.loads(stored)
    for module in loaded.modules():
        for _ in range(3):
            module.register_forward_hook(lambda *_: None)
    assert torch.equal(tiny.run(loaded), expected)
