"""The exported LoRA, loaded by PEFT and by diffusers themselves, gives the same outputs."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapter_parameters,
    inject,
    merge,
    to_diffusers,
    to_peft,
)
from tests.library.test_structure import FOUND
from tests.library.tiny_models import RANK, TINY, adapted, run_sd3

peft = pytest.importorskip("peft")
CLOSE = dict(rtol=1e-4, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize("merged", [False, True])
def test_peft_loads_it_with_equal_outputs(tiny, method, merged, tmp_path, monkeypatch):
    some = dict(parts=("k", "v")) if merged and method is LoRAConfig else {}
    model = adapted(tiny, method, scale=0.6, dropout=0.1, **some).eval()
    expected = tiny.run(model)
    if merged:
        merge(model)
    packed = any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
    if tiny is TINY["open_clip_own_attention"] or (packed and method is LoRAConfig):
        with pytest.raises(SerialLoRAError, match="twice|PEFT has no LoRA layer"):
            to_peft(model, tmp_path)
        assert not list(tmp_path.iterdir())
        return
    shortcut = any(isinstance(module, nn.TransformerEncoderLayer) for module in model.modules())
    with pytest.warns(match="set_fastpath_enabled") if shortcut else nullcontext():
        tensors = to_peft(model, tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert stored.keys() == tensors.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of missing and unexpected keys
        for other in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=other)
        loaded = peft.PeftModel.from_pretrained(tiny.build(), tmp_path).eval()
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    torch.testing.assert_close(tiny.run(loaded.get_base_model()), expected, **CLOSE)
    assert not torch.allclose(tiny.run(tiny.build()), expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd3_image", "sd3_text", "sd35_both"])
def test_diffusers_loads_it_with_equal_outputs_and_forgets_it_again(name, method, tmp_path):
    """Into the transformer alone, and from the folder into a stock pipeline, without a warning."""
    from diffusers import StableDiffusion3Pipeline

    tiny = TINY[name]
    model = adapted(tiny, method, scale=0.6)
    expected = run_sd3(model)
    tensors = to_diffusers(model, tmp_path)
    other = tiny.build()
    other.load_lora_adapter(dict(tensors), prefix="transformer")
    torch.testing.assert_close(run_sd3(other), expected, **CLOSE)
    pipeline = StableDiffusion3Pipeline(tiny.build(), *[None] * 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    torch.testing.assert_close(run_sd3(pipeline.transformer), expected, **CLOSE)
    pipeline.unload_lora_weights()
    assert torch.equal(run_sd3(pipeline.transformer), run_sd3(tiny.build()))


def diverged() -> nn.Module:
    model = inject(TINY["sd3_image"].build(), SerialLoRAConfig(rank=RANK))
    next(adapter_parameters(model)).data[0, 0] = float("nan")
    return model


def with_output() -> nn.Module:
    model = TINY["sd3_image"].build()
    return inject(model, SerialLoRAConfig(rank=RANK), also_train=["proj_out"])


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
    "no adapters": (to_peft, TINY["timm"].build, "no adapters"),
    "no SD3": (to_diffusers, lambda: serial(TINY["timm"]), "only an SD3"),
    "a trained module": (to_diffusers, with_output, "proj_out"),
    "diverged, for PEFT": (to_peft, diverged, "finite"),
    "diverged, for diffusers": (to_diffusers, diverged, "finite"),
    "a tied head": (to_peft, with_tied_output, "head.weight shares a weight"),
    "no layer is called": (
        to_peft,
        lambda: beside_output_alone(TINY["torchvision"]),
        "does not act",
    ),
    "a weight read past its layer": (to_peft, lambda: serial(FOUND["timm_beit"]), "qkv"),
    "a weight handed on": (to_peft, lambda: serial(FOUND["torchvision_swin_1"]), "qkv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_leaves_nothing(case, tmp_path):
    export, build, noun = REFUSED[case]
    with pytest.raises(SerialLoRAError, match=noun):
        export(build(), tmp_path)
    assert not list(tmp_path.iterdir())
