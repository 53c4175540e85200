"""SAM at both scales: segment-anything's own classes and the file that fills them.

``tiny`` is a small SAM that this project pretrained on drawings over photographs
(``assets/weights/tiny-sam.*``). ``paper`` is Meta's ViT-B, from a checkpoint on this machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
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

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.download import data_root
from serial_lora_course.models.weights import (
    PICKLE_ENDINGS,
    Shapes,
    fill_from_checkpoint,
    fill_from_safetensors,
)

TINY_MODEL = "tiny-sam"
PAPER_MODEL = "vit_b"
PAPER_FILE = "sam_vit_b_01ec64.pth"
SCALES = ("tiny", "paper")
WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}  # of the image encoder's tokens


@dataclass(frozen=True)
class SamBackbone:
    """A SAM model in evaluation mode, what it is called, and its scale."""

    model: Sam
    name: str
    scale: str


def load_sam(scale: str = "tiny", weights: str | Path | None = "default") -> SamBackbone:
    """Create SAM and fill it with pretrained weights.

    Args:
        scale: ``tiny`` or ``paper``.
        weights: a state dict of this model, as safetensors or as Meta publishes it (.pth);
            ``"default"`` for the scale's own (at paper scale the file that
            ``python -m data_scripts.sam_weights`` fetched); None for random weights.

    Raises:
        SerialLoRAError: unknown scale; or a file that is missing, damaged or of another model,
            and no weights have been copied then.
    """
    if scale not in SCALES:
        raise SerialLoRAError(f"There is no scale {scale!r}; choose tiny or paper.")
    path = None if weights is None else _weights_path(scale, weights)
    model = build_sam(**tiny_architecture()) if scale == "tiny" else sam_model_registry["vit_b"]()
    if path is not None:
        load_weights(model, path)
    name = TINY_MODEL if scale == "tiny" else PAPER_MODEL
    return SamBackbone(model.eval(), name, scale)


def _weights_path(scale: str, weights: str | Path) -> Path:
    if weights != "default":
        return Path(weights)
    if scale == "tiny":
        return tiny_file("safetensors")
    path = paper_file()
    if not path.is_file():
        raise SerialLoRAError(
            f"SAM's ViT-B checkpoint is not at {path}; fetch it with `python -m "
            "data_scripts.sam_weights`, or name the file with --weights."
        )
    return path


def paper_file(root: Path | None = None) -> Path:
    """Where the data script puts Meta's checkpoint."""
    return data_root(root) / "weights" / PAPER_FILE


def load_weights(model: Sam, path: Path) -> None:
    """Fill ``model`` from a checkpoint; every tensor is checked before one is copied.

    Raises:
        SerialLoRAError: no such file, not a checkpoint, or not this model's tensors.
    """
    fill = fill_from_checkpoint if path.suffix in PICKLE_ENDINGS else fill_from_safetensors
    fill(model, path, partial(_other_model, model.image_encoder.pos_embed.shape[-1]))


def _other_model(width: int, shapes: Shapes) -> str | None:
    """What a file turned out to hold that does not fit a model of this width."""
    position = shapes.get("image_encoder.pos_embed")
    if position and position[-1] != width:
        found = WIDTHS.get(position[-1], f"a SAM of width {position[-1]}")
        return (
            f"holds {found}, another size of SAM than the one to fill; the paper adapts vit_b, "
            "which `python -m data_scripts.sam_weights` fetches."
        )
    if any(key.startswith(("visual.", "transformer.resblocks.")) for key in shapes):
        return "holds a CLIP model, not SAM; fetch SAM's with `python -m data_scripts.sam_weights`."
    return None


def tiny_file(ending: str) -> Path:
    """A file of the tiny SAM that the package carries: its config, weights or card."""
    return Path(str(files("serial_lora_course"))) / "assets" / "weights" / f"{TINY_MODEL}.{ending}"


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
