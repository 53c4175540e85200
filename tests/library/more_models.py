"""More models: attention and feed-forwards of other structures, known by their shapes alone."""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.library.tiny_models import (
    _PLAIN,
    _VISION,
    _VIT,
    MLP,
    TINY,
    PlainAttention,
    PlainBlock,
    Tiny,
    _fused,
    _hf,
    _hf_blocks,
    _run_hf_vision,
    _run_pictures,
    _run_plain,
    _separate,
    _timm,
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


def hugging_face(name: str, forward: tuple[str, ...] = (), **changes) -> Tiny:
    config = _VISION | changes
    build = lambda: _hf(f"{name}Model", f"{name}Config", config)  # noqa: E731
    return Tiny(build, _run_hf_vision, _hf_blocks, forward=forward)


SMALL = dict(patch_size=8, embed_dim=32, depth=3, num_heads=4)
SWIN = dict(patch_size=2, embed_dim=32, depths=(2,), num_heads=(4,), window_size=4)
FOUND = {
    "grouped": grouped(),
    "q and kv": two_layers("q", "kv"),
    "qk and v": two_layers("qk", "v"),
    "multihead": Tiny(WeightsOnRequest, _run_plain, [_fused("attn", "in_proj_weight", "out_proj")]),
    "timm_no_bias": timm_vit(_timm, qkv_bias=False, qk_norm=True),
    "timm_beit": timm_vit(of_timm, module="beit", name="Beit", **SMALL),  # both call F.linear on a
    "timm_eva": timm_vit(of_timm, module="eva", name="Eva", **SMALL),  # layer's weight
    "timm_swin": Tiny(
        lambda: of_timm("swin_transformer", "SwinTransformer", **SWIN),
        _run_pictures,
        [_fused(f"layers.0.blocks.{i}", "attn.qkv.weight", "attn.proj") for i in range(2)],
        forward=MLP,
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
            functools.partial(torchvision_swin, version),
            _run_swin,
            swin_blocks(first),
            forward=("mlp.0", "mlp.3"),
        )
        for version, first in (("1", 1), ("2", 1), ("3D", 0))
    },
    "hf_dinov2": hugging_face("Dinov2", mlp_ratio=2),
    "hf_deit": hugging_face("DeiT"),
    "hf_siglip": hugging_face("SiglipVision"),
    "hf_beit": hugging_face("Beit"),
    "hf_data2vec": hugging_face(  # its output projection is a neighbour
        "Data2VecVision", ("intermediate.dense", "output.dense")
    ),
    "hf_dinov2_registers": hugging_face("Dinov2WithRegisters", mlp_ratio=2),
}


# ---------------------------------------------------------------------------- feed-forwards


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


def own(make, *arguments, forward: tuple[str, ...]) -> Tiny:
    build = functools.partial(make, *arguments)
    return Tiny(lambda: three(build), _run_plain, _PLAIN, forward=forward)


GATED = {
    "gated": own(GatedBlock, False, forward=("mlp.w3", "mlp.w1", "mlp.w2")),
    "gated, fused": own(GatedBlock, True, forward=("mlp.w12", "mlp.w2")),
    "parallel": own(ParallelBlock, forward=("mlp.0", "mlp.2")),
    "swiglu": Tiny(
        lambda: of_timm("eva", "Eva", swiglu_mlp=True, scale_mlp=True, **SMALL),
        _run_pictures,
        FOUND["timm_eva"].names,
        forward=("mlp.fc1_x", "mlp.fc1_g", "mlp.fc2"),
    ),
}

MODELS = TINY | FOUND | GATED
