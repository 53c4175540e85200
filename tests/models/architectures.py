"""The real models that tests count, built on the meta device: shapes without memory.

The first three are the paper's Table I.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn


@dataclass(frozen=True)
class Tower:
    """A stack of attention blocks of one width.

    Attributes:
        name: what the tower reads, such as "image" or "text".
        width: the size of a token, d.
        depth: the number of attention blocks.
    """

    name: str
    width: int
    depth: int


@dataclass(frozen=True)
class Architecture:
    """A real model, described by its towers and by how to build it on the meta device.

    Attributes:
        title: the model's name for people.
        towers: its stacks of attention blocks.
        rank: the rank that the paper uses, or a usual one where the paper does not use the model.
        build: builds the real class; called under `torch.device("meta")`.
        stream: which tokens are adapted, for models with two kinds of them (SD3).
    """

    title: str
    towers: tuple[Tower, ...]
    rank: int
    build: Callable[[], nn.Module] = field(repr=False)
    stream: str = "image"

    def serial_lora(self) -> int:
        """Serial LoRA's parameters: 2 d r in a block."""
        return sum(2 * tower.width * self.rank * tower.depth for tower in self.towers)

    def lora(self) -> int:
        """LoRA's parameters, with a pair on q, k, v and out: 8 d r in a block."""
        return 4 * self.serial_lora()

    def on_meta(self) -> nn.Module:
        """Build the real model with shapes only: no weights, no memory, no download."""
        with torch.device("meta"):
            return self.build()


# --- real models ---------------------------------------------------------------------------------
# Each builder imports its own library: all of them together take seconds, and a count needs none.


def _open_clip(name: str) -> nn.Module:
    import open_clip

    return open_clip.CLIP(**open_clip.get_model_config(name))


def _segment_anything(name: str) -> nn.Module:
    from segment_anything import sam_model_registry

    return sam_model_registry[name]()


def _sd3_medium() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    )


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


def _dinov2_base() -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    return Dinov2Model(Dinov2Config())


ARCHITECTURES: dict[str, Architecture] = {
    "clip": Architecture(
        "CLIP ViT-B/16, both towers",
        (Tower("image", 768, 12), Tower("text", 512, 12)),
        rank=32,
        build=partial(_open_clip, "ViT-B-16-quickgelu"),
    ),
    "sam": Architecture(
        "SAM ViT-B, image encoder",
        (Tower("image", 768, 12),),
        rank=64,
        build=partial(_segment_anything, "vit_b"),
    ),
    "sd3": Architecture(
        "SD3 medium, image stream",
        (Tower("image", 1536, 24),),
        rank=64,
        build=_sd3_medium,
    ),
    "clip-large": Architecture(
        "CLIP ViT-L/14, both towers",
        (Tower("image", 1024, 24), Tower("text", 768, 12)),
        rank=32,
        build=partial(_open_clip, "ViT-L-14-quickgelu"),
    ),
    "sam-huge": Architecture(
        "SAM ViT-H, image encoder",
        (Tower("image", 1280, 32),),
        rank=64,
        build=partial(_segment_anything, "vit_h"),
    ),
    "vit-base": Architecture(
        "ViT-B/16 (timm)",
        (Tower("image", 768, 12),),
        rank=16,
        build=partial(_timm, "vit_base_patch16_224"),
    ),
    "dinov2-base": Architecture(
        "DINOv2 ViT-B/14 (transformers)",
        (Tower("image", 768, 12),),
        rank=16,
        build=_dinov2_base,
    ),
}
"""The real models that lessons and tests count. The first three are the paper's Table I."""
