"""The models that are measured, with random weights: at their real size, or tiny to try a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import open_clip
import peft
import torch
from diffusers import SD3Transformer2DModel
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from serial_lora import LoRAConfig, SerialLoRAConfig


class Subject(NamedTuple):
    """One model to adapt and measure."""

    title: str
    rank: int  # of the adapters
    model: nn.Module
    batch: Any  # what goes in
    forward: Callable[[nn.Module, Any], Tensor]  # (model, batch) to the output
    first_norm: Callable[[nn.Module], nn.Module]  # whose output enters the first adapted attention
    peft_targets: str  # PEFT's regular expression for the matrices that it adapts
    towers: tuple[str, ...] | None = None  # that are adapted
    goes_around: bool = False  # whether `inject` goes around the model's own attention

    def run(self, model: nn.Module, precision: str = "float32") -> Tensor:
        """What such a model makes of the batch; bfloat16 by autocast."""
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return self.forward(model, self.batch)

    @property
    def methods(self) -> dict[str, SerialLoRAConfig | LoRAConfig | peft.LoraConfig]:
        """Those that are compared, each at the model's rank."""
        rank, targets = self.rank, self.peft_targets
        return {
            "Serial LoRA": SerialLoRAConfig(rank, towers=self.towers),
            "LoRA on q, k, v, out": LoRAConfig(rank, towers=self.towers),
            "PEFT LoRA": peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets),
        }


def clip_model(quick: bool) -> nn.Module:
    """open_clip's ViT-B/16 with QuickGELU, or a two-layer one."""
    config = open_clip.get_model_config("ViT-B-16-quickgelu")
    if quick:
        config["embed_dim"] = 32
        config["vision_cfg"] |= {"layers": 2, "width": 64, "image_size": 32, "head_width": 32}
        config["text_cfg"] |= {"layers": 2, "width": 64, "heads": 2}
    return open_clip.CLIP(**config)


def clip(quick: bool) -> Subject:
    """CLIP's image tower, and a batch of four pictures."""
    return Subject(
        title="CLIP ViT-B/16, image tower",
        rank=4 if quick else 32,
        model=clip_model(quick),
        batch=torch.randn(2, 3, 32, 32) if quick else torch.randn(4, 3, 224, 224),
        forward=lambda model, pictures: model.encode_image(pictures),
        first_norm=lambda model: model.visual.transformer.resblocks[0].ln_1,
        peft_targets=r"visual\.transformer\.resblocks\.\d+\.attn",
        towers=("image",),
        goes_around=True,
    )


def sam(quick: bool) -> Subject:
    """SAM's image encoder, and one picture: a quarter of its own 1024 pixels' tokens."""
    size, width, depth, heads = (64, 64, 2, 2) if quick else (512, 768, 12, 12)
    model = ImageEncoderViT(
        img_size=size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        global_attn_indexes=(1,) if quick else (2, 5, 8, 11),
        window_size=3 if quick else 14,
        use_rel_pos=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    return Subject(
        title="SAM ViT-B, image encoder",
        rank=4 if quick else 64,
        model=model,
        batch=torch.randn(1, 3, size, size),
        forward=lambda model, picture: model(picture),
        first_norm=lambda model: model.blocks[0].norm1,
        peft_targets=r"blocks\.\d+\.attn\.(qkv|proj)",
    )


def sd3(quick: bool) -> Subject:
    """Two of SD3's blocks, and one latent with its text tokens."""
    heads, side, words = (2, 16, 7) if quick else (24, 64, 154)
    model = SD3Transformer2DModel(
        num_layers=2,
        num_attention_heads=heads,
        caption_projection_dim=64 * heads,
        pos_embed_max_size=192,
    )
    batch = {
        "hidden_states": torch.randn(1, 16, side, side),
        "encoder_hidden_states": torch.randn(1, words, model.config.joint_attention_dim),
        "pooled_projections": torch.randn(1, model.config.pooled_projection_dim),
        "timestep": torch.tensor([500.0]),
    }
    return Subject(
        title="SD3 medium, two blocks at full width",
        rank=4 if quick else 64,
        model=model,
        batch=batch,
        forward=lambda model, batch: model(**batch, return_dict=False)[0],
        first_norm=lambda model: model.transformer_blocks[0].norm1,
        peft_targets=r"transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0)",
    )


SUBJECTS = {"clip": clip, "sam": sam, "sd3": sd3}
