"""The models measured, at their real size and at a tiny one for trying the benchmark itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Subject:
    """One model to adapt and measure.

    Attributes:
        key: "clip", "sam" or "sd3".
        title: the model's name in the table.
        note: what goes in, in a sentence.
        rank: the adapters' rank.
        build: makes the model, with random weights.
        inputs: makes a batch.
        forward: (model, batch) to the output.
        first_norm: the module whose output enters the first adapted attention.
        towers: the towers that are adapted.
        peft_targets: PEFT's regular expression for the matrices it adapts.
        original_attention: how the model itself attends, where `inject` goes around that.
    """

    key: str
    title: str
    note: str
    rank: int
    build: Callable[[], nn.Module] = field(repr=False)
    inputs: Callable[[], Any] = field(repr=False)
    forward: Callable[[nn.Module, Any], Tensor] = field(repr=False)
    first_norm: Callable[[nn.Module], nn.Module] = field(repr=False)
    peft_targets: str
    original_attention: str | None = None
    towers: tuple[str, ...] | None = None


def clip_model(quick: bool) -> nn.Module:
    """open_clip's ViT-B/16 with QuickGELU, or a two-layer one."""
    import open_clip

    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    if quick:
        config["embed_dim"] = 32
        config["vision_cfg"] |= {"layers": 2, "width": 64, "image_size": 32, "head_width": 32}
        config["text_cfg"] |= {"layers": 2, "width": 64, "heads": 2, "vocab_size": 100}
    return open_clip.CLIP(**config)


def _clip(quick: bool) -> Subject:
    batch, size = (2, 32) if quick else (8, 224)
    return Subject(
        key="clip",
        title="CLIP ViT-B/16, image tower",
        note=f"Batch of {batch} pictures of {size} x {size} pixels.",
        rank=4 if quick else 32,
        build=partial(clip_model, quick),
        inputs=lambda: torch.randn(batch, 3, size, size),
        forward=lambda model, pictures: model.encode_image(pictures),
        first_norm=lambda model: model.visual.transformer.resblocks[0].ln_1,
        towers=("image",),
        peft_targets=r"visual\.transformer\.resblocks\.\d+\.attn",
        original_attention="torch.nn.MultiheadAttention",
    )


def _sam_model(quick: bool, size: int) -> nn.Module:
    from segment_anything.modeling import ImageEncoderViT

    shape = (
        {"embed_dim": 64, "depth": 2, "num_heads": 2, "global_attn_indexes": (1,), "window_size": 3}
        if quick
        else {
            "embed_dim": 768,
            "depth": 12,
            "num_heads": 12,
            "global_attn_indexes": (2, 5, 8, 11),
            "window_size": 14,
        }
    )
    norm = partial(nn.LayerNorm, eps=1e-6)
    return ImageEncoderViT(
        img_size=size, patch_size=16, use_rel_pos=True, norm_layer=norm, out_chans=256, **shape
    )


def _sam(quick: bool) -> Subject:
    size = 64 if quick else 512
    return Subject(
        key="sam",
        title="SAM ViT-B, image encoder",
        note=f"One picture of {size} x {size} pixels (SAM's own size is 1024; a quarter of the "
        "tokens keeps a step short on a CPU).",
        rank=4 if quick else 64,
        build=partial(_sam_model, quick, size),
        inputs=lambda: torch.randn(1, 3, size, size),
        forward=lambda model, picture: model(picture),
        first_norm=lambda model: model.blocks[0].norm1,
        peft_targets=r"blocks\.\d+\.attn\.(qkv|proj)",
    )


def _sd3_model(quick: bool) -> nn.Module:
    from diffusers import SD3Transformer2DModel

    heads = 2 if quick else 24
    return SD3Transformer2DModel(
        num_layers=2,
        num_attention_heads=heads,
        attention_head_dim=32 if quick else 64,
        caption_projection_dim=64 if quick else 1536,
        joint_attention_dim=48 if quick else 4096,
        pooled_projection_dim=40 if quick else 2048,
        pos_embed_max_size=32 if quick else 192,
        sample_size=16 if quick else 128,
    )


def _sd3_inputs(quick: bool) -> dict[str, Tensor]:
    side, words, joint, pooled = (16, 7, 48, 40) if quick else (64, 154, 4096, 2048)
    return {
        "hidden_states": torch.randn(1, 16, side, side),
        "encoder_hidden_states": torch.randn(1, words, joint),
        "pooled_projections": torch.randn(1, pooled),
        "timestep": torch.tensor([500.0]),
    }


def _sd3(quick: bool) -> Subject:
    side = 16 if quick else 64
    words = 7 if quick else 154
    return Subject(
        key="sd3",
        title="SD3 medium, two blocks at full width",
        note=f"One latent of {side} x {side} ({8 * side} pixels a side) with {words} text tokens.",
        rank=4 if quick else 64,
        build=partial(_sd3_model, quick),
        inputs=partial(_sd3_inputs, quick),
        forward=lambda model, batch: model(**batch, return_dict=False)[0],
        first_norm=lambda model: model.transformer_blocks[0].norm1,
        peft_targets=r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0)",
    )


_SUBJECTS = {"clip": _clip, "sam": _sam, "sd3": _sd3}
KEYS = tuple(_SUBJECTS)


def subject(key: str, quick: bool = False) -> Subject:
    """One of `KEYS`, at its real size or tiny."""
    return _SUBJECTS[key](quick)
