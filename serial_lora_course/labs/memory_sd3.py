"""How much memory tuning Stable Diffusion 3 medium takes, from the shapes of its tensors.

Nothing here is measured on a GPU. The parts of the model are built without values and counted; what
a training step keeps for its backward pass is counted on blocks of full width that compute nothing
either. Left out is what shapes do not tell: the driver, the allocator's gaps, and what an operation
holds only while it runs. A card needs some gigabytes more than the table says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import nn

from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora_course.labs.card import GIB
from serial_lora_course.labs.fit import TRAINED_BYTES, sd3_kept
from serial_lora_course.models.architectures import ARCHITECTURES

# transformers and diffusers load slowly, so they are imported where a model of theirs is built.


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


T5_TOKENS = 77  # CLIP's 77 come before them
TRANSFORMER, T5, AUTOENCODER = "transformer", "T5 v1.1 XXL encoder", "autoencoder"
PARTS: dict[str, Callable[[], nn.Module]] = {
    TRANSFORMER: ARCHITECTURES["sd3"].build,
    "CLIP ViT-L text encoder": lambda: _clip(768, 12, 12),
    "OpenCLIP ViT-bigG text encoder": lambda: _clip(1280, 32, 20),
    T5: _t5,
    AUTOENCODER: _autoencoder,
}


@cache
def sd3_part(name: str) -> nn.Module:
    """A part of SD3 medium with shapes and no values."""
    with torch.device("meta"):
        return PARTS[name]()


#: What bitsandbytes keeps a weight of a linear layer in: bits -> bytes of a number, and of its share
#: of a scale in float32, which 4-bit weights have for each 64 numbers and 8-bit ones for each row.
BITS = {8: (1, lambda rows, columns: 4 * rows), 4: (0.5, lambda rows, columns: rows * columns / 16)}


def quantized_bytes(model: nn.Module, bits: int, left_out: str | None = None) -> int:
    """Bytes of a bfloat16 model whose linear layers bitsandbytes keeps in 8 or 4 bits.

    Args:
        left_out: the last name of linear layers that stay as they are.
    """
    number, scales = BITS[bits]
    size = sum(2 * parameter.numel() for parameter in model.parameters())
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] != left_out:
            rows, columns = layer.weight.shape
            size += number * rows * columns + scales(rows, columns) - 2 * rows * columns
    return int(size)


def quantized_frame() -> pd.DataFrame:
    """The two largest parts as bitsandbytes keeps them: a row for each, and GiB for each of `BITS`."""
    left_out = {TRANSFORMER: None, T5: "wo"}  # transformers leaves those layers of a T5 as they are
    columns = {
        f"{bits} bits": [
            quantized_bytes(sd3_part(name), bits, out) / GIB for name, out in left_out.items()
        ]
        for bits in BITS
    }
    return pd.DataFrame({"part": list(left_out)} | columns)


def parts_frame() -> pd.DataFrame:
    """A row for each part of SD3 medium: its parameters and the GiB they fill when loaded."""
    frame = pd.DataFrame({"part": list(PARTS)})
    frame["parameters"] = [sum(p.numel() for p in sd3_part(name).parameters()) for name in PARTS]
    number = np.where(frame["part"] == AUTOENCODER, 4, 2)  # bytes, as `load_sd3("paper")` loads it
    return frame.assign(GiB=frame["parameters"] * number / GIB)


def memory_frame(resolutions: Collection[int] = (512, 1024), rank: int = 64) -> pd.DataFrame:
    """What a training step on one picture takes, in GiB, estimated from shapes.

    Args:
        resolutions: sides of square pictures, in pixels.
        rank: of the adapters, which go to the image stream.

    Returns:
        For each resolution and method five rows: everything loaded, then with T5 in 8 bits; text
        encoders and autoencoder gone, as their answers are cached; gradient checkpointing on top;
        then with the transformer in 4 bits. ``model`` is what is loaded and frozen, ``adapter`` the
        trained numbers with gradient and optimizer, ``activations`` what the backward pass needs.
    """
    sizes, rows = ARCHITECTURES["sd3"], []
    weights = parts_frame().set_index("part")["GiB"]
    fewer = quantized_frame().set_index("part")
    models = (
        (False, False, "", weights.sum()),
        (False, False, "T5, 8 bits", weights.drop(T5).sum() + fewer["8 bits"][T5]),
        (True, False, "", weights[TRANSFORMER]),
        (True, True, "", weights[TRANSFORMER]),
        (True, True, "transformer, 4 bits", fewer["4 bits"][TRANSFORMER]),
    )
    for pixels in resolutions:
        for kind, size_of in ((LoRAConfig, sizes.lora), (SerialLoRAConfig, sizes.serial_lora)):
            config, adapter = kind(rank=rank), size_of(rank) * TRAINED_BYTES / GIB
            for cached, checkpointing, quantized, model in models:
                kept = estimated_activations(pixels, config, checkpointing) / GIB
                run = (pixels, config.method, cached, checkpointing, quantized)
                rows.append((*run, model, adapter, kept))
    columns = "pixels method cached checkpointing quantized model adapter activations"
    frame = pd.DataFrame(rows, columns=columns.split())
    return frame.assign(total=frame[["model", "adapter", "activations"]].sum(axis=1))


def estimated_activations(pixels: int, config: AdapterConfig, checkpointing: bool = False) -> int:
    """What SD3 medium keeps between forward and backward pass for one picture, in bytes.

    All blocks but the first and the last keep alike, so two and three blocks tell what all of them
    would. With checkpointing a block is computed again in the backward pass, one at a time: what
    one keeps comes on top of every block's inputs.

    Args:
        pixels: side of the square picture, a multiple of 16.
        config: the adapter.
    """
    depth = ARCHITECTURES["sd3"].towers[0].depth
    few, more = (shapes_kept(n, pixels, config, checkpointing) for n in (2, 3))
    kept = few + (depth - 2) * (more - few)
    if checkpointing:
        few, more = (shapes_kept(n, pixels, config, False) for n in (2, 3))
        kept += more - few
    return kept


@cache
def shapes_kept(blocks: int, pixels: int, config: AdapterConfig, checkpointing: bool) -> int:
    """What so many blocks of SD3 medium's width keep, with weights and autocast in bfloat16."""
    from diffusers import SD3Transformer2DModel

    with torch.device("meta"):
        model = SD3Transformer2DModel.from_config(sd3_part(TRANSFORMER).config, num_layers=blocks)
    inject(model.bfloat16(), config).train()
    return sd3_kept(model, 1, pixels // 8, T5_TOKENS, checkpointing)
