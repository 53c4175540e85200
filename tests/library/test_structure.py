"""Attention found by structure: exact where it is adapted, left alone or refused elsewhere."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora import (
    LoRAConfig,
    SerialLoRAError,
    adapters,
    count_parameters,
    disabled,
    eject,
    inject,
    load_adapter,
    merge,
    save_adapter,
)
from serial_lora.attention import find_sites
from tests.library.tiny_models import (
    _VISION,
    _VIT,
    RANK,
    TINY,
    PlainAttention,
    PlainBlock,
    Tiny,
    _fused,
    _hf,
    _hf_blocks,
    _open_clip_timm,
    _run_hf_vision,
    _run_open_clip,
    _run_pictures,
    _run_plain,
    _separate,
    _timm,
    fill_adapters,
    write_dense,
)


class GroupedAttention(nn.Module):
    """Fewer keys and values than queries; q and k read positions, v does not; a gate reads x."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16)
        self.gate, self.wo = nn.Linear(32, 32), nn.Linear(32, 32)
        self.position = nn.Parameter(torch.randn(5, 32))

    def forward(self, x: Tensor) -> Tensor:
        placed = x + self.position
        q, k, v = (
            layer(tokens).unflatten(-1, (-1, 8)).transpose(1, 2)
            for layer, tokens in ((self.wq, placed), (self.wk, placed), (self.wv, x))
        )
        mixed = F.scaled_dot_product_attention(q, *(t.repeat_interleave(2, 1) for t in (k, v)))
        return self.wo(mixed.transpose(1, 2).flatten(2) * self.gate(x).sigmoid())


class TwoLayers(nn.Module):
    """One layer for two of q, k and v, and one for the third."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__()
        self.one, self.other, self.proj = one, other, nn.Linear(32, 32)
        self.add_module(one, nn.Linear(32, 32 * len(one)))
        self.add_module(other, nn.Linear(32, 32 * len(other)))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.cat([getattr(self, name)(x) for name in (self.one, self.other)], dim=-1)
        q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in parts.chunk(3, dim=-1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class HandsOnWeights(PlainAttention):
    """Two of its weights go to functions, one of which is not F.linear itself; k is called."""

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.linear(x, self.q.weight, self.q.bias) * self.k(x).sigmoid()
        return _linear(mixed + F.linear(x, weight=self.v.weight), self.out.weight, self.out.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


class ReadsWeights(PlainAttention):
    """As matrices, past layers and `F.linear`; it asks one for its number type first."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.to(self.q.weight.dtype)
        q, k, v = h @ self.q.weight.T, h @ self.k.weight.mT, torch.matmul(h, self.v.weight.t())
        mixed = F.scaled_dot_product_attention(q, k, v)
        return torch.addmm(self.out.bias, mixed.flatten(0, 1), self.out.weight.t()).view_as(x)


class OwnMultihead(nn.MultiheadAttention):
    """A subclass with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x, x, need_weights=False)[0]


class OwnLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 2 * self.weight, self.bias)


class OwnLayers(PlainAttention):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.v = OwnLinear(32, 32), OwnLinear(32, 32)


class WeightsOnRequest(nn.Module):
    """nn.MultiheadAttention as tutorials call it: with weights, from x to y, one sequence, padding."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed, weights = self.attn(x, x, x)
        elsewhere, each_heads = self.attn(x, mixed, mixed, average_attn_weights=False)
        other, _ = self.attn(x, mixed, mixed, need_weights=False)
        padding = torch.tensor([[False] * 4 + [True], [False] * 5])
        alone, _ = self.attn(x[0], x[0], x[0], key_padding_mask=padding[0])
        padded, _ = self.attn(x, x, x, key_padding_mask=padding, need_weights=False)
        seen = (mixed, weights, elsewhere, each_heads, other, alone, padded)
        return torch.cat([each.flatten() for each in seen])


def three(make) -> nn.Module:
    return nn.Sequential(make(), make(), make())


def separate(**layers: str) -> list:
    return [_separate(f"{i}", "", **layers) for i in range(3)]


def of_timm(module: str, name: str, **options) -> nn.Module:
    return getattr(importlib.import_module(f"timm.models.{module}"), name)(img_size=16, **options)


