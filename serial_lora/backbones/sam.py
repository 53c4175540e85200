"""SAM at both scales: segment-anything's own classes and the file that fills them."""

from __future__ import annotations

import json
from functools import partial
from importlib.resources import files
from pathlib import Path

from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

TINY_MODEL = "tiny-sam"


def tiny_file(ending: str) -> Path:
    """A file of the tiny SAM that the package carries: its config, weights or card."""
    return Path(str(files("serial_lora"))) / "assets" / "weights" / f"{TINY_MODEL}.{ending}"


def build_sam(
    image_size: int,
    patch_size: int,
    width: int,
    blocks: int,
    heads: int,
    window: int,
    global_blocks: list[int],
    prompt_width: int,
    decoder_heads: int,
    decoder_mlp: int,
) -> Sam:
    """A SAM of any size, with random weights, made as segment-anything makes its own.

    Args:
        image_size: pixels of the square that the encoder sees; a multiple of ``patch_size``.
        width: d of the image encoder's tokens.
        window: side of an attention window, in tokens.
        global_blocks: indices of the blocks that attend over the whole picture.
        prompt_width: channels of the image embedding, the prompts and the mask decoder.
    """
    grid = image_size // patch_size
    encoder = ImageEncoderViT(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=blocks,
        num_heads=heads,
        mlp_ratio=4,
        out_chans=prompt_width,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        qkv_bias=True,
        use_rel_pos=True,
        window_size=window,
        global_attn_indexes=tuple(global_blocks),
    )
    prompts = PromptEncoder(
        embed_dim=prompt_width,
        image_embedding_size=(grid, grid),
        input_image_size=(image_size, image_size),
        mask_in_chans=16,
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=prompt_width, mlp_dim=decoder_mlp, num_heads=decoder_heads
        ),
        transformer_dim=prompt_width,
        iou_head_depth=3,
        iou_head_hidden_dim=prompt_width,
    )
    return Sam(encoder, prompts, decoder).eval()


def tiny_architecture() -> dict:
    """The arguments of `build_sam` for the tiny model."""
    return json.loads(tiny_file("json").read_text("utf-8"))
