"""Serial LoRA inside PEFT: PEFT's own tests of a method, done on our models, and equality with `inject`."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import serial_lora
from serial_lora import SerialLoRAError, from_peft, inject, save_adapter, to_peft
from tests.library.test_structure import FOUND
from tests.library.tiny_models import _VISION, RANK, TINY, fill_adapters, write_dense

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


def test_it_is_what_inject_does_in_values_and_gradients(tiny):
    model = adapted(tiny, scale=0.7)
    here = injected_alike(tiny, model, scale=0.7)
    outputs, expected = run(tiny, model), tiny.run(here)
    torch.testing.assert_close(outputs, expected, **CLOSE)
    dense = write_dense(tiny, tiny.build(), here, 0.7)
    torch.testing.assert_close(outputs, tiny.run(dense), **CLOSE)
    for output in (outputs, expected):
        output.square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    for gradient, other in zip(gradients, serial_lora.adapter_parameters(here), strict=True):
        torch.testing.assert_close(gradient, other.grad, rtol=1e-3, atol=1e-4)


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


def test_autocast_and_a_bfloat16_base(tiny):
    model = adapted(tiny)
    with torch.autocast("cpu", torch.bfloat16):
        expected = tiny.run(injected_alike(tiny, model))
        torch.testing.assert_close(run(tiny, model), expected, rtol=0, atol=0)
    half = peft.get_peft_model(tiny.build().bfloat16(), SerialLoRAConfig(r=RANK))
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}


# ---------------------------------------------------------------------- what PEFT asks of a method


def test_a_fresh_adapter_changes_nothing_and_only_pairs_learn(tiny):
    base, model = tiny.build(), peft.get_peft_model(tiny.build(), SerialLoRAConfig(r=RANK))
    torch.testing.assert_close(run(tiny, model), tiny.run(base), rtol=0, atol=0)
    blocks = 3  # of each of these models
    assert model.get_nb_trainable_parameters()[0] == 2 * 32 * RANK * blocks
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        run(tiny, model).square().sum().backward()
        optimizer.step()
    changed = [n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])]
    assert len(changed) == 2 * blocks and all(".default.lora_" in name for name in changed)


def test_a_saved_folder_holds_each_pair_once_and_loads_equal(tiny, tmp_path):
    model = adapted(tiny, scale=0.5)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == 2 * 3 and all("default" not in name for name in saved)
    assert sum(t.numel() for t in saved.values()) == model.get_nb_trainable_parameters()[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        again = peft.PeftModel.from_pretrained(tiny.build(), tmp_path).eval()
    torch.testing.assert_close(run(tiny, again), run(tiny, model), rtol=0, atol=0)
    sparing = peft.PeftModel.from_pretrained(tiny.build(), tmp_path, low_cpu_mem_usage=True).eval()
    torch.testing.assert_close(run(tiny, sparing), run(tiny, model), rtol=0, atol=0)


@torch.no_grad()
def test_merging_is_exact_and_comes_undone_bit_for_bit(tiny):
    model, base = adapted(tiny, scale=0.5), tiny.build()
    expected = run(tiny, model)
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
    untouched = {n: t for n, t in base.state_dict().items() if n.endswith("bias")}
    assert all(torch.equal(merged.state_dict()[name], bias) for name, bias in untouched.items())
    bare = adapted(tiny).unload()
    torch.testing.assert_close(tiny.run(bare), tiny.run(base), rtol=0, atol=0)


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
    firsts = [layer.serial_lora_pairs for layer in _layers(model) if layer.number == 0]
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
    assert len(_layers(model)) == 6 and model.get_nb_trainable_parameters()[0] == 2 * 32 * RANK
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
        q, k, v = _layers(other)[:3]
        assert q.serial_lora_pairs is k.serial_lora_pairs is v.serial_lora_pairs


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


@torch.no_grad()
@pytest.mark.parametrize("name", ["timm_beit", "torchvision_swin_1", "weights as matrices"])
def test_a_weight_that_is_read_is_the_adapted_one(name):
    tiny = FOUND[name]
    model = adapted(tiny, scale=0.7)
    expected = tiny.run(write_dense(tiny, tiny.build(), injected_alike(tiny, model), 0.7))
    torch.testing.assert_close(run(tiny, model), expected, **CLOSE)
    torch.testing.assert_close(tiny.run(model.merge_and_unload()), expected, **CLOSE)


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


def test_a_trainer_trains_pairs_and_head_and_goes_on_from_its_folder(tmp_path):
    from transformers import Trainer, TrainingArguments

    model = trained_classifier()
    before = logits(model).detach()
    pictures = torch.randn(4, 3, 16, 16)
    data = [{"pixel_values": picture, "labels": i % 3} for i, picture in enumerate(pictures)]
    options = dict(
        save_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.05,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    arguments = TrainingArguments(str(tmp_path), max_steps=2, **options)
    Trainer(model, arguments, train_dataset=data).train()
    model.eval()
    assert not torch.allclose(logits(model), before, **CLOSE)
    again = peft.PeftModel.from_pretrained(a_classifier(), tmp_path / "checkpoint-2").eval()
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=0)
    with again.disable_adapter():
        torch.testing.assert_close(logits(again), logits(a_classifier()), rtol=0, atol=0)
    torch.testing.assert_close(logits(again.merge_and_unload()), logits(model), **CLOSE)

    more = trained_classifier()
    arguments = TrainingArguments(str(tmp_path), max_steps=4, **options)
    trainer = Trainer(more, arguments, train_dataset=data)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert trainer.state.global_step == 4
    assert not torch.allclose(logits(more.eval()), logits(model), **CLOSE)


def trained_classifier(**options) -> nn.Module:
    config = SerialLoRAConfig(r=RANK, modules_to_save=["classifier"], **options)
    return fill_adapters(peft.get_peft_model(a_classifier(), config)).eval()


@torch.no_grad()
def test_a_folder_becomes_an_adapter_of_ours(tmp_path):
    """And a file of ours becomes one of PEFT's: an ordinary LoRA."""
    model = trained_classifier(scale=0.5)
    head = model.get_submodule("base_model.model.classifier.modules_to_save.default")
    head.bias.fill_(1.0)
    model.save_pretrained(tmp_path / "theirs")
    here = from_peft(a_classifier(), tmp_path / "theirs")
    torch.testing.assert_close(logits(here), logits(model), **CLOSE)
    save_adapter(here, tmp_path / "ours.safetensors")
    compiled = a_classifier()
    compiled.vit = torch.compile(compiled.vit, backend="eager")  # whose names are not in the files
    loaded = serial_lora.load_adapter(compiled, tmp_path / "ours.safetensors")
    to_peft(loaded, tmp_path / "as LoRA")
    again = peft.PeftModel.from_pretrained(a_classifier(), tmp_path / "as LoRA").eval()
    torch.testing.assert_close(logits(again), logits(model), **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "sd3_image"])
