"""SAM at both scales: segment-anything's own classes and the file that fills them.

``tiny`` is a small SAM that this project pretrained on drawings over photographs
(``assets/weights/tiny-sam.*``). ``paper`` is Meta's ViT-B, from a checkpoint on this machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segment_anything import sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import nn

from serial_lora_course.files import refusals_told
from serial_lora_course.models.weights import (
    Backbone,
    fetched,
    load_weights,
    require_scale,
    tiny_file,
)

TINY_MODEL = "tiny-sam"
PAPER_MODEL = "vit_b"
PAPER_FILE = "sam_vit_b_01ec64.pth"


@dataclass(frozen=True)
class SamBackbone(Backbone):
    """A SAM model; its image encoder is adapted."""

    model: Sam


@refusals_told()
def load_sam(scale: str = "tiny", weights: str | Path | None = "default") -> SamBackbone:
    """Create SAM and fill it with pretrained weights.

    Args:
        scale: ``tiny`` or ``paper``.
        weights: a state dict of this model, as safetensors or as Meta publishes it (.pth);
            ``"default"`` for the scale's own (at paper scale the file that
            ``data_scripts/fetch.py sam`` fetched); None for random weights.

    Raises:
        SerialLoRAError: unknown scale; or a file that is missing, damaged or of another model,
            and no weights have been copied then.
    """
    require_scale(scale)
    if weights == "default":
        tiny = scale == "tiny"
        weights = tiny_file(f"{TINY_MODEL}.safetensors") if tiny else fetched(PAPER_FILE, "sam")
    model = build_sam(**tiny_architecture()) if scale == "tiny" else sam_model_registry["vit_b"]()
    if weights is not None:
        load_weights(model, Path(weights))
    return SamBackbone(model.eval(), TINY_MODEL if scale == "tiny" else PAPER_MODEL, scale)


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
        window: side of an attention window, in tokens; ``global_blocks`` attend over the whole picture.
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
    return json.loads(tiny_file(f"{TINY_MODEL}.json").read_text("utf-8"))
