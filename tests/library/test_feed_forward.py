"""Adapters in front of the feed-forward, or beside its layers: for every family, alone and with attention.

Which layers are meant is spelled out here, and nothing of the package is asked for them.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    activate,
    adapter_parameters,
    adapters,
    add_adapter,
    attention,
    combine,
    disabled,
    eject,
    from_peft,
    inject,
    load_adapter,
    merge,
    per_sample,
    register_family,
    save_adapter,
    to_peft,
    unmerge,
)
from serial_lora.files import read_header
from serial_lora.sites import Projection, Site
from tests.library.test_structure import FOUND, of_timm, separate, three
from tests.library.tiny_models import (
    RANK,
    TINY,
    PlainAttention,
    PlainBlock,
    Tiny,
    _run_pictures,
    _run_plain,
    assert_same_bits,
    bits,
    blocks_of,
    fill_adapters,
)

SCALE = 0.7
CLOSE = dict(rtol=1e-4, atol=2e-5)
PLAIN = separate(**{part: f"attention.{part}" for part in ("q", "k", "v", "out")})


class Gated(nn.Module):
    """A feed-forward of two first layers, one of which gates; or of one weight for both."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.w2 = nn.Linear(48, 32)
        if fused:
            self.w12 = nn.Linear(32, 96)
        else:
            self.w1, self.w3 = nn.Linear(32, 48), nn.Linear(32, 48)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w12(x).chunk(2, -1) if hasattr(self, "w12") else (self.w1(x), self.w3(x))
        return self.w2(gate.sigmoid() * up)


class GatedBlock(PlainBlock):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.mlp = Gated(fused)


class ParallelBlock(PlainBlock):
    """One norm for both, whose tokens attention must not read adapted."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        return x + self.attention(h) + self.mlp(h) + self.norm2(h)


def own(make, *arguments, attention: list = PLAIN) -> Tiny:
    return Tiny(lambda: three(functools.partial(make, *arguments)), _run_plain, attention)


def swiglu() -> nn.Module:
    sizes = dict(patch_size=8, embed_dim=32, depth=3, num_heads=4)
    return of_timm("eva", "Eva", swiglu_mlp=True, scale_mlp=True, **sizes)


MODELS = TINY | {
    "gated": own(GatedBlock, False),
    "gated, fused": own(GatedBlock, True),
    "parallel": own(ParallelBlock),
    "swiglu": Tiny(swiglu, _run_pictures, FOUND["timm_eva"].names),
    **{name: FOUND[name] for name in ("hf_data2vec", "torchvision_swin_1", "timm_swin")},
}
# model: (the layers that read tokens, fc1 and then what gates; the last layer), in each block
LAYERS = {
    "plain": (["mlp.0"], "mlp.2"),
    "encoder_post_norm": (["linear1"], "linear2"),
    "encoder_pre_norm_sequence_first": (["linear1"], "linear2"),
    "torchvision": (["mlp.0"], "mlp.3"),
    "open_clip": (["mlp.c_fc"], "mlp.c_proj"),
    "open_clip_own_attention": (["mlp.c_fc"], "mlp.c_proj"),
    "segment_anything": (["mlp.lin1"], "mlp.lin2"),
    "gated": (["mlp.w3", "mlp.w1"], "mlp.w2"),
    "gated, fused": (["mlp.w12"], "mlp.w2"),
    "parallel": (["mlp.0"], "mlp.2"),
    "swiglu": (["mlp.fc1_x", "mlp.fc1_g"], "mlp.fc2"),
    "hf_data2vec": (["intermediate.dense"], "output.dense"),
    "torchvision_swin_1": (["mlp.0"], "mlp.3"),
}
CONFIGS = {
    "serial": functools.partial(SerialLoRAConfig, places=("feed_forward",)),
    "serial, both": functools.partial(SerialLoRAConfig, places=("attention", "feed_forward")),
    "lora, both": functools.partial(LoRAConfig, parts=("q", "k", "v", "out", "fc1", "fc2")),
}
Parts = dict[str, tuple[str, int, int]]  # part: (weight, first row, rows)


@pytest.fixture(params=MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture(params=CONFIGS)
def kind(request) -> str:
    return request.param


def feed_forwards(name: str, model: nn.Module) -> Iterator[tuple[str, Parts]]:
    """The name of Serial LoRA's pair in each block, and the layers of its feed-forward."""
    weights = dict(model.named_parameters())
    for block, suffix, _ in blocks_of(MODELS[name], model):
        if name.startswith("sd3"):
            ff = {"": "ff", "_text": "ff_context"}.get(suffix)
            readers, last = [f"{ff}.net.0.proj"], f"{ff}.net.2"
        else:
            readers, last = LAYERS.get(name, (["mlp.fc1"], "mlp.fc2"))
        layers = dict(zip(("fc1", "gate"), readers, strict=False)) | {"fc2": last}
        layers = {part: f"{block}.{layer}.weight" for part, layer in layers.items()}
        if layers["fc1"] in weights:  # the last text stream of SD3 and second attentions have none
            parts = {part: (weight, 0, len(weights[weight])) for part, weight in layers.items()}
            yield f"{block}.serial_lora_ff{suffix}", parts


