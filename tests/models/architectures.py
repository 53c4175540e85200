"""The real models that tests count, built on the meta device: shapes without memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import open_clip
import timm
import torch
from diffusers import SD3Transformer2DModel
from segment_anything import sam_model_registry
from torch import nn
from transformers import Dinov2Config, Dinov2Model


class Architecture(NamedTuple):
    """A real model.

    Attributes:
        rank: the paper's, or a usual one where the paper does not use the model.
        widths: of each tower's tokens -> its attention blocks.
        build: the real class; called under `torch.device("meta")`.
    """

    rank: int
    widths: dict[int, int]
    build: Callable[[], nn.Module]

    def serial_lora(self) -> int:
        """Serial LoRA's parameters: 2 d r in a block."""
        return sum(2 * width * self.rank * depth for width, depth in self.widths.items())

    def lora(self) -> int:
        """LoRA's parameters, with a pair on q, k, v and out: 8 d r in a block."""
        return 4 * self.serial_lora()

    def on_meta(self) -> nn.Module:
        """The real model with shapes only."""
        with torch.device("meta"):
            return self.build()


def _open_clip(name: str) -> nn.Module:
    return open_clip.CLIP(**open_clip.get_model_config(name))


def _sd3_medium() -> nn.Module:
    return SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    )


#: The first three are the paper's Table I: both of CLIP's towers, SAM's encoder, SD3's image stream.
ARCHITECTURES = {
    "clip": Architecture(32, {768: 12, 512: 12}, lambda: _open_clip("ViT-B-16-quickgelu")),
    "sam": Architecture(64, {768: 12}, lambda: sam_model_registry["vit_b"]()),
    "sd3": Architecture(64, {1536: 24}, _sd3_medium),
    "clip-large": Architecture(32, {1024: 24, 768: 12}, lambda: _open_clip("ViT-L-14-quickgelu")),
    "sam-huge": Architecture(64, {1280: 32}, lambda: sam_model_registry["vit_h"]()),
    "vit-base": Architecture(16, {768: 12}, lambda: timm.create_model("vit_base_patch16_224")),
    "dinov2-base": Architecture(16, {768: 12}, lambda: Dinov2Model(Dinov2Config())),
}