def torchvision_swin(version: str) -> nn.Module:
    from torchvision.models import swin_transformer as flat
    from torchvision.models.video import swin_transformer as video

    sizes = dict(embed_dim=32, depths=[2, 1], num_heads=[4, 8], num_classes=5)
    if version == "3D":
        return video.SwinTransformer3d([2, 2, 2], window_size=[2, 3, 3], **sizes)
    if version == "2":
        sizes |= dict(block=flat.SwinTransformerBlockV2, downsample_layer=flat.PatchMergingV2)
    return flat.SwinTransformer([2, 2], window_size=[3, 3], **sizes)


def _run_swin(model: nn.Module) -> Tensor:
    """Pictures, or films of two, that windows do not fill, so that some tokens are padding."""
    film = (2,) if "3d" in type(model).__name__ else ()
    pictures = torch.randn(2, 3, *film, 16, 16, generator=torch.Generator().manual_seed(0))
    return model(pictures).flatten()


def swin_blocks(first: int) -> list:
    """The stages are numbered among what else there is."""
    at, after = f"features.{first}", f"features.{first + 2}"
    places = (f"{at}.0", 32), (f"{at}.1", 32), (f"{after}.0", 64)
    return [_fused(block, "attn.qkv.weight", "attn.proj", width) for block, width in places]


def grouped() -> Tiny:
    names = separate(q="wq", k="wk", v="wv", out="wo")
    names = [
        (block, suffix, {p: (w, 0, 16 if p in "kv" else 32) for p, (w, _, _) in parts.items()})
        for block, suffix, parts in names
    ]
    return Tiny(lambda: three(GroupedAttention), _run_plain, names)


def two_layers(one: str, other: str) -> Tiny:
    rows = {p: (f"{one}.weight", 32 * i, 32) for i, p in enumerate(one)}
    rows |= {p: (f"{other}.weight", 32 * i, 32) for i, p in enumerate(other)}
    rows |= {"out": ("proj.weight", 0, 32)}
    names = [
        (f"{i}", "", {p: (f"{i}.{w}", a, n) for p, (w, a, n) in rows.items()}) for i in range(3)
    ]
    return Tiny(lambda: three(lambda: TwoLayers(one, other)), _run_plain, names)


def timm_vit(build, **options) -> Tiny:
    return Tiny(functools.partial(build, **options), _run_pictures, _VIT)


def hugging_face(name: str, **changes) -> Tiny:
    config = _VISION | changes
    return Tiny(lambda: _hf(f"{name}Model", f"{name}Config", config), _run_hf_vision, _hf_blocks)


SMALL = dict(patch_size=8, embed_dim=32, depth=3, num_heads=4)
SWIN = dict(patch_size=2, embed_dim=32, depths=(2,), num_heads=(4,), window_size=4)
FOUND = {
    "grouped": grouped(),
    "q and kv": two_layers("q", "kv"),
    "qk and v": two_layers("qk", "v"),
    "multihead": Tiny(WeightsOnRequest, _run_plain, [_fused("attn", "in_proj_weight", "out_proj")]),
    "open_clip_timm": Tiny(
        _open_clip_timm,
        _run_open_clip,
        [_fused(f"visual.trunk.blocks.{i}", "attn.qkv.weight", "attn.proj", 64) for i in range(6)]
        + [
            _fused(f"text.transformer.resblocks.{i}", "attn.in_proj_weight", "attn.out_proj")
            for i in range(2)
        ],
    ),
    "timm_no_bias": timm_vit(_timm, qkv_bias=False, qk_norm=True),
    "timm_beit": timm_vit(of_timm, module="beit", name="Beit", **SMALL),  # both call F.linear on a
    "timm_eva": timm_vit(of_timm, module="eva", name="Eva", **SMALL),  # layer's weight
    "timm_swin": Tiny(
        lambda: of_timm("swin_transformer", "SwinTransformer", **SWIN),
        _run_pictures,
        [_fused(f"layers.0.blocks.{i}", "attn.qkv.weight", "attn.proj") for i in range(2)],
    ),
    "weights handed on": Tiny(
        lambda: three(HandsOnWeights), _run_plain, separate(q="q", k="k", v="v", out="out")
    ),
    "weights as matrices": Tiny(
        lambda: three(ReadsWeights), _run_plain, separate(q="q", k="k", v="v", out="out")
    ),
    "a subclass of multihead": Tiny(
        lambda: three(lambda: OwnMultihead(32, 4, batch_first=True)),
        _run_plain,
        [_fused(f"{i}", "in_proj_weight", "out_proj") for i in range(3)],
    ),
    "subclasses of linear": Tiny(
        lambda: three(OwnLayers), _run_plain, separate(q="q", k="k", v="v", out="out")
    ),
    **{
        f"torchvision_swin_{version}": Tiny(
            functools.partial(torchvision_swin, version), _run_swin, swin_blocks(first)
        )
        for version, first in (("1", 1), ("2", 1), ("3D", 0))
    },
    "hf_clip_vision": hugging_face("CLIPVision"),
    "hf_dinov2": hugging_face("Dinov2", mlp_ratio=2),
    "hf_deit": hugging_face("DeiT"),
    "hf_siglip": hugging_face("SiglipVision"),
    "hf_beit": hugging_face("Beit"),
    "hf_data2vec": hugging_face("Data2VecVision"),  # its output projection is a neighbour
    "hf_dinov2_registers": hugging_face("Dinov2WithRegisters", mlp_ratio=2),
}


