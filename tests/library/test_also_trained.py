"""Modules that learn beside the adapters: counted, saved, switched, and given back."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from serial_lora import (
    SerialLoRAConfig,
    SerialLoRAError,
    activate,
    adapter_parameters,
    add_adapter,
    combine,
    count_parameters,
    disabled,
    eject,
    inject,
    load_adapter,
    lora_plus_groups,
    merge,
    per_sample,
    save_adapter,
    unmerge,
)
from tests.library.test_adapter_files import rewrite
from tests.library.test_attacks import refused
from tests.library.test_every_family import CLOSE
from tests.library.tiny_models import (
    RANK,
    TINY,
    PlainBlock,
    assert_same_bits,
    bits,
    fill_adapters,
    noisy,
)


class Classifier(nn.Module):
    """Blocks of lesson 03, and behind them what is new in a new task: norms, counters and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(PlainBlock(), PlainBlock())
        self.norm, self.head = nn.BatchNorm1d(32), nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.norm(self.blocks(x).mean(1)))


def classifier():
    return noisy(Classifier)


def run(model):
    return model(torch.randn(8, 5, 32, generator=torch.Generator().manual_seed(0)))


ALSO = ["norm", "head", "blocks.1.norm1"]


def trained(method=SerialLoRAConfig, model=None, steps=2):
    model = model or inject(classifier(), method(RANK), ALSO)
    optimizer = torch.optim.AdamW(lora_plus_groups(model, lr=1e-2, ratio=4))
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        run(model).square().mean().backward()
        optimizer.step()
    return model.eval()


def own_names(model):
    return {n for n in model.state_dict() if n.startswith(tuple(f"{name}." for name in ALSO))}


