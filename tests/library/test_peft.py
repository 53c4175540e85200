"""Serial LoRA inside PEFT: PEFT's own tests of a method, done on our models, and equality with `inject`."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from accelerate import cpu_offload
from safetensors.torch import load_file
from torch import nn

import serial_lora
from serial_lora import SerialLoRAError, from_peft, inject
from tests.library.more_models import MODELS
from tests.library.tiny_models import _VISION, RANK, SCALE, TINY, fill_adapters

peft = pytest.importorskip("peft", minversion="0.21", reason='pip install "peft>=0.21"')

from serial_lora import peft as ours  # noqa: E402
from serial_lora.peft import SerialLoRAConfig  # noqa: E402

CLOSE = dict(rtol=1e-4, atol=1e-5)
NAMES = ["plain", "timm", "segment_anything", "hf_vit", "sd3_image"]


@pytest.fixture(params=NAMES)
def tiny(request):
    return TINY[request.param]


def adapted(tiny, seed: int = 7, **options) -> peft.PeftModel:
    model = peft.get_peft_model(tiny.build(), SerialLoRAConfig(r=RANK, **options))
    return fill_adapters(model, seed).eval()


def run(tiny, model: peft.PeftModel) -> torch.Tensor:
    return tiny.run(model.get_base_model())


def injected_alike(tiny, model: peft.PeftModel, name: str = "default", **options) -> nn.Module:
    """Our own model with the same values in its pairs."""
    here = inject(tiny.build(), serial_lora.SerialLoRAConfig(RANK, **options))
    values = [p for n, p in model.named_parameters() if f".{name}.lora_" in n]
    for own, value in zip(serial_lora.adapter_parameters(here), values, strict=True):
        own.data.copy_(value)
    return here.train(model.training)


# ------------------------------------------------------------------------------ the same as `inject`

BOTH = dict(places=["attention", "feed_forward"])
CASES = [(name, {}) for name in (*NAMES, "timm_beit", "torchvision_swin_1", "weights as matrices")]
CASES += [(name, BOTH) for name in ("timm", "gated", "sd3_image")]
CASES += [("gated", dict(places=["feed_forward"])), ("timm", dict(exclude_modules=r".*\b1\..*"))]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_it_is_what_inject_does(name, options, tmp_path):
    """Fresh, in values and gradients, in a folder, merged and taken out again."""
    tiny, base = MODELS[name], MODELS[name].build()
    model = peft.get_peft_model(
        tiny.build(), SerialLoRAConfig(r=RANK, scale=SCALE, **options)
    ).eval()
    torch.testing.assert_close(run(tiny, model), tiny.run(base), rtol=0, atol=0)
    fill_adapters(model, size=0.3)
    where = dict(places=options.get("places", ("attention",)))
    if "exclude_modules" in options:
        where["blocks"] = [0, 2]
    here = injected_alike(tiny, model, scale=SCALE, **where)
    expected = run(tiny, model)
    assert (expected - tiny.run(base)).abs().max() > 1e-3
    torch.testing.assert_close(expected, tiny.run(here), **CLOSE)
    ours, theirs = list(serial_lora.adapter_parameters(here)), trained(model)
    assert model.get_nb_trainable_parameters()[0] == sum(p.numel() for p in ours)
    gradients = (
        torch.autograd.grad(output.square().mean(), parameters)
        for output, parameters in ((expected, theirs), (tiny.run(here), ours))
    )
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        model.save_pretrained(tmp_path)
        saved = load_file(tmp_path / "adapter_model.safetensors")
        assert sum(tensor.numel() for tensor in saved.values()) == sum(p.numel() for p in ours)
        for more in ({}, {"low_cpu_mem_usage": True}):
            again = peft.PeftModel.from_pretrained(tiny.build(), tmp_path, **more).eval()
            assert torch.equal(run(tiny, again), expected)
        with pytest.raises(SerialLoRAError, match="use PEFT for it"):
            from_peft(tiny.build(), tmp_path)
        model.merge_adapter(safe_merge=True)
        torch.testing.assert_close(run(tiny, model), expected, **CLOSE)
        with model.disable_adapter():
            torch.testing.assert_close(run(tiny, model), tiny.run(base), rtol=0, atol=0)
        model.merge_adapter()
        model.unmerge_adapter()
        torch.testing.assert_close(run(tiny, model), expected, rtol=0, atol=0)
        merged = model.merge_and_unload()
        torch.testing.assert_close(tiny.run(merged), expected, **CLOSE)
        assert type(merged) is type(base) and merged.state_dict().keys() == base.state_dict().keys()
        assert torch.equal(tiny.run(again.unload()), tiny.run(base))


def test_a_safe_merge_refuses_what_a_narrow_type_cannot_hold():
    model = peft.get_peft_model(MODELS["hf_vit"].build().half(), SerialLoRAConfig(r=RANK))
    fill_adapters(model, size=1e7)
    with pytest.raises(SerialLoRAError, match="nothing was merged"):
        model.merge_adapter(safe_merge=True)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", ["hf_vit", "timm"])
def test_one_dropout_mask_and_one_product_serve_q_k_and_v(name):
    tiny, calls = TINY[name], []
    model = adapted(tiny, dropout=0.5).train()
    for module in model.modules():
        if isinstance(module, serial_lora.layers.SerialLoRA):
            module.register_forward_hook(lambda *_: calls.append(1))
    here = injected_alike(tiny, model, dropout=0.5)
    torch.manual_seed(1)
    outputs = run(tiny, model)
    torch.manual_seed(1)
    torch.testing.assert_close(outputs, tiny.run(here), **CLOSE)
    assert len(calls) == 3  # one for each block


# ---------------------------------------------------------------------- what PEFT asks of a method


@torch.no_grad()
def test_several_adapters_add_up_switch_and_go(tiny):
    model = adapted(tiny, seed=1, scale=0.5)
    first = run(tiny, model)
    model.add_adapter("other", SerialLoRAConfig(r=2, scale=2.0))
    torch.testing.assert_close(run(tiny, model), first, rtol=0, atol=0)
    for value in [p for n, p in model.named_parameters() if n.endswith("other.lora_B")]:
        value.normal_(std=0.1)
    model.set_adapter("other")
    second = run(tiny, model)
    assert not torch.allclose(second, first, **CLOSE)
    assert all(".other." in n for n, p in model.named_parameters() if p.requires_grad)

    model.base_model.set_adapter(["default", "other"])
    both = run(tiny, model)
    sums = inject(tiny.build(), serial_lora.SerialLoRAConfig(RANK + 2))
    firsts = [layer.serial_lora_pairs for layer in _layers(model)]
    for pairs, own in zip(firsts, serial_lora.adapters(sums).values(), strict=True):
        one, two = pairs["default"], pairs["other"]
        own.lora_A.copy_(torch.cat([one.lora_A, two.lora_A]))
        own.lora_B.copy_(torch.cat([one.scale * one.lora_B, two.scale * two.lora_B], dim=1))
    torch.testing.assert_close(both, tiny.run(sums), **CLOSE)
    model.merge_adapter()
    torch.testing.assert_close(run(tiny, model), both, **CLOSE)
    model.unmerge_adapter()

    model.set_adapter("default")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says which adapter is active then
        model.delete_adapter("default")
    torch.testing.assert_close(run(tiny, model), second, rtol=0, atol=0)
    assert not [name for name in model.state_dict() if ".default." in name]


def _layers(model: nn.Module) -> list[ours.SerialLoRALayer]:
    return [m for m in model.modules() if isinstance(m, ours.SerialLoRALayer)]


@torch.no_grad()
def test_adapters_may_go_to_different_blocks():
    tiny = TINY["plain"]
    model = adapted(tiny, target_modules=["0.attention.q", "0.attention.k", "0.attention.v"])
    model.add_adapter("all", SerialLoRAConfig(r=RANK, exclude_modules="2.*"))
    assert len(_layers(model)) == 2 and model.get_nb_trainable_parameters()[0] == 2 * 32 * RANK
    fill_adapters(model)
    model.set_adapter("all")
    only = injected_alike(tiny, model, "all", blocks=[0, 1])
    torch.testing.assert_close(run(tiny, model), tiny.run(only), **CLOSE)


def test_copies_and_pickles_share_their_own_pair():
    tiny = TINY["hf_vit"]
    model = adapted(tiny)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(run(tiny, other), run(tiny, model), rtol=0, atol=0)
        fill_adapters(other, seed=9)
        assert not torch.allclose(run(tiny, other), run(tiny, model), **CLOSE)


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "options", "noun"),
    [
        ("hf_vit", dict(r=0), "rank"),
        ("hf_vit", dict(scale=float("nan")), "scale"),
        ("hf_vit", dict(target_modules=["q_proj", "v_proj"]), "together"),
        ("hf_vit", dict(target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]), "o_proj"),
        ("hf_vit", dict(target_modules="all-linear"), "all-linear"),
        ("hf_vit", dict(exclude_modules=["k_proj"]), "k_proj"),
        ("hf_vit", dict(modules_to_save=["hed"]), "no module 'hed'"),
        ("hf_vit", dict(lora_alpha=8), "lora_alpha is scale"),
        ("torchvision", {}, "inject"),
        ("open_clip_own_attention", {}, "inject"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(name, options, noun):
    model = TINY[name].build()
    keys = list(model.state_dict())
    with pytest.raises(SerialLoRAError, match=noun):
        peft.get_peft_model(model, SerialLoRAConfig(**options))
    assert list(model.state_dict()) == keys


ELSEWHERE = {
    "computed": lambda model: nn.utils.parametrizations.weight_norm(model[1].attention.q),
    "offloaded": lambda model: cpu_offload(model, torch.device("cpu")),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_weight_that_the_layer_does_not_hold_is_refused_as_inject_does(kind):
    model = TINY["plain"].build()
    ELSEWHERE[kind](model)
    keys, said = list(model.state_dict()), []
    for put_in in (
        lambda: peft.get_peft_model(model, SerialLoRAConfig(r=RANK)),
        lambda: inject(model, serial_lora.SerialLoRAConfig(RANK)),
    ):
        with pytest.raises(SerialLoRAError, match=f"attention.q.* {kind}") as refused:
            put_in()
        said.append(str(refused.value))
        assert list(model.state_dict()) == keys
    assert said[0] == said[1]


def test_adapters_for_samples_are_refused():
    model = peft.get_peft_model(TINY["plain"].build(), SerialLoRAConfig(r=RANK))
    with pytest.raises(SerialLoRAError, match="adapter_names"):
        model(torch.randn(1, 4, 32), adapter_names=["default"])


def test_an_adapter_that_diverged_is_not_merged():
    model = adapted(TINY["hf_vit"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    last = [p for n, p in model.named_parameters() if n.endswith("lora_A")][-1]
    last.data[0, 0] = float("inf")
    with pytest.raises(SerialLoRAError, match="finite"):
        model.merge_adapter()
    changed = [n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])]
    assert len(changed) == 1


# ------------------------------------------------------------------------ around it: transformers


def a_classifier() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**_VISION, num_labels=3)).eval()


def logits(model: nn.Module) -> torch.Tensor:
    pictures = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return model(pixel_values=pictures).logits


@torch.no_grad()
def test_transformers_loads_it_by_itself(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        model = peft.get_peft_model(a_classifier(), SerialLoRAConfig(r=RANK))
        fill_adapters(model, seed).save_pretrained(tmp_path / name)
    one, two = (
        logits(peft.PeftModel.from_pretrained(a_classifier(), tmp_path / name))
        for name in ("one", "two")
    )
    model = a_classifier()
    model.load_adapter(str(tmp_path / "one"), adapter_name="one")
    torch.testing.assert_close(logits(model), one, rtol=0, atol=0)
    model.load_adapter(str(tmp_path / "two"), adapter_name="two")
    for layer in _layers(model):
        layer.set_adapter("two")
    torch.testing.assert_close(logits(model), two, rtol=0, atol=0)