def every_pair(name: str, kind: str, model: nn.Module) -> dict[str, Parts]:
    """Serial LoRA's name of each pair, whose block and suffix LoRA's have too, and the parts."""
    attention = {
        f"{block}.serial_lora{suffix}": parts
        for block, suffix, parts in blocks_of(MODELS[name], model)
    }
    both = attention if "both" in kind else {}
    return both | dict(feed_forwards(name, model))


def is_lora(kind: str) -> bool:
    return kind.startswith("lora")


def dense_weights(name: str, kind: str, model: nn.Module, pairs: Mapping[str, Tensor]) -> dict:
    """The weights of a plain model with a change that is made of these pairs."""
    weights = {key: parameter.detach() for key, parameter in model.named_parameters()}
    for serial, parts in every_pair(name, kind, model).items():
        for part, (weight, start, rows) in parts.items():
            before, here, behind = weights[weight].tensor_split((start, start + rows))
            pair = re.sub(r"serial_lora(_ff)?", f"lora_{part}", serial) if is_lora(kind) else serial
            if pair == serial and part in ("out", "fc2"):
                continue
            change = SCALE * pairs[f"{pair}.lora_B"] @ pairs[f"{pair}.lora_A"]
            here = here + (here @ change if pair == serial else change)
            weights[weight] = torch.cat([before, here, behind])
    return weights


class Run(nn.Module):
    def __init__(self, tiny: Tiny, model: nn.Module) -> None:
        super().__init__()
        self.tiny, self.model = tiny, model

    def forward(self) -> Tensor:
        return self.tiny.run(self.model)


def run_with(tiny: Tiny, weights: Mapping[str, Tensor]) -> Tensor:
    run = Run(tiny, tiny.build())
    return torch.func.functional_call(run, {f"model.{key}": t for key, t in weights.items()}, ())


def adapted(name: str, kind: str) -> nn.Module:
    tiny = MODELS[name]
    config = CONFIGS[kind](RANK, scale=SCALE, stream=tiny.stream)
    return fill_adapters(inject(tiny.build(), config), size=0.3)