def test_a_folder_with_some_blocks_becomes_an_adapter_of_some_blocks(name, tmp_path):
    tiny = TINY[name]
    model = adapted(tiny, exclude_modules=r".*\b1\..*")
    model.save_pretrained(tmp_path)
    here = from_peft(tiny.build(), tmp_path)
    assert len(serial_lora.adapters(here)) == 2
    torch.testing.assert_close(tiny.run(here), run(tiny, model), **CLOSE)


def config_changed(**changes):
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


SPOILED = {
    "another method": config_changed(peft_type="LOHA"),
    "a scale in words": config_changed(scale="much"),
    "another head": config_changed(modules_to_save=["nothing"]),
    "half of the weights": lambda folder: os.truncate(folder / "adapter_model.safetensors", 500),
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_folder_that_is_damaged_or_not_ours_changes_nothing(spoil, tmp_path):
    trained_classifier().save_pretrained(tmp_path / "a")
    SPOILED[spoil](tmp_path / "a")
    model = a_classifier()
    before = logits(model)
    with pytest.raises(SerialLoRAError):
        from_peft(model, tmp_path / "a")
    assert not serial_lora.adapters(model) and torch.equal(logits(model), before)


@pytest.mark.parametrize("call", range(1, 6))
@torch.no_grad()
def test_an_export_is_the_old_one_the_new_one_or_none(call, tmp_path, monkeypatch):
    """Each file that takes another's place is in turn the last before the program is killed."""
    old, new = (
        fill_adapters(inject(a_classifier(), serial_lora.SerialLoRAConfig(RANK, scale=scale)))
        for scale in (0.5, 2.0)
    )
    to_peft(old, tmp_path)
    (tmp_path / "README.md").write_text("mine")
    replace, calls = os.replace, []

    def killed(*places):
        calls.append(places)
        if len(calls) == call:
            raise KeyboardInterrupt
        replace(*places)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        to_peft(new, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    try:
        read = logits(peft.PeftModel.from_pretrained(a_classifier(), tmp_path).eval())
    except ValueError:
        assert not (tmp_path / "adapter_config.json").exists()
        to_peft(new, tmp_path)  # the next time all is well
        read = logits(peft.PeftModel.from_pretrained(a_classifier(), tmp_path).eval())
    assert any(torch.allclose(read, logits(model), **CLOSE) for model in (old, new))