def test_they_learn_and_are_counted_apart(method):
    model = inject(classifier(), method(RANK), ALSO)
    before = bits(model)
    counts = count_parameters(trained(model=model))
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == own_names(model) | {n for n in before if n.endswith(("lora_A", "lora_B"))}
    own = sum(p.numel() for n, p in model.named_parameters() if n in own_names(model))
    assert counts.trainable == counts.adapter + own
    assert counts.adapter == sum(p.numel() for p in adapter_parameters(model))
    groups = lora_plus_groups(model, lr=1e-3, ratio=16)
    rates = [(group["name"], group["lr"], group["weight_decay"]) for group in groups]
    assert rates == [("lora_A", 1e-3, 0), ("lora_B", 16e-3, 0), ("other", 1e-3, 0)]
    assert sum(p.numel() for p in groups[2]["params"]) == own


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_base_comes_back_bit_for_bit(method, dtype):
    model = classifier().to(dtype)
    model.norm.bias.requires_grad_(False)
    before, base = bits(model), run(model.float()).clone()
    model.to(dtype)
    with torch.enable_grad():
        trained(model=inject(model, method(RANK), ALSO).float())
    expected = run(model)
    with disabled(model), disabled(model):
        torch.testing.assert_close(run(model), base, rtol=1e-5, atol=1e-5)
    merge(model)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for twin in (model, *twins):
        torch.testing.assert_close(run(twin), expected, **CLOSE)
        with disabled(unmerge(twin)):
            torch.testing.assert_close(run(twin), base, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(run(twin), expected, **CLOSE)
    torch.testing.assert_close(
        run(eject(copy.deepcopy(model), keep_merged=True)), expected, **CLOSE
    )
    for twin in (model, *twins):
        assert_same_bits(before, bits(eject(twin).to(dtype)))
        assert [n for n, p in twin.named_parameters() if not p.requires_grad] == ["norm.bias"]


@torch.no_grad()
def test_saved_loaded_and_switched_with_the_adapter(method, tmp_path):
    with torch.enable_grad():
        model = trained(method)
    first = run(model)
    with disabled(model):
        path = save_adapter(model, tmp_path / "a")
    fresh = classifier()
    base = run(fresh)
    assert torch.equal(run(load_adapter(fresh, path)), first)
    assert torch.equal(run(eject(fresh)), base)
    add_adapter(model, "b")
    torch.testing.assert_close(run(model), base, **CLOSE)  # a fresh pair and the base's own head
    with torch.enable_grad():
        trained(model=model, steps=3)
    second = run(model)
    assert torch.equal(run(activate(model, "default")), first)
    assert torch.equal(run(activate(model, "b")), second)
    load_adapter(model, save_adapter(model, tmp_path / "again", "default"), "c")
    assert torch.equal(run(model), first)
    plain = load_adapter(classifier(), tmp_path / "again")
    assert torch.equal(run(plain), first)
    assert torch.equal(run(eject(model)), base)


def test_pairs_alone_go_onto_a_backbone_and_beside_another_head(method, tmp_path):
    path = save_adapter(trained(method), tmp_path / "a.safetensors")
    backbone = classifier()
    backbone.head = nn.Identity()
    before = bits(backbone)
    with pytest.raises(SerialLoRAError, match="'head'.*heads=False"):
        load_adapter(backbone, path)
    assert_same_bits(before, bits(backbone))
    load_adapter(backbone, path, heads=False)
    for key, tensor in load_adapter(classifier(), path).state_dict().items():
        there = backbone.state_dict().get(key)
        if there is not None and key not in own_names(backbone):
            assert torch.equal(there, tensor)
    assert all(torch.equal(backbone.state_dict()[key], before[key]) for key in before)

    other = trained(method, inject(classifier(), method(RANK), ["head"]), steps=4)
    head = other.head.weight.clone()
    with pytest.raises(SerialLoRAError, match="heads=False"):
        load_adapter(other, path)
    for name in (None, "more"):
        load_adapter(other, path, name=name, heads=False)
        assert torch.equal(other.head.weight, head)
        for one, another in zip(
            adapter_parameters(other), adapter_parameters(backbone), strict=True
        ):
            assert torch.equal(one, another)


def test_a_teacher_and_a_student_in_one_step():
    """`disabled` between the forward and the backward pass leaves the gradients as they are."""
    model = trained()
    learning = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(run(model).square().mean(), learning)
    loss = run(model).square().mean()
    with disabled(model), torch.no_grad():
        run(model)
    assert all(map(torch.equal, torch.autograd.grad(loss, learning), wanted))


def test_what_does_not_fit_is_refused(tmp_path):
    for also, noun in (
        (["nothing"], "no module 'nothing'"),
        ([""], "no module ''"),
        (["blocks"], "holds blocks.0.attention.q"),
        (["blocks.0.attention.q"], "is adapted"),
        (["blocks.0.mlp.1"], "no module 'blocks.0.mlp.1' with parameters"),
    ):
        refused(classifier(), lambda m, a=also: inject(m, SerialLoRAConfig(2), a), noun)
    model = fill_adapters(inject(classifier(), SerialLoRAConfig(RANK), "head"))
    path = save_adapter(model, tmp_path / "head")
    other = inject(classifier(), SerialLoRAConfig(RANK))
    refused(other, lambda m: load_adapter(m, path), r"^head\..* and None in this model")
    wider = classifier()
    wider.head = nn.Linear(32, 9)
    refused(wider, lambda m: load_adapter(m, path), r"^head\..* has shape \(5")
    path = save_adapter(inject(classifier(), SerialLoRAConfig(RANK), "norm"), tmp_path / "norm")
    counts = {n: t.float() for n, t in load_file(path).items()}
    rewrite(path, tensors=counts)
    refused(classifier(), lambda m: load_adapter(m, path), "num_batches_tracked .*float32")
    add_adapter(model, "b")
    refused(model, lambda m: combine(m, {"default": 1, "b": 1}, "c"), "no exact sum")
    refused(model, lambda m: per_sample(m, ["b"]).__enter__(), "share head")
    model.head = nn.Linear(32, 5)
    refused(model, eject, "head is not what inject found")


def test_statistics_that_drift_are_named_unless_they_are_saved():
    model = classifier()
    model.more = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))
    with pytest.warns(UserWarning, match=r"norm, more\.0, more\.1 and 1 more .*eval"):
        inject(model, SerialLoRAConfig(RANK))
    for also, build in ((ALSO, classifier), ((), TINY["timm"].build)):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*statistics")
            inject(build(), SerialLoRAConfig(RANK), also)


def test_pairs_that_are_frozen_count_as_the_adapters_and_do_not_learn():
    model = inject(TINY["plain"].build(), SerialLoRAConfig(rank=2))
    before = count_parameters(model)
    model.requires_grad_(False)
    after = count_parameters(model)
    assert (after.trainable, after.adapter, after.total) == (0, before.adapter, before.total)
