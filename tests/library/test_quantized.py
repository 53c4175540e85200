"""Bases in 8 and 4 bits: an adapter over one does what it does over the matrices that the bits stand for.

bitsandbytes and torchao say themselves what those are: `matrices` asks them and nothing of this package.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from serial_lora import (
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
    to_peft,
)
from tests.library.tiny_models import RANK, TINY, assert_same_bits, fill_adapters

MODELS = ["plain", "timm", "hf_vit", "sd3_image"]


def with_bitsandbytes(make):
    def quantize(model: nn.Module) -> nn.Module:
        bnb = installed("bitsandbytes")
        for name, module in list(model.named_modules()):
            if type(module) is nn.Linear:
                around, _, own = name.rpartition(".")
                layer = make(bnb, module)
                layer.load_state_dict(module.state_dict())
                setattr(model.get_submodule(around), own, layer.to("cpu").requires_grad_(False))
        return model.requires_grad_(False)

    return quantize


def with_torchao(model: nn.Module) -> nn.Module:
    torchao = installed("torchao.quantization")
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig(set_inductor_config=False))
    return model.requires_grad_(False)


def installed(name: str):
    return pytest.importorskip(name, reason=f"{name} comes with pip install '.[quantized]'")


def eight_bits(bnb, layer):
    shape = layer.in_features, layer.out_features
    return bnb.nn.Linear8bitLt(*shape, layer.bias is not None, has_fp16_weights=False)


def four_bits(nested: bool):
    def make(bnb, layer):
        shape = layer.in_features, layer.out_features
        options = dict(quant_type="nf4", compress_statistics=nested, compute_dtype=torch.float32)
        return bnb.nn.Linear4bit(*shape, layer.bias is not None, **options)

    return make


KINDS = {
    "bitsandbytes, 8 bits": with_bitsandbytes(eight_bits),
    "bitsandbytes, 4 bits": with_bitsandbytes(four_bits(nested=False)),
    "bitsandbytes, 4 bits, scales in 8": with_bitsandbytes(four_bits(nested=True)),
    "torchao, 8 bits": with_torchao,
}


@pytest.fixture(params=KINDS)
def quantize(request):
    return KINDS[request.param]


def matrix(layer: nn.Linear) -> torch.Tensor:
    """A layer's weight, as the library that keeps it says."""
    weight = layer._parameters["weight"]  # the base's own, of an adapted layer too
    if type(weight.data).__module__.startswith("torchao"):
        return weight.dequantize()
    if getattr(weight, "quant_state", None) is not None:
        layer.state_dict()
        return installed("bitsandbytes.functional").dequantize_4bit(weight.data, weight.quant_state)
    if weight.dtype == torch.int8:
        scales = layer.state_dict()["SCB"]
        return weight.data * scales[:, None] / 127
    return weight


def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return {f"{name}.weight": matrix(layer).detach().clone() for name, layer in layers.items()}


def over_matrices(tiny, model: nn.Module) -> nn.Module:
    """The same base with plain layers."""
    plain = tiny.build()
    plain.load_state_dict(plain.state_dict() | matrices(model))
    return plain.requires_grad_(False)


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything the model consists of; torchao's tensors taken apart."""
    found = {}
    for name, tensor in model.state_dict().items():
        parts = ("qdata", "scale") if hasattr(tensor, "qdata") else ()
        found |= {f"{name}.{part}": getattr(tensor, part).clone() for part in parts}
        if not parts:
            found[name] = tensor.clone()
    return found


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_over_the_matrices(quantize, method, name):
    """Sums of 48 numbers at most, in about 40 layers there and back: each rounds by half an epsilon,
    so 48 * 40 / 2 of them is a bound, relative to the largest entry."""
    tiny = TINY[name]
    model = inject(quantize(tiny.build()), method(RANK, 0.7))
    plain = inject(over_matrices(tiny, model), method(RANK, 0.7))
    results = []
    for each in (fill_adapters(model), plain):
        plain.load_state_dict(plain.state_dict() | adapters_of(model))
        output = tiny.run(each.train())
        gradients = torch.autograd.grad(output.square().mean(), adapter_parameters(each))
        results.append([output.detach(), *gradients])
    assert min(gradient.abs().max() for gradient in results[0]) > 0
    bound = 48 * 40 / 2 * torch.finfo(torch.float32).eps
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


def adapters_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach() for n, p in model.named_parameters() if ".lora_" in n}


@torch.no_grad()
def test_nothing_is_merged_into_bits_and_the_base_comes_back(quantize, method):
    tiny = TINY["timm"]
    model = quantize(tiny.build())
    before = bits(model)
    fill_adapters(inject(model, method(RANK, 0.7)))
    with disabled(model):
        tiny.run(model)  # bitsandbytes packs 4-bit layers for speed at such a time
    for act in (merge, lambda m: eject(m, keep_merged=True)):
        with pytest.raises(SerialLoRAError, match="in few bits.*base with ordinary weights"):
            act(model)
    assert_same_bits(before, bits(eject(model)))


