"""Every model and every kind of adapter against dense weights that are written by hand.

Which layers are meant is spelled out in `tiny_models` and beside each model; nothing of the package is
asked for them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    adapters,
    disabled,
    eject,
    inject,
    load_adapter,
    merge,
    save_adapter,
    set_scale,
    unmerge,
)
from serial_lora.config import AdapterConfig
from serial_lora.files import read_header
from tests.library.more_models import MODELS
from tests.library.tiny_models import (
    BOTH,
    EVERY,
    FORWARD,
    RANK,
    SCALE,
    Tiny,
    assert_same_bits,
    bits,
    dense_weights,
    fill_adapters,
    places_of,
)

CLOSE = dict(rtol=1e-4, atol=5e-5)
SOME = ("grouped", "qk and v", "multihead", "weights as matrices")
CONFIGS = {
    "serial": SerialLoRAConfig,
    "lora": LoRAConfig,
    "lora, some": functools.partial(LoRAConfig, parts=("v", "q")),
    "serial, feed-forward": FORWARD,
    "serial, both": BOTH,
    "lora, both": EVERY,
}
CASES = [
    pytest.param(tiny, config, id=f"{name}-{kind}")
    for name, tiny in MODELS.items()
    for kind, config in CONFIGS.items()
    if tiny.forward or kind in ("serial", "lora") or (kind == "lora, some" and name in SOME)
]


class Run(nn.Module):
    def __init__(self, tiny: Tiny, model: nn.Module) -> None:
        super().__init__()
        self.tiny, self.model = tiny, model

    def forward(self) -> Tensor:
        return self.tiny.run(self.model)


def run_with(tiny: Tiny, weights: Mapping[str, Tensor]) -> Tensor:
    run = Run(tiny, tiny.build())
    return torch.func.functional_call(run, {f"model.{key}": t for key, t in weights.items()}, ())


@pytest.mark.filterwarnings("error:no adapter went into")  # nothing was passed over
@pytest.mark.parametrize(("tiny", "config"), CASES)
def test_values_and_gradients_are_those_of_dense_weights(tiny, config):
    assert_values(tiny, config(RANK, scale=0.3, stream=tiny.stream))


def assert_values(tiny: Tiny, config: AdapterConfig) -> None:
    plain, model = tiny.build(), inject(tiny.build(), config)
    with torch.no_grad():
        for training in (True, False):
            outputs = []
            for each in (model, plain):
                torch.manual_seed(0)  # of stochastic depth
                outputs.append(tiny.run(each.train(training)))
            torch.testing.assert_close(*outputs, rtol=1e-5, atol=5e-6)
    set_scale(fill_adapters(model), SCALE)
    ours = {key: p for key, p in model.named_parameters() if p.requires_grad}
    assert ours and all(key.endswith(("lora_A", "lora_B")) for key in ours)
    theirs = {key: p.detach().clone().requires_grad_() for key, p in ours.items()}
    expected = run_with(tiny, dense_weights(tiny, plain, theirs))
    output = tiny.run(model)
    torch.testing.assert_close(output, expected, **CLOSE)
    gradients = (
        torch.autograd.grad(out.square().mean(), list(leaves.values()), allow_unused=True)
        for out, leaves in ((output, ours), (expected, theirs))
    )
    for key, one, other in zip(ours, *gradients, strict=True):
        assert (one is None) == (other is None), key
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6, msg=key)


@torch.no_grad()
@pytest.mark.parametrize(("tiny", "config"), CASES)
def test_merge_unmerge_eject_counts_and_file(tiny, config, tmp_path):
    assert_reversible(tiny, config(RANK, scale=SCALE, stream=tiny.stream), tmp_path)


def assert_reversible(tiny: Tiny, config: AdapterConfig, folder: Path) -> None:
    model = tiny.build()
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    trainable = [parameter.requires_grad for parameter in model.parameters()]
    plain, base = bits(model), tiny.run(model)
    kinds = [type(module) for module in model.modules()]
    shapes = expected_shapes(tiny, model, config)
    assert inject(model, config) is model
    adapted, expected = bits(fill_adapters(model, size=0.3)), tiny.run(model)
    assert (expected - base).abs().max() > 1e-3
    assert {
        name: (p.lora_A.shape[1], len(p.lora_B)) for name, p in adapters(model).items()
    } == shapes
    formula = sum(RANK * (inputs + outputs) for inputs, outputs in shapes.values())
    assert sum(p.numel() for p in adapter_parameters(model)) == formula
    with disabled(model):
        torch.testing.assert_close(tiny.run(model), base, rtol=1e-5, atol=5e-6)

    path = save_adapter(model, folder / "adapter.safetensors")
    assert torch.equal(tiny.run(load_adapter(tiny.build(), path)), expected)
    assert read_header(path).config == config
    torch.testing.assert_close(tiny.run(merge(model)), expected, **CLOSE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    merged = bits(model)
    assert_same_bits(merged, bits(merge(model)))  # a second merge does nothing
    assert_same_bits(adapted, bits(unmerge(model)))
    assert torch.equal(tiny.run(unmerge(model)), expected)

    assert_same_bits(plain, bits(eject(merge(model))))
    assert torch.equal(tiny.run(model), base)
    assert kinds == [type(module) for module in model.modules()]
    assert trainable == [parameter.requires_grad for parameter in model.parameters()]
    whole = eject(load_adapter(model, path), keep_merged=True)
    assert_same_bits({key: merged[key] for key in plain}, bits(whole))
    with pytest.raises(SerialLoRAError, match="no adapters"):
        merge(model)


def expected_shapes(
    tiny: Tiny, plain: nn.Module, config: AdapterConfig
) -> dict[str, tuple[int, int]]:
    """For each pair that is to be its name and (inputs, outputs)."""
    shapes, weights = {}, dict(plain.named_parameters())
    for serial, parts in places_of(tiny, plain).items():
        place = "feed_forward" if "serial_lora_ff" in serial else "attention"
        if place not in config.places:
            continue
        for part, (weight, _, rows) in parts.items():
            inputs = weights[weight].shape[1]
            asked = "fc1" if part == "gate" else part
            if isinstance(config, LoRAConfig) and asked in config.parts:
                shapes[re.sub("serial_lora(_ff)?", f"lora_{part}", serial)] = (inputs, rows)
            elif config.method == "serial_lora" and part in ("q", "fc1"):
                shapes[serial] = (inputs, inputs)
    return shapes
