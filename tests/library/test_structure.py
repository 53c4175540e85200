"""Where adapters go, found by structure: exact where it is, left alone or refused elsewhere."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAError,
    adapters,
    attention,
    disabled,
    eject,
    inject,
    merge,
    register_family,
)
from serial_lora.attention import find_sites
from serial_lora.sites import Projection, Site
from tests.library.more_models import Gated
from tests.library.tiny_models import (
    BOTH,
    EVERY,
    FORWARD,
    RANK,
    TINY,
    PlainAttention,
    PlainBlock,
    _run_pictures,
    _run_plain,
    _timm,
    fill_adapters,
)

CLOSE = dict(rtol=1e-4, atol=2e-5)


def test_a_part_that_is_not_there_is_refused():
    model = nn.Sequential(PlainAttention())
    del model[0].out
    for parts in (("out",), (), ("o",), "qv", 3):
        with pytest.raises(SerialLoRAError):
            inject(model, LoRAConfig(RANK, parts=parts))
    assert not adapters(model)


def test_what_attends_elsewhere_is_left_alone():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.cross_attention = PlainAttention(), PlainAttention()
            self.narrow = PlainAttention()
            self.narrow.k, self.narrow.v = nn.Linear(16, 32), nn.Linear(16, 32)
            self.other = nn.MultiheadAttention(32, 4, kdim=16, vdim=16)
            self.decoder = nn.TransformerDecoderLayer(32, 4, 48)
            self.self_attn, self.multihead_attn = (nn.MultiheadAttention(32, 4) for _ in range(2))

    names = [site.projections["q"].module for site in find_sites(Mixed())]
    assert names == ["own.q", "decoder.self_attn", "self_attn"]


def with_layer(layer: nn.Module) -> nn.Module:
    model = _timm()
    model.blocks[1].attn.qkv = layer
    return model


def convolution() -> nn.Module:
    model = nn.Sequential(PlainBlock(), PlainBlock())
    model[1].attention.k = nn.Conv1d(32, 32, 1)
    return model


def fused_sd3() -> nn.Module:
    model = TINY["sd3_image"].build()
    model.transformer_blocks[0].attn.fuse_projections(fuse=True)
    return model


REFUSED = {
    "projections of SD3 that were fused": (fused_sd3, "unfuse_qkv_projections"),
    "a convolution": (convolution, "1.attention.k is a Conv1d"),
    "a wrapped layer": (
        lambda: with_layer(nn.Sequential(nn.Linear(32, 96))),
        "blocks.1.attn.qkv is a Sequential",
    ),
    "rows that are no q, k, v": (
        lambda: with_layer(nn.Linear(32, 64)),
        "blocks.1.attn.qkv has 64 rows",
    ),
    "tokens of its own": (
        lambda: nn.Sequential(nn.MultiheadAttention(32, 4, add_bias_kv=True)),
        "0 adds tokens",
    ),
    "no attention": (lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "register_family"),
    "attention of names unknown": (
        lambda: nn.ModuleDict({name: nn.Linear(4, 4) for name in ("ask", "offer", "carry")}),
        "nn.MultiheadAttention",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_adapted_is_refused_by_name(case, method):
    build, words = REFUSED[case]
    model = build()
    with pytest.raises(SerialLoRAError) as caught:
        inject(model, method(rank=2))
    assert words in str(caught.value)
    assert not adapters(model) and all(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_a_model_inside_another_module(method):
    """A tower alone, a backbone with a head in front of which it was put, before or afterwards."""
    tower = inject(TINY["open_clip"].build().visual, method(rank=2))
    assert {name.split(".")[0] for name in adapters(tower)} == {"transformer"}
    x = torch.randn(1, 3, 16, 16)
    for wrapped_first in (True, False):
        backbone = TINY["timm"].build()
        model = nn.Sequential(backbone, nn.Linear(5, 2))
        base = model(x)
        fill_adapters(inject(model if wrapped_first else backbone, method(rank=2)))
        expected = model(x)
        assert not torch.allclose(expected, base)
        with disabled(model):
            torch.testing.assert_close(model(x), base)
        torch.testing.assert_close(merge(model)(x), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(eject(model)(x), base) and not adapters(backbone)


@torch.no_grad()
def test_one_attention_in_two_blocks_has_one_adapter(method):
    model = _timm()
    model.blocks[1].attn = model.blocks[0].attn
    assert len(find_sites(model)) == 2
    fill_adapters(inject(model, method(rank=2)))
    x = torch.randn(1, 3, 16, 16)
    expected = model(x)
    torch.testing.assert_close(merge(model)(x), expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- feed-forwards

CONFIGS = {"serial": FORWARD, "serial, both": BOTH, "lora, both": EVERY}


@pytest.fixture(params=CONFIGS)
def kind(request) -> str:
    return request.param


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
        yield Site("0", "image", 0, layers, place="feed_forward")

    model = fill_adapters(inject(nn.Sequential(Bottleneck()), CONFIGS[kind](RANK)))
    assert adapters(model).keys() & {"0.serial_lora_ff", "0.lora_fc1"}
    expected = _run_plain(model)
    torch.testing.assert_close(_run_plain(merge(model)), expected, **CLOSE)


def test_two_places_of_one_name_are_refused(kind, monkeypatch):
    """A family's sites in one block need suffixes that tell them apart."""
    model = nn.Sequential(Two())
    twice = find_sites(model, places=CONFIGS[kind](RANK).places) * 2
    monkeypatch.setattr(attention, "FAMILIES", [lambda _: twice])
    with pytest.raises(SerialLoRAError, match="has one already"):
        inject(model, CONFIGS[kind](RANK))
    assert not adapters(model)


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
