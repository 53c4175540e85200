"""Stable Diffusion 3 at both scales: a pipeline of diffusers' own classes.

``tiny`` is a small SD3 that this project pretrained on emoji (``assets/weights/tiny-sd3``); the tiny
CLIP reads its prompts. ``paper`` is SD3 medium, from a diffusers folder on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ModelMixin,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import refusals_told
from serial_lora_course.models import clip
from serial_lora_course.models.sd3_text import SHORT_LAYERS, clip_tokenizer, text_encoder
from serial_lora_course.models.weights import Backbone, fetched, require_scale, tiny_file

TINY_MODEL = "tiny-sd3"
PAPER_MODEL = "sd3-medium"
PAPER_FOLDER = "sd3"
TEXT_TOKENS = {"tiny": 0, "paper": 77}
#: Numbers at paper scale. What is frozen may be coarse, but for the autoencoder, which carries
#: every grey value of a picture.
PAPER_TYPES = {"default": torch.bfloat16, "vae": torch.float32}
REMEDY = (
    "fetch SD3 medium with `python data_scripts/fetch.py sd3`, or name another folder of diffusers with "
    "--weights."
)
OFFLINE = {"local_files_only": True, "use_safetensors": True}  # no pickle is opened


@dataclass(frozen=True)
class Sd3Backbone(Backbone):
    """An SD3 pipeline in evaluation mode, on the CPU; its transformer is adapted."""

    model: SD3Transformer2DModel
    pipeline: StableDiffusion3Pipeline
    text_tokens: int  # that T5 adds to CLIP's; zeros where it is left out

    def around(self, model: SD3Transformer2DModel) -> Sd3Backbone:
        """The same with another transformer, in a pipeline of its own that shares all else."""
        parts = self.pipeline.components | {"transformer": model}
        pipeline = StableDiffusion3Pipeline(**parts)
        pipeline.set_progress_bar_config(disable=True)
        return replace(self, model=model, pipeline=pipeline)

    @property
    def resolution(self) -> int:
        """Side, in pixels, of the square pictures that this model was made for."""
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor


@refusals_told()
def load_sd3(scale: str = "tiny", weights: str | Path = "default") -> Sd3Backbone:
    """Load an SD3 pipeline; at paper scale the transformer in bfloat16, the autoencoder in float32.

    A folder without ``text_encoder_3`` is loaded without T5, by far the largest part: SD3 does without it, as
    now and then in its training, and loses mostly in written words (Esser et al. 2024, section 5.3).

    Args:
        scale: ``tiny`` or ``paper``.
        weights: at paper scale a diffusers folder, at tiny scale one with ``transformer`` and
            ``vae`` (the tiny CLIP reads the prompts); ``"default"`` for the scale's own (at paper
            scale the folder that ``python data_scripts/fetch.py sd3`` fetched).
    """
    require_scale(scale)
    pipeline = _tiny_pipeline(weights) if scale == "tiny" else _paper_pipeline(weights)
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(part is pipeline.transformer)
    pipeline.set_progress_bar_config(disable=True)  # the labs show one of their own
    name = TINY_MODEL if scale == "tiny" else _model_name(pipeline.transformer)
    return Sd3Backbone(pipeline.transformer, name, scale, pipeline, TEXT_TOKENS[scale])


def _paper_pipeline(weights: str | Path) -> StableDiffusion3Pipeline:
    folder = fetched(PAPER_FOLDER, "sd3") if weights == "default" else Path(weights)
    coarse, fine = PAPER_TYPES.values()
    parts = {
        "transformer": load_part(SD3Transformer2DModel, folder / "transformer", coarse),
        "vae": load_part(AutoencoderKL, folder / "vae", fine),
    }
    if not (folder / "text_encoder_3").is_dir():
        parts |= {"text_encoder_3": None, "tokenizer_3": None}
    with _in_one_sentence(folder):
        return StableDiffusion3Pipeline.from_pretrained(
            folder, dtype=PAPER_TYPES, **OFFLINE, **parts
        )


def load_part(
    kind: type[ModelMixin], folder: Path, dtype: torch.dtype = torch.float32
) -> ModelMixin:
    """SD3's transformer or autoencoder from a folder that holds its tensors and no others.

    diffusers only mentions those that are missing, and leaves them random.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        raise SerialLoRAError(f"There is no folder {folder}; {REMEDY}")
    with _in_one_sentence(folder):
        part, found = kind.from_pretrained(folder, dtype=dtype, output_loading_info=True, **OFFLINE)
    for what, names in (("lacks", found["missing_keys"]), ("has", found["unexpected_keys"])):
        if names:
            raise SerialLoRAError(
                f"{folder} holds another model's weights than its config.json says: it {what} "
                f"{min(names)} ({len(names)} such tensors); {REMEDY}"
            )
    if kind is AutoencoderKL and None in (part.config.scaling_factor, part.config.shift_factor):
        raise SerialLoRAError(
            f"{folder}/config.json states no scaling_factor and shift_factor, so this is not SD3's "
            f"autoencoder; {REMEDY}"
        )
    return part


@contextmanager
def _in_one_sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the libraries raise whatever the broken file led them to
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise SerialLoRAError(f"{folder} cannot be loaded ({reason}); {REMEDY}") from error


def _model_name(transformer: SD3Transformer2DModel) -> str:
    """What records call a transformer; its siblings, SD3.5 for one, are told by their size."""
    config = transformer.config
    shape = (config.num_layers, config.num_attention_heads, config.attention_head_dim)
    if shape == (24, 24, 64) and config.qk_norm is None:
        return PAPER_MODEL
    return f"sd3-{config.num_layers}x{transformer.inner_dim}"


def _tiny_pipeline(weights: str | Path) -> StableDiffusion3Pipeline:
    folder = tiny_file(TINY_MODEL) if weights == "default" else Path(weights)
    parts = ((SD3Transformer2DModel, folder / "transformer"), (AutoencoderKL, folder / "vae"))
    return build_pipeline(*(load_part(kind, path) for kind, path in parts))


def build_pipeline(
    transformer: SD3Transformer2DModel, autoencoder: AutoencoderKL
) -> StableDiffusion3Pipeline:
    """A pipeline whose prompts the tiny CLIP reads, without T5; text widths are twice that CLIP's."""
    model = clip.load_clip("tiny").model
    merges = tiny_file(f"{clip.TINY_MODEL}.merges.txt.gz")
    tokenizers = [clip_tokenizer(merges, len(model.positional_embedding)) for _ in range(2)]
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),  # shifts are for larger pictures
        text_encoder=text_encoder(model),
        text_encoder_2=text_encoder(model, SHORT_LAYERS),
        text_encoder_3=None,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        tokenizer_3=None,
    )