@torch.no_grad()
def test_an_export_is_made_of_the_matrices(quantize, method):
    """In half precision, which is finer than the bits."""
    tiny = TINY["timm"]
    model = fill_adapters(inject(quantize(tiny.build()), method(RANK, 0.7)))
    plain = inject(over_matrices(tiny, model), method(RANK, 0.7))
    plain.load_state_dict(plain.state_dict() | adapters_of(model))
    for name, tensor in to_peft(plain).items():
        torch.testing.assert_close(to_peft(model)[name], tensor, rtol=2e-3, atol=1e-3)


def test_training_goes_on_after_an_evaluation(quantize, method):
    tiny = TINY["timm"]
    model = quantize(tiny.build())
    with torch.no_grad():
        tiny.run(model)  # before, as well
    model = fill_adapters(inject(model, method(RANK)))
    for _ in range(2):
        with torch.no_grad():
            tiny.run(model.eval())
        tiny.run(model.train()).square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in adapter_parameters(model))


@torch.no_grad()
def test_files_go_between_a_base_and_its_roundings_and_to_no_other(quantize, method, tmp_path):
    tiny = TINY["timm"]
    plain, model = tiny.build(), quantize(tiny.build())
    for each in (plain, model):
        inject(each, method(RANK))
    plain.load_state_dict(plain.state_dict() | adapters_of(fill_adapters(model)))
    over_bits = save_adapter(model, tmp_path / "bits")
    over_floats = save_adapter(plain, tmp_path / "floats")
    outputs = tiny.run(model), tiny.run(plain)
    assert torch.equal(tiny.run(load_adapter(quantize(tiny.build()), over_bits)), outputs[0])
    assert torch.equal(tiny.run(load_adapter(tiny.build(), over_bits)), outputs[1])
    assert torch.equal(tiny.run(load_adapter(quantize(tiny.build()), over_floats)), outputs[0])
    other = tiny.build()
    for parameter in other.parameters():
        parameter.copy_(parameter.flatten().flip(0).reshape(parameter.shape))
    for base in (other, quantize(copy.deepcopy(other))):
        with pytest.raises(SerialLoRAError, match="other weights"):
            load_adapter(base, over_bits)
    with pytest.raises(SerialLoRAError, match="other weights"):
        load_adapter(quantize(other), over_floats)


def test_what_cannot_be_trained_in_so_few_bits_is_refused(quantize):
    model = quantize(TINY["timm"].build())
    with pytest.raises(
        SerialLoRAError, match="no module 'head' with parameters that can be trained"
    ):
        inject(model, SerialLoRAConfig(RANK), also_train=["head"])


@pytest.mark.parametrize("kind", ["Float8WeightOnlyConfig", "IntxWeightOnlyConfig"])
def test_over_other_tensors_of_torchao_adapters_learn_and_are_saved_unmerged(kind, tmp_path):
    torchao = installed("torchao.quantization")

    def base():
        model = TINY["timm"].build()
        torchao.quantize_(model, getattr(torchao, kind)())
        return model.requires_grad_(False)

    run = TINY["timm"].run
    model = inject(base(), SerialLoRAConfig(RANK))
    run(fill_adapters(model)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in adapter_parameters(model))
    path = save_adapter(model, tmp_path / "a.safetensors")
    expected = run(model)
    torch.testing.assert_close(run(load_adapter(base(), path)), expected, rtol=0, atol=0)
    load_adapter(TINY["timm"].build(), path)
    other = TINY["timm"].build()
    torch.nn.init.normal_(other.blocks[0].attn.qkv.weight)
    with pytest.raises(SerialLoRAError, match="other weights"):
        load_adapter(other, path)
    with pytest.raises(SerialLoRAError, match="unmerged"):
        merge(model)
    torch.testing.assert_close(run(model), expected, rtol=0, atol=0)


@torch.no_grad()
def test_what_no_gradient_passes_takes_trained_adapters_alone(tmp_path):
    """Its answers are those of a quantized model whose layers read tokens that hooks adapt."""
    torchao, run = installed("torchao.quantization"), TINY["timm"].run
    scheme = torchao.Int8DynamicActivationInt8WeightConfig()
    trained = fill_adapters(inject(TINY["timm"].build(), SerialLoRAConfig(RANK)))
    path = save_adapter(trained, tmp_path / "a.safetensors")
    model, reference = (TINY["timm"].build() for _ in range(2))
    for each in (model, reference):
        torchao.quantize_(each, scheme)
    for block, pair in zip(reference.blocks, adapters(trained).values(), strict=True):
        block.attn.qkv.register_forward_pre_hook(lambda _, args, pair=pair: (pair(args[0]),))
    load_adapter(model, path)
    torch.testing.assert_close(run(model), run(reference), rtol=0, atol=0)
