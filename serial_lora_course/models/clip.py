"""CLIP at both scales: open_clip's own classes, a tokenizer and the preprocessing.

``tiny`` is a small open_clip model that this project pretrained on emoji of many designers
(``assets/weights/tiny-clip.*``). ``paper`` is OpenAI's ViT-B/16, which was trained with QuickGELU:
in plain GELU it loads without a word and is several points worse, so that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import refusals_told
from serial_lora_course.models.weights import (
    PICKLE_ENDINGS,
    Backbone,
    fetched,
    load_weights,
    require_scale,
    tiny_file,
)

TINY_MODEL = "tiny-clip"
PAPER_MODEL = "ViT-B-16-quickgelu"
AT_ONCE = 100  # pictures that the image tower sees together
# CLIP-LoRA crops to as little as 8%; of an emoji that would leave no shape to recognise.
CROP = {"tiny": (0.6, 1.0), "paper": (0.08, 1.0)}


@dataclass(frozen=True)
class CLIPBackbone(Backbone):
    """A CLIP model and all that turns pictures and words into its inputs."""

    tokenizer: Callable[[list[str]], Tensor]  # n strings -> ids (n, context_length)
    train_transform: Callable  # PIL picture -> float (3, size, size)
    test_transform: Callable  # CLIP's own: shorter side to size, central square, (x - mean) / std


@refusals_told()
def load_clip(
    scale: str = "tiny",
    model_name: str | None = None,
    weights: str | Path | None = "default",
    crop_scale: tuple[float, float] | None = None,
) -> CLIPBackbone:
    """Create CLIP through open_clip's factory and fill it with pretrained weights.

    Args:
        scale: ``tiny`` or ``paper``.
        model_name: another open_clip architecture than the scale's own.
        weights: a safetensors file, ``"default"`` for the scale's own weights (at paper scale
            OpenAI's, as ``data_scripts/fetch.py clip`` fetched them), or None for random
            weights.
        crop_scale: smallest and largest share of the area that a training crop keeps.
    """
    require_scale(scale)
    open_clip.add_model_config(tiny_file(f"{TINY_MODEL}.json"))
    own = TINY_MODEL if scale == "tiny" else PAPER_MODEL
    name = own if model_name is None else model_name
    _check_name(name, weights)
    tiny = name == TINY_MODEL
    if weights == "default" and tiny:
        weights = tiny_file(f"{name}.safetensors")
    elif weights == "default":
        weights = fetched(openai_file(name), f"clip --model {name}")
    if weights is not None and Path(weights).suffix in PICKLE_ENDINGS:
        raise SerialLoRAError(
            f"{weights} may be a pickle (OpenAI's .pt is TorchScript) and is not opened; take the "
            "safetensors file that `python data_scripts/fetch.py clip` fetches."
        )
    model = _create(name)
    if weights is not None:
        load_weights(model, Path(weights))
    size = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
    merges = {"bpe_path": str(tiny_file(f"{name}.merges.txt.gz"))} if tiny else {}
    usual = open_clip.image_transform(size, is_train=False)
    return CLIPBackbone(
        model=model.eval(),
        name=name,
        scale=scale,
        tokenizer=open_clip.get_tokenizer(name, **merges),
        train_transform=build_train_transform(size, crop_scale or CROP[scale]),
        test_transform=transforms.Compose([cut_to_middle, usual]),
    )


@torch.no_grad()
def look(
    clip: CLIPBackbone, pictures: Sequence[Image.Image], blocks: Sequence[int] = ()
) -> tuple[list[Tensor], Tensor]:
    """What a CLIP's image tower sees in N pictures, on the CPU.

    Returns:
        The patches' tokens (N, patches, width) after each of ``blocks``, counted from 0, and the
        normalised features (N, d).
    """
    model, tokens = clip.model, [[] for _ in blocks]
    device = next(model.parameters()).device
    handles = [  # tokens are (n, 1 + patches, width); the first stands for no patch
        model.visual.transformer.resblocks[block].register_forward_hook(
            lambda module, inputs, seen, kept=kept: kept.append(seen[:, 1:].cpu())
        )
        for block, kept in zip(blocks, tokens, strict=True)
    ]
    try:
        features = []
        for start in range(0, len(pictures), AT_ONCE):
            part = [clip.test_transform(each) for each in pictures[start : start + AT_ONCE]]
            part = torch.stack(part).to(device)  # (n, 3, size, size)
            features.append(model.encode_image(part, normalize=True).cpu())
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(kept) for kept in tokens], torch.cat(features)


def openai_file(name: str) -> str:
    """What the data script calls the file of OpenAI's weights for an architecture."""
    return f"{name}-openai.safetensors"


def _check_name(name: str, weights: str | Path | None) -> None:
    """Refuse a model that open_clip does not know, and GELU with OpenAI's weights."""
    try:
        config = open_clip.get_model_config(name)
    except Exception:  # whatever the readers of "hf-hub:..." and "local-dir:..." raise
        config = None
    if config is None:
        raise SerialLoRAError(
            f"open_clip has no model {name!r} here; use {TINY_MODEL} or {PAPER_MODEL}, or see "
            "open_clip.list_models()."
        )
    sibling = f"{name}-quickgelu"
    if weights is not None and open_clip.get_model_config(sibling) is not None:
        raise SerialLoRAError(
            f"{name} computes GELU, but OpenAI's weights were trained with QuickGELU, and nothing "
            f"in the file would show the mismatch; use {sibling}."
        )


def _create(name: str) -> nn.Module:
    config = open_clip.get_model_config(name)
    # encode_prompts counts on a causal text tower that reads its answer at the end-of-text token.
    plain = not config.pop("custom_text", False) and "hf_model_name" not in config["text_cfg"]
    model = open_clip.CLIP(**config) if plain else None
    if model is None or model.attn_mask is None:
        raise SerialLoRAError(
            f"{name} has another text tower than OpenAI's CLIP; choose a plain CLIP such as "
            f"{PAPER_MODEL}."
        )
    return model


Channels = tuple[float, float, float]
OPENAI: tuple[Channels, Channels] = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
BICUBIC = transforms.InterpolationMode.BICUBIC


def build_train_transform(
    size: int,
    crop_scale: tuple[float, float],
    mean: Channels = OPENAI[0],
    std: Channels = OPENAI[1],
) -> Callable:
    """Random crop and flip, as CLIP-LoRA trains (its ``main.py``), then (x - mean) / std."""
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, crop_scale, interpolation=BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def cut_to_middle(picture: Image.Image, longest: int = 50) -> Image.Image:
    """A picture as it is, or the middle of one so long that, resized whole, it would fill the memory."""
    side = longest * min(picture.size)
    return transforms.functional.center_crop(
        picture, [min(side, picture.height), min(side, picture.width)]
    )


def encode_prompts(model: nn.Module, tokens: Tensor) -> Tensor:
    """Normalised text features (n, embed_dim), float32, of token ids (n, context_length), cut short exactly.

    The text tower is causal and reads its answer at the end-of-text token, so nothing behind the
    longest prompt, some ten of CLIP's 77 positions, can reach the result.
    """
    length = int(tokens.argmax(dim=-1).max()) + 1  # the end-of-text token has the highest id
    tokens = tokens[:, :length]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]  # (n, length, d)
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x)
    x = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]  # (n, d)
    features = x @ model.text_projection
    return nn.functional.normalize(features.float(), dim=-1)