@pytest.mark.filterwarnings("error:no adapter went into")
def test_values_and_gradients_are_those_of_dense_weights_written_by_hand(name, kind):
    tiny, plain = MODELS[name], MODELS[name].build()
    model = inject(tiny.build(), CONFIGS[kind](RANK, scale=SCALE, stream=tiny.stream))
    with torch.no_grad():
        torch.testing.assert_close(tiny.run(model), tiny.run(plain), rtol=1e-5, atol=5e-6)
    fill_adapters(model)
    ours = {key: p for key, p in model.named_parameters() if p.requires_grad}
    theirs = {key: p.detach().clone().requires_grad_() for key, p in ours.items()}
    expected = run_with(tiny, dense_weights(name, kind, plain, theirs))
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
def test_merge_unmerge_eject_counts_and_file(name, kind, tmp_path):
    tiny, plain = MODELS[name], MODELS[name].build()
    model = adapted(name, kind)
    before, base, expected = bits(model), tiny.run(plain), tiny.run(model)
    assert (expected - base).abs().max() > 1e-3
    places = every_pair(name, kind, plain).values()
    sizes = [size for parts in places for size in shapes(plain, parts, kind)]
    formula = sum(RANK * (inputs + outputs) for inputs, outputs in sizes)
    assert sum(p.numel() for p in adapter_parameters(model)) == formula
    with disabled(model):
        torch.testing.assert_close(tiny.run(model), base, rtol=1e-5, atol=5e-6)

    path = save_adapter(model, tmp_path / "adapter.safetensors")
    again = load_adapter(tiny.build(), path)
    assert torch.equal(tiny.run(again), expected)
    assert read_header(path).config.places == CONFIGS[kind](1).places
    torch.testing.assert_close(tiny.run(merge(model)), expected, **CLOSE)
    assert_same_bits(before, bits(unmerge(model)))
    assert torch.equal(tiny.run(model), expected)
    assert_same_bits(bits(plain), bits(eject(merge(model))))
    assert torch.equal(tiny.run(model), base)


def shapes(model: nn.Module, parts: Parts, kind: str) -> list[tuple[int, int]]:
    """(inputs, outputs) of the pairs of one place."""
    weights = dict(model.named_parameters())
    sizes = [(weights[weight].shape[1], rows) for weight, _, rows in parts.values()]
    return sizes if is_lora(kind) else [(sizes[0][0], sizes[0][0])]


# ------------------------------------------------------------ several adapters, other libraries


def sequence_first(model: nn.Module) -> Tensor:
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    return model(x.transpose(0, 1)).transpose(0, 1)


BATCHES = {
    "encoder_pre_norm_sequence_first": sequence_first,
    "segment_anything": MODELS["segment_anything"].run,
    "gated": _run_plain,
}


@torch.no_grad()
@pytest.mark.parametrize("name", BATCHES)
def test_several_adapters_switch_add_up_and_serve_one_batch(name, kind):
    run, model = BATCHES[name], adapted(name, kind)
    first = run(model)
    add_adapter(model, "other", CONFIGS[kind](2, scale=SCALE))
    other = run(fill_adapters(model, seed=3, size=0.3))
    assert not torch.allclose(first, other, **CLOSE)
    with per_sample(model, ["default", "other"]):
        mixed = run(model)
    torch.testing.assert_close(mixed, torch.stack([first[0], other[1]]), **CLOSE)
    combine(model, {"default": 1.0, "other": 0.0}, "sum")
    torch.testing.assert_close(run(model), first, **CLOSE)
    assert torch.equal(run(activate(model, "default")), first)


@torch.no_grad()
@pytest.mark.parametrize("name", ["plain", "timm", "gated", "gated, fused", "hf_data2vec"])
def test_peft_loads_the_export_and_what_peft_saved_comes_back(name, kind, tmp_path):
    peft = pytest.importorskip("peft")
    tiny, model = MODELS[name], adapted(name, kind)
    expected = tiny.run(model)
    to_peft(model, tmp_path)
    loaded = peft.PeftModel.from_pretrained(tiny.build(), tmp_path).eval()
    torch.testing.assert_close(tiny.run(loaded.get_base_model()), expected, **CLOSE)
    torch.testing.assert_close(tiny.run(from_peft(tiny.build(), tmp_path)), expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("places", [["feed_forward"], ["attention", "feed_forward"]])
@pytest.mark.parametrize("name", ["timm", "gated", "sd3_image"])
def test_inside_peft_it_is_what_inject_does(name, places, tmp_path):
    pytest.importorskip("peft", minversion="0.21", reason='pip install "peft>=0.21"')
    from peft import PeftModel, get_peft_model

    from serial_lora import peft as ours

    tiny = MODELS[name]
    config = ours.SerialLoRAConfig(r=RANK, scale=SCALE, places=places)
    model = fill_adapters(get_peft_model(tiny.build(), config), size=0.3).eval()
    expected = tiny.run(model.get_base_model())
    assert (expected - tiny.run(tiny.build())).abs().max() > 1e-3
    model.save_pretrained(tmp_path)
    here = from_peft(tiny.build(), tmp_path)
    assert adapter_count(here) == adapter_count(model)
    torch.testing.assert_close(tiny.run(here), expected, **CLOSE)
    torch.testing.assert_close(tiny.run(merge(here)), expected, **CLOSE)
    again = PeftModel.from_pretrained(tiny.build(), tmp_path).eval()
    torch.testing.assert_close(tiny.run(again.get_base_model()), expected, **CLOSE)


def adapter_count(model: nn.Module) -> int:
    return sum("lora_A" in name for name, _ in model.named_parameters())


# ------------------------------------------------------------------------------------- refusals


class Convolutions(PlainBlock):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv1d(32, 48, 1), nn.GELU(), nn.Conv1d(48, 32, 1))


