"""A LoRA that PEFT itself made and saved, opened by this library: equal outputs, or one sentence."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from serial_lora import (
    LoRAConfig,
    SerialLoRAError,
    adapters,
    from_peft,
    inject,
    load_adapter,
    save_adapter,
    to_peft,
)
from tests.library.tiny_models import TINY, assert_same_bits, bits, fill_adapters

peft = pytest.importorskip("peft")

CLOSE = dict(rtol=1e-4, atol=1e-5)
ALL = ["qkv", "attn.proj", "fc1", "fc2"]
CASES = {
    "timm": dict(target_modules=ALL),
    "timm, ranks and alphas by layer, rsLoRA": dict(
        target_modules=ALL,
        use_rslora=True,
        rank_pattern={"fc1": 2, r"blocks\.1\.attn\.qkv": 6},
        alpha_pattern={"blocks.0.mlp.fc1": 3},
    ),
    "timm, some blocks": dict(target_modules=r"blocks\.[02]\.attn\.qkv"),
    "timm, with a head": dict(target_modules=["qkv", "fc2"], modules_to_save=["head"]),
    "hf_vit, two of a block": dict(target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    "plain": dict(target_modules="all-linear"),
    "sd3_image": dict(target_modules=["to_q", "add_k_proj", "net.0.proj"]),
}


def trained(case: str, folder, **options):
    """The outputs of PEFT's own model, whose folder this becomes."""
    tiny = TINY[case.partition(",")[0]]
    config = peft.LoraConfig(r=4, lora_alpha=6, **CASES[case] | options)
    model = fill_adapters(peft.get_peft_model(tiny.build(), config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return tiny, tiny.run(model.get_base_model())


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_outputs_are_peft_s_and_go_into_a_file_of_ours(case, tmp_path):
    tiny, expected = trained(case, tmp_path)
    model = from_peft(tiny.build(), tmp_path)
    assert (tiny.run(tiny.build()) - expected).abs().max() > 1e-2
    torch.testing.assert_close(tiny.run(model), expected, **CLOSE)
    path = save_adapter(model, tmp_path / "ours.safetensors")
    assert torch.equal(tiny.run(load_adapter(tiny.build(), path)), tiny.run(model))
    again = from_peft(tiny.build(), tmp_path / "adapter_model.safetensors")
    assert torch.equal(tiny.run(again), tiny.run(model))


def test_it_goes_on_learning_in_places_that_the_file_left_out_too(tmp_path):
    tiny, _ = trained("timm, some blocks", tmp_path)
    model = from_peft(tiny.build(), tmp_path)
    assert {name.partition(".attn")[0][:8] for name in adapters(model)} == {"blocks.0", "blocks.2"}
    tiny.run(model).square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if n.endswith("lora_B")}
    assert gradients and all(gradient.any() for gradient in gradients.values())


@torch.no_grad()
def test_our_own_export_comes_back(tmp_path):
    tiny = TINY["timm"]
    model = fill_adapters(inject(tiny.build(), LoRAConfig(3, scale=0.7)))
    expected, model.name_or_path = tiny.run(model), "hub/name"  # as a model of transformers has it
    to_peft(model, tmp_path)
    assert peft.PeftConfig.from_pretrained(tmp_path).base_model_name_or_path == "hub/name"
    torch.testing.assert_close(tiny.run(from_peft(tiny.build(), tmp_path)), expected, **CLOSE)


def option(name, value):
    def write(folder) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return write


def tensors(change):
    def write(folder) -> None:
        path = folder / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)

    return write


FIRST = "base_model.model.blocks.0.attn.qkv"
REFUSED = {
    "DoRA": (option("use_dora", True), "use_dora=True"),
    "biases": (option("bias", "lora_only"), "bias='lora_only'"),
    "another start": (option("init_lora_weights", "pissa_niter_4"), "init_lora_weights"),
    "an option of later": (option("use_something", {"a": 1}), "use_something"),
    "another method": (option("peft_type", "LOHA"), "LOHA"),
    "no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config"),
    "no tensors": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter"),
    "a layer elsewhere": (
        tensors(lambda all: {name.replace("attn.qkv", "norm1"): t for name, t in all.items()}),
        "adapts blocks.0.norm1",
    ),
    "an embedding": (tensors(lambda all: all | {"lora_embedding_A": torch.ones(2)}), "embedding"),
    "half a pair": (
        tensors(lambda all: {n: t for n, t in all.items() if n != f"{FIRST}.lora_B.weight"}),
        "half of the pair",
    ),
    "another size": (
        tensors(lambda all: all | {f"{FIRST}.lora_B.weight": torch.ones(9, 4)}),
        "open another base",
    ),
    "no numbers": (
        tensors(lambda all: all | {f"{FIRST}.lora_A.weight": torch.full((4, 32), torch.nan)}),
        "finite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_take_is_one_sentence_and_the_model_as_it_was(case, tmp_path):
    write, noun = REFUSED[case]
    tiny, _ = trained("timm, some blocks", tmp_path)
    write(tmp_path)
    model = tiny.build()
    before = bits(model)
    with pytest.raises(SerialLoRAError, match=noun):
        from_peft(model, tmp_path)
    assert_same_bits(before, bits(model))
    assert not adapters(model) and all(p.requires_grad for p in model.parameters())
