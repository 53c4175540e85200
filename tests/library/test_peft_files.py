"""Between this library's adapters and PEFT's files, which diffusers loads: equal outputs, or one sentence."""

from __future__ import annotations

import errno
import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    adapters,
    from_peft,
    inject,
    load_adapter,
    merge,
    peft_files,
    save_adapter,
    to_peft,
)
from serial_lora.tensor_files import write_whole
from tests.library.more_models import FOUND, MODELS
from tests.library.test_peft import a_classifier, logits
from tests.library.tiny_models import (
    BOTH,
    EVERY,
    FORWARD,
    RANK,
    TINY,
    adapted,
    assert_same_bits,
    bits,
    fill_adapters,
    run_sd3,
)

peft = pytest.importorskip("peft", minversion="0.21", reason='pip install "peft>=0.21"')
CLOSE = dict(rtol=1e-4, atol=2e-5)


# -------------------------------------------------------------------------------- to them


@torch.no_grad()
@pytest.mark.parametrize("merged", [False, True])
def test_peft_loads_it_with_equal_outputs(tiny, method, merged, tmp_path):
    some = dict(parts=("k", "v")) if merged and method is LoRAConfig else {}
    model = adapted(tiny, method, scale=0.6, dropout=0.1, **some).eval()
    expected = tiny.run(model)
    if merged:
        merge(model)
    packed = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
    if packed or tiny is TINY["open_clip_own_attention"]:
        with pytest.raises(SerialLoRAError, match="PEFT has no LoRA layer"):
            to_peft(model, tmp_path)
        assert not list(tmp_path.iterdir())
        return
    tensors = to_peft(model, tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert stored.keys() == tensors.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of missing and unexpected keys
        for other in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=other)
        loaded = peft.PeftModel.from_pretrained(tiny.build(), tmp_path).eval()
    torch.testing.assert_close(tiny.run(loaded.get_base_model()), expected, **CLOSE)
    assert not torch.allclose(tiny.run(tiny.build()), expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd3_image", "sd35_both"])
def test_diffusers_loads_it_with_equal_outputs(name, method):
    tiny = TINY[name]
    model, other = adapted(tiny, method, scale=0.6), tiny.build()
    other.load_lora_adapter(to_peft(model), prefix="base_model.model")
    torch.testing.assert_close(run_sd3(other), run_sd3(model), **CLOSE)


def test_a_full_disk_leaves_an_older_export_as_it_was(tmp_path, monkeypatch):
    to_peft(adapted(TINY["timm"], SerialLoRAConfig), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, content):
        if path.suffix == ".safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_whole(path, content)

    monkeypatch.setattr(peft_files, "write_whole", full)
    with pytest.raises(SerialLoRAError, match="free some space"):
        to_peft(adapted(TINY["timm"], LoRAConfig), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def diverged() -> nn.Module:
    model = inject(TINY["sd3_image"].build(), SerialLoRAConfig(rank=RANK))
    next(adapter_parameters(model)).data[0, 0] = float("nan")
    return model


def with_tied_output() -> nn.Module:
    """PEFT would train and save a copy, and the embedding that shares the weight would stay."""
    model = TINY["plain"].build()
    model.embedding, model.head = nn.Embedding(5, 32), nn.Linear(32, 5)
    model.head.weight = model.embedding.weight
    return inject(model, SerialLoRAConfig(rank=RANK), also_train=["head"])


def serial(tiny) -> nn.Module:
    model = inject(tiny.build(), SerialLoRAConfig(rank=RANK))
    tiny.run(model)  # only now it is known what the model calls
    return model


def beside_output_alone(tiny) -> nn.Module:
    return inject(tiny.build(), LoRAConfig(rank=RANK, parts=("out",)))


REFUSED = {
    "no adapters": (TINY["timm"].build, "no adapters"),
    "diverged": (diverged, "finite"),
    "a tied head": (with_tied_output, "head.weight shares a weight"),
    "a layer that no one calls": (lambda: beside_output_alone(TINY["torchvision"]), "out_proj"),
    "a weight read past its layer": (lambda: serial(FOUND["timm_beit"]), "qkv"),
    "a weight handed on": (lambda: serial(FOUND["torchvision_swin_1"]), "qkv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_leaves_nothing(case, tmp_path):
    build, noun = REFUSED[case]
    with pytest.raises(SerialLoRAError, match=noun):
        to_peft(build(), tmp_path)
    assert not list(tmp_path.iterdir())


@torch.no_grad()
@pytest.mark.parametrize("kind", [FORWARD, BOTH, EVERY])
@pytest.mark.parametrize("name", ["plain", "timm", "gated", "gated, fused", "hf_data2vec"])
def test_peft_loads_the_export_and_it_comes_back(name, kind, tmp_path):
    tiny = MODELS[name]
    model = fill_adapters(inject(tiny.build(), kind(RANK, scale=0.7)), size=0.3)
    model.name_or_path = "hub/name"  # as a model of transformers has it
    expected = tiny.run(model)
    to_peft(model, tmp_path)
    loaded = peft.PeftModel.from_pretrained(tiny.build(), tmp_path).eval()
    torch.testing.assert_close(tiny.run(loaded.get_base_model()), expected, **CLOSE)
    if (name, kind) == ("timm", EVERY):  # three pairs beside its qkv became one of another rank
        with pytest.raises(SerialLoRAError, match="alpha_pattern"):
            from_peft(tiny.build(), tmp_path)
    else:
        back = from_peft(tiny.build(), tmp_path)
        torch.testing.assert_close(tiny.run(back), expected, **CLOSE)
    known = peft.PeftConfig.from_pretrained(tmp_path).base_model_name_or_path
    assert known == "hub/name"


# ------------------------------------------------------------------------------ from PEFT

ALL = ["qkv", "attn.proj", "fc1", "fc2"]
CASES = {
    "timm": dict(target_modules=ALL),
    "timm, rsLoRA": dict(target_modules=ALL, use_rslora=True),
    "timm, some blocks": dict(target_modules=r"blocks\.[02]\.attn\.qkv"),
    "timm, with a head": dict(target_modules=["qkv", "fc2"], modules_to_save=["head"]),
    "hf_vit, two of a block": dict(target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    "plain": dict(target_modules="all-linear"),
    "sd3_image": dict(target_modules=["to_q", "add_k_proj", "net.0.proj"]),
}


def by_peft(case: str, folder, **options):
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
    tiny, expected = by_peft(case, tmp_path)
    model = from_peft(tiny.build(), tmp_path)
    assert (tiny.run(tiny.build()) - expected).abs().max() > 1e-2
    torch.testing.assert_close(tiny.run(model), expected, **CLOSE)
    path = save_adapter(model, tmp_path / "ours.safetensors")
    assert torch.equal(tiny.run(load_adapter(tiny.build(), path)), tiny.run(model))


def test_it_goes_on_learning_in_places_that_the_file_left_out_too(tmp_path):
    tiny, _ = by_peft("timm, some blocks", tmp_path)
    model = from_peft(tiny.build(), tmp_path)
    assert {name.partition(".attn")[0][:8] for name in adapters(model)} == {"blocks.0", "blocks.2"}
    tiny.run(model).square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if n.endswith("lora_B")}
    assert gradients and all(gradient.any() for gradient in gradients.values())


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


LONG = "\x1b[31m" * 1000
FIRST = "base_model.model.blocks.0.attn.qkv"
NOT_TAKEN = {
    "DoRA": (option("use_dora", True), "use_dora=True"),
    "ranks by layer": (option("rank_pattern", {"fc1": 2}), "rank_pattern"),
    "alphas by layer": (option("alpha_pattern", {"fc1": 2}), "alpha_pattern"),
    "biases": (option("bias", "lora_only"), "bias='lora_only'"),
    "another start": (option("init_lora_weights", "pissa_niter_4"), "init_lora_weights"),
    "an option of later": (option("use_something", {"a": 1}), "use_something"),
    "another method": (option("peft_type", "LOHA"), "LOHA"),
    "another method of many words": (option("peft_type", LONG), "peft_type"),
    "an option of many words": (option("use_dora", LONG), "use_dora"),
    "modules that are none": (option("modules_to_save", 3), "adapter_config"),
    "no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config"),
    "no tensors": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter"),
    "a layer elsewhere": (
        tensors(lambda all: {name.replace("attn.qkv", "norm1"): t for name, t in all.items()}),
        "adapts blocks.0.norm1",
    ),
    "a layer of many words": (
        tensors(lambda all: {n.replace("attn.qkv", LONG): t for n, t in all.items()}),
        "adapts blocks.0.",
    ),
    "a tensor of many words": (tensors(lambda all: all | {LONG: torch.ones(2)}), "no pair"),
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


@pytest.mark.parametrize("case", NOT_TAKEN)
def test_what_it_cannot_take_is_one_sentence_and_the_model_as_it_was(case, tmp_path):
    write, noun = NOT_TAKEN[case]
    tiny, _ = by_peft("timm, some blocks", tmp_path)
    write(tmp_path)
    model = tiny.build()
    before = bits(model)
    with pytest.raises(SerialLoRAError, match=noun) as refused:
        from_peft(model, tmp_path)
    assert len(str(refused.value)) < 600 and str(refused.value).isprintable()
    assert_same_bits(before, bits(model))
    assert not adapters(model) and all(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_a_head_goes_along(tmp_path):
    """A file of ours becomes one of PEFT's, an ordinary LoRA, and comes back."""
    model = fill_adapters(
        inject(a_classifier(), SerialLoRAConfig(RANK, 0.5), ["classifier"])
    ).eval()
    model.classifier.bias.fill_(1.0)
    save_adapter(model, tmp_path / "ours.safetensors")
    compiled = a_classifier()
    compiled.vit = torch.compile(compiled.vit, backend="eager")  # whose names are not in the files
    to_peft(load_adapter(compiled, tmp_path / "ours.safetensors"), tmp_path / "as LoRA")
    again = peft.PeftModel.from_pretrained(a_classifier(), tmp_path / "as LoRA").eval()
    torch.testing.assert_close(logits(again), logits(model), **CLOSE)
    back = from_peft(a_classifier(), tmp_path / "as LoRA")
    torch.testing.assert_close(logits(back), logits(model), **CLOSE)
