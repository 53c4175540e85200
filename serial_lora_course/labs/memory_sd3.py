"""How much memory tuning Stable Diffusion 3 medium takes, from the shapes of its tensors.

Nothing here is measured on a GPU. The parts of the model are built without values and counted; what
a training step keeps for its backward pass is counted on blocks of full width that compute nothing
either. Left out is what shapes do not tell: the driver, the allocator's gaps, and what an operation
holds only while it runs. A card needs some gigabytes more than the table says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache

import pandas as pd
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora_course.labs.memory import give_shapes, saved_activation_bytes
from serial_lora_course.models.architectures import ARCHITECTURES

# transformers and diffusers load slowly, so they are imported where a model of theirs is built.

GIB = 2**30
CLIP_TOKENS = 77
#: Bytes for each trained number: itself, its gradient, and AdamW's two averages, all float32.
TRAINED_BYTES = 4 * 4


def _clip(width: int, layers: int, heads: int) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
        )
    )


def _t5() -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )


def _autoencoder() -> nn.Module:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def hollow_autoencoder() -> nn.Module:
    """SD3 medium's, with shapes and no values."""
    with torch.device("meta"):
        return _autoencoder()


@cache
def _transformer() -> nn.Module:
    return ARCHITECTURES["sd3"].on_meta()


#: Part -> what builds it, bytes of one of its numbers as `load_sd3("paper")` loads it.
PARTS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "transformer": (_transformer, 2),
    "CLIP ViT-L text encoder": (lambda: _clip(768, 12, 12), 2),
    "OpenCLIP ViT-bigG text encoder": (lambda: _clip(1280, 32, 20), 2),
    "T5 v1.1 XXL encoder": (_t5, 2),
    "autoencoder": (_autoencoder, 4),
}


@cache
def _part_sizes() -> dict[str, int]:
    with torch.device("meta"):
        models = {name: build() for name, (build, _) in PARTS.items()}
    return {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}


def parts_frame() -> pd.DataFrame:
    """A row for each part of SD3 medium: its parameters and the GiB they fill when loaded."""
    sizes = _part_sizes()
    return pd.DataFrame(
        {
            "part": list(sizes),
            "parameters": list(sizes.values()),
            "GiB": [sizes[name] * number_bytes / GIB for name, (_, number_bytes) in PARTS.items()],
        }
    )


def memory_frame(
    resolutions: Collection[int] = (512, 1024), rank: int = 64, text_tokens: int = 77
) -> pd.DataFrame:
    """What a training step on one picture takes, in GiB, estimated from shapes.

    Args:
        resolutions: sides of square pictures, in pixels.
        rank: of the adapters, which go to the image stream.
        text_tokens: T5's; CLIP's 77 come before them.

    Returns:
        For each resolution and method three rows: everything loaded; text encoders and autoencoder
        gone, as their answers are cached; gradient checkpointing on top. ``model`` is what is
        loaded and frozen, ``adapter`` the trained numbers with gradient and optimizer,
        ``activations`` what the backward pass needs.
    """
    rows = []
    closed_form = {
        LoRAConfig.method: ARCHITECTURES["sd3"].lora,
        SerialLoRAConfig.method: ARCHITECTURES["sd3"].serial_lora,
    }
    weights = parts_frame().set_index("part")["GiB"]
    for pixels in resolutions:
        for config in (LoRAConfig(rank=rank), SerialLoRAConfig(rank=rank)):
            adapter = closed_form[config.method](rank) * TRAINED_BYTES / GIB
            for cached, checkpointing in ((False, False), (True, False), (True, True)):
                model = weights["transformer"] if cached else weights.sum()
                kept = estimated_activations(pixels, config, text_tokens, checkpointing) / GIB
                rows.append((pixels, config.method, cached, checkpointing, model, adapter, kept))
    frame = pd.DataFrame(
        rows,
        columns=["pixels", "method", "cached", "checkpointing", "model", "adapter", "activations"],
    )
    return frame.assign(total=frame[["model", "adapter", "activations"]].sum(axis=1))


def estimated_activations(
    pixels: int, config: AdapterConfig, text_tokens: int = 77, checkpointing: bool = False
) -> int:
    """What SD3 medium keeps between forward and backward pass for one picture, in bytes.

    All blocks but the first and the last keep alike, so two and three blocks tell what all of them
    would. With checkpointing a block is computed again in the backward pass, one at a time: what
    one keeps comes on top of every block's inputs.

    Args:
        pixels: side of the square picture, a multiple of 16.
        config: the adapter.
        text_tokens: T5's; CLIP's 77 come before them.
    """
    depth = ARCHITECTURES["sd3"].towers[0].depth
    few, more = (shapes_kept(n, pixels, config, text_tokens, checkpointing) for n in (2, 3))
    kept = few + (depth - 2) * (more - few)
    if checkpointing:
        few, more = (shapes_kept(n, pixels, config, text_tokens, False) for n in (2, 3))
        kept += more - few
    return kept


@cache
def shapes_kept(
    blocks: int, pixels: int, config: AdapterConfig, text_tokens: int, checkpointing: bool
) -> int:
    """What so many blocks of SD3 medium's width keep, with weights and autocast in bfloat16."""
    from diffusers import SD3Transformer2DModel

    whole = _transformer().config
    with torch.device("meta"):
        model = SD3Transformer2DModel.from_config(whole, num_layers=blocks).bfloat16()
    inject(model, config).train()
    if checkpointing:
        model.enable_gradient_checkpointing()
    with FakeTensorMode(allow_non_fake_inputs=True):
        give_shapes(model)
        side = pixels // 8
        inputs = {
            "hidden_states": torch.empty(1, whole.in_channels, side, side),
            "encoder_hidden_states": torch.empty(
                1, CLIP_TOKENS + text_tokens, whole.joint_attention_dim
            ),
            "pooled_projections": torch.empty(1, whole.pooled_projection_dim),
            "timestep": torch.empty(1),
        }

        def forward() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                model(**inputs, return_dict=False)

        return saved_activation_bytes(
            forward, model, model.transformer_blocks if checkpointing else ()
        )
