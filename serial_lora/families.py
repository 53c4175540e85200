"""The families of models that know more than structure can tell.

open_clip has projections that are weights without a layer, segment-anything cuts windows after its
norm, and SD3 has two streams of tokens. The libraries are never imported here: a model of theirs can
only exist where they already are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora.sites import (
    AttentionSite,
    Projection,
    child_name,
    index_of,
    linear_projection,
    stacked,
)


def open_clip_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """open_clip's own image and text towers.

    A block's attention is nn.MultiheadAttention or open_clip's own `Attention`, depending on the
    version and the model; `ln_1` and `in_proj_weight` are common to both.
    """
    blocks = _loaded(
        "open_clip.transformer", "ResidualAttentionBlock", "CustomResidualAttentionBlock"
    )
    image = _loaded("open_clip.transformer", "VisionTransformer")
    text = _loaded("open_clip.transformer", "TextTransformer", "MultimodalTransformer")
    text += _loaded("open_clip.model", "CLIP")
    for name, block in _instances(model, blocks):
        if hasattr(block, "ln_1_kv"):
            continue  # attends from text to picture: its keys are not the tokens of `ln_1`
        attention, attention_name = block.attn, child_name(name, "attn")
        weight = attention.in_proj_weight
        plain = getattr(attention, "bias_k", None) is None
        if weight is None or not plain or getattr(attention, "add_zero_attn", False):
            raise SerialLoRAError(
                f"{attention_name} is not plain self-attention (it has widths of its own for keys "
                "and values, or extra tokens), so this model cannot be adapted."
            )
        whole = Projection(attention_name, "in_proj_weight", 0, *weight.shape)
        is_text = not _inside(model, name, image) and _inside(model, name, text)
        yield AttentionSite(
            name=name,
            tower="text" if is_text else "image",
            block=index_of(name),
            width=weight.shape[1],
            entry=child_name(name, "ln_1"),
            projections=stacked(whole) | _separate(block, name, out="attn.out_proj"),
        )


def segment_anything_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """segment-anything's image encoder, alone or inside `Sam`.

    The entry is `norm1`, before the picture is cut into windows: the zero tokens that pad the last
    windows come later and stay zero, and an adapter need not run on them.
    """
    for name, block in _instances(
        model, _loaded("segment_anything.modeling.image_encoder", "Block")
    ):
        whole = linear_projection(block, name, "attn.qkv")
        yield AttentionSite(
            name=name,
            tower="image",
            block=index_of(name),
            width=whole.columns,
            entry=child_name(name, "norm1"),
            projections=stacked(whole) | _separate(block, name, out="attn.proj"),
        )


def stable_diffusion_3_sites(model: nn.Module) -> Iterator[AttentionSite]:
    """diffusers' SD3Transformer2DModel: joint attention over an image and a text stream.

    Stable Diffusion 3.5 has blocks with a second attention over the image stream, which has its
    own norm, so its own site. The last block drops the text stream after attention and has no
    `to_add_out`.
    """
    image = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
    text = {"q": "add_q_proj", "k": "add_k_proj", "v": "add_v_proj", "out": "to_add_out"}
    kinds = _loaded("diffusers.models.attention", "JointTransformerBlock")
    for name, block in _instances(model, kinds):
        for layer, stream, suffix, paths in (
            ("attn", "image", "", image),
            ("attn", "text", "_text", text),
            ("attn2", "image", "_2", image),
        ):
            attention = getattr(block, layer, None)
            if attention is None:
                continue
            if getattr(attention, "fused_projections", False):
                raise SerialLoRAError(
                    "the transformer's projections are fused; call unfuse_qkv_projections() first."
                )
            here = {
                part: f"{layer}.{path}"
                for part, path in paths.items()
                if getattr(attention, path.split(".")[0], None) is not None
            }
            projections = _separate(block, name, **here)
            yield AttentionSite(
                name=name,
                tower="image",
                block=index_of(name),
                width=projections["q"].columns,
                entry=None,
                stream=stream,
                suffix=suffix,
                projections=projections,
            )


def _separate(block: nn.Module, name: str, **paths: str) -> dict[str, Projection]:
    return {part: linear_projection(block, name, path) for part, path in paths.items()}


def _loaded(module: str, *names: str) -> tuple[type, ...]:
    """Those classes of a library, or nothing when the library has not been imported."""
    found = sys.modules.get(module)
    return tuple(getattr(found, name) for name in names if hasattr(found, name))


def _instances(model: nn.Module, kinds: tuple[type, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Every module of these classes with its name; a module reached twice comes once."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def _inside(model: nn.Module, name: str, kinds: tuple[type, ...]) -> bool:
    """Whether a module of these classes contains the module of this name."""
    parts = name.split(".")
    return any(
        isinstance(model.get_submodule(".".join(parts[:depth])), kinds)
        for depth in range(len(parts))
    )