@torch.no_grad()
@pytest.mark.parametrize("name", FOUND)
def test_equals_dense_weights_written_by_hand_and_leaves_no_trace(name, method):
    assert_exact(FOUND[name], method)


def assert_exact(tiny, method):
    model = tiny.build()
    base, bits = tiny.run(model), {n: p.clone() for n, p in model.state_dict().items()}
    inject(model, method(rank=RANK, scale=0.7))
    torch.testing.assert_close(tiny.run(model), base, rtol=1e-5, atol=5e-6)
    fill_adapters(model)
    with disabled(model):
        torch.testing.assert_close(tiny.run(model), base, rtol=1e-5, atol=5e-6)
    expected = tiny.run(write_dense(tiny, tiny.build(), model, 0.7))
    assert (expected - base).abs().max() > 1e-3
    close = dict(rtol=1e-4, atol=5e-5)
    torch.testing.assert_close(tiny.run(model), expected, **close)
    torch.testing.assert_close(tiny.run(merge(model)), expected, **close)
    assert torch.equal(tiny.run(eject(model)), base)
    assert all(torch.equal(bits[name], tensor) for name, tensor in model.state_dict().items())


CHOSEN = {name: TINY[name] for name in ("plain", "timm", "torchvision", "open_clip_own_attention")}
CHOSEN |= {name: FOUND[name] for name in ("grouped", "qk and v", "multihead", "weights handed on")}


@torch.no_grad()
@pytest.mark.parametrize("parts", [("v", "q"), ("k",), ("out",)])
@pytest.mark.parametrize("name", CHOSEN)
def test_lora_on_some_projections_is_lora_whose_other_pairs_are_zero(name, parts, tmp_path):
    tiny = CHOSEN[name]
    model = fill_adapters(inject(tiny.build(), LoRAConfig(RANK, scale=0.7, parts=parts)))
    whole = inject(tiny.build(), LoRAConfig(RANK, scale=0.7))
    own = model.state_dict()
    for key, tensor in whole.state_dict().items():
        if key.endswith(("lora_A", "lora_B")):
            tensor.copy_(own.get(key, tensor))
    base, expected = tiny.run(tiny.build()), tiny.run(whole)
    close = dict(rtol=1e-4, atol=5e-5)
    assert not torch.allclose(base, expected, **close)
    torch.testing.assert_close(tiny.run(model), expected, **close)
    assert count_parameters(model).adapter < count_parameters(whole).adapter
    path = save_adapter(model, tmp_path / "some.safetensors")
    torch.testing.assert_close(tiny.run(merge(model)), expected, **close)
    torch.testing.assert_close(tiny.run(load_adapter(tiny.build(), path)), expected, **close)
    with pytest.raises(SerialLoRAError):
        load_adapter(whole, path)
    eject(model)
    assert torch.equal(tiny.run(model), base)


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

    names = [site.name for site in find_sites(Mixed())]
    assert names == ["own", "decoder.self_attn"]


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