class Two(PlainBlock):
    def __init__(self) -> None:
        super().__init__()
        self.other = Gated(fused=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.other(super().forward(x))


class Bottleneck(PlainBlock):
    """Narrow in the middle: squeeze and excitation, or an adapter of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(32, 8), nn.GELU(), nn.Linear(8, 32))


@pytest.mark.parametrize("make", [Convolutions, Bottleneck, PlainAttention])
def test_a_block_without_one_is_refused_by_name_and_beside_others_told(make, kind):
    model = nn.Sequential(make(), make())
    with pytest.raises(SerialLoRAError, match=rf"no feed-forward .* 0 \({make.__name__}\)"):
        inject(model, CONFIGS[kind](RANK))
    assert not adapters(model) and all(p.requires_grad for p in model.parameters())
    with pytest.warns(match=rf"no adapter went into a feed-forward of 1 \({make.__name__}\)"):
        inject(nn.Sequential(PlainBlock(), make()), CONFIGS[kind](RANK))


@torch.no_grad()
def test_a_registered_family_may_name_one_of_another_shape(kind, monkeypatch):
    monkeypatch.setattr(attention, "FAMILIES", list(attention.FAMILIES))

    @register_family
    def narrow(model):
        layers = {"fc1": Projection("0.mlp.0", "weight", 0, 8, 32)}
        layers |= {"fc2": Projection("0.mlp.2", "weight", 0, 32, 8)}
        yield Site("0", "image", 0, 32, None, layers, place="feed_forward")

    model = fill_adapters(inject(nn.Sequential(Bottleneck()), CONFIGS[kind](RANK)))
    assert adapters(model).keys() & {"0.serial_lora_ff", "0.lora_fc1"}
    expected = _run_plain(model)
    torch.testing.assert_close(_run_plain(merge(model)), expected, **CLOSE)


@torch.no_grad()
def test_one_in_two_blocks_has_one_adapter_and_two_in_one_block_have_two(kind):
    shared = TINY["timm"].build()
    shared.blocks[1].mlp = shared.blocks[0].mlp
    for model, run in ((shared, _run_pictures), (nn.Sequential(Two()), _run_plain)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fill_adapters(inject(model, CONFIGS[kind](RANK)))
        assert sum("fc2" in name or "_ff" in name for name in adapters(model)) == 2
        expected = run(model)
        torch.testing.assert_close(run(merge(model)), expected, **CLOSE)


@pytest.mark.parametrize("wrong", ["mlp", (), ("attention", "out"), 3])
def test_a_place_that_is_not_there_is_refused(wrong):
    for kind in (SerialLoRAConfig, LoRAConfig):  # whose places are its parts
        with pytest.raises(SerialLoRAError, match="places"):
            kind(RANK, places=wrong)


def test_a_file_for_one_place_does_not_fit_another(kind, tmp_path):
    path = save_adapter(adapted("timm", kind), tmp_path / "adapter.safetensors")
    other = inject(TINY["timm"].build(), type(CONFIGS[kind](1))(RANK))
    with pytest.raises(SerialLoRAError, match="places"):
        load_adapter(other, path)
