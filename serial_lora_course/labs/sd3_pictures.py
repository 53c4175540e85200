"""Words and pictures on their way into Stable Diffusion 3, and its drawings on their way out.

Text encoders and autoencoder stay frozen, so what they make of a picture and its caption never
changes, and a run of ten epochs need not compute it ten times. Both are kept under the picture's
id: kept by position, they would be dealt to the wrong captions as soon as the pictures are
shuffled, and nothing would complain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as pixels

from serial_lora_course.data.types import StyleExample
from serial_lora_course.labs.device import autocast, free_memory, release_memory
from serial_lora_course.measures.flow import drop_text, sample_sigmas
from serial_lora_course.models.sd3 import Sd3Backbone

READ_AT_ONCE = {"tiny": 64, "paper": 4}  # prompts
# 25: what a CPU core works on stays in its cache. 1: in float32 the autoencoder takes more than a gigabyte
# for a picture of 512 pixels, and four times that for one of 1024.
ENCODED_AT_ONCE = {"tiny": 25, "paper": 1}
DECODED_AT_ONCE = {"tiny": 64, "paper": 1}
DRAWN_AT_ONCE = {"tiny": 25, "paper": 4}


@dataclass(frozen=True)
class Prompts:
    """N prompts as the transformer reads them, on the CPU.

    Attributes:
        tokens: (N, T, joint width): CLIP's tokens, then T5's.
        pooled: (N, pooled width).
    """

    tokens: Tensor
    pooled: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, chosen: slice | Sequence[int]) -> Prompts:
        """Some of the prompts."""
        return Prompts(self.tokens[chosen], self.pooled[chosen])


class EncodedPicture(NamedTuple):
    """A picture and its caption as the transformer meets them, on the CPU.

    Attributes:
        latent: (c, h, w), shifted and scaled as the autoencoder's config says.
        tokens: (T, joint width) and pooled: (pooled width,), of the caption.
    """

    latent: Tensor
    tokens: Tensor
    pooled: Tensor


class TrainingExample(NamedTuple):
    """An encoded picture with the noise (c, h, w) that it meets in one step, and how much of it, 0 to 1."""

    latent: Tensor
    tokens: Tensor
    pooled: Tensor
    noise: Tensor
    sigma: Tensor


@torch.no_grad()
def read_prompts(backbone: Sd3Backbone, prompts: Sequence[str]) -> Prompts:
    """Prompts through the text encoders."""
    pipeline, count = backbone.pipeline, READ_AT_ONCE[backbone.scale]
    encoders = (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3)
    parts = []
    with on_device(backbone, *encoders) as device:
        for start in range(0, len(prompts), count):
            tokens, _, pooled, _ = pipeline.encode_prompt(
                list(prompts[start : start + count]),
                None,
                None,
                do_classifier_free_guidance=False,
                device=device,
                max_sequence_length=backbone.text_tokens,
            )
            parts.append((tokens.cpu(), pooled.cpu()))
    return Prompts(*(torch.cat(part) for part in zip(*parts, strict=True)))


@torch.no_grad()
def encode_pictures(
    backbone: Sd3Backbone, pictures: Sequence[Image.Image], resolution: int
) -> Tensor:
    """Latents (N, c, h, w) of pictures: scaled by the shorter side, cut to the middle square.

    The mean of the autoencoder's answer, (z - shift) * scale, in float32: in bfloat16 grey values come out
    wrong, and without the shift SD3's latents are off by a constant that the transformer has never seen.
    """
    autoencoder = backbone.pipeline.vae
    config, count = autoencoder.config, ENCODED_AT_ONCE[backbone.scale]
    parts = []
    with on_device(backbone, autoencoder):
        for start in range(0, len(pictures), count):
            batch = torch.stack([to_square(p, resolution) for p in pictures[start : start + count]])
            latents = autoencoder.encode(batch.to(autoencoder.device)).latent_dist.mode()
            parts.append(((latents - config.shift_factor) * config.scaling_factor).cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(backbone: Sd3Backbone, latents: Tensor) -> np.ndarray:
    """The way back of :func:`encode_pictures`, in float32 too: uint8, (N, height, width, 3)."""
    autoencoder = backbone.pipeline.vae
    config = autoencoder.config
    with on_device(backbone, autoencoder) as device:
        parts = []
        for part in latents.split(DECODED_AT_ONCE[backbone.scale]):
            part = part.to(device, torch.float32) / config.scaling_factor + config.shift_factor
            if device.type == "cpu":  # where convolutions are faster with channels last
                part = part.contiguous(memory_format=torch.channels_last)
            decoded = autoencoder.decode(part).sample
            parts.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().cpu())
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def to_square(picture: Image.Image, resolution: int) -> Tensor:
    """A picture as float32 (3, resolution, resolution) in [-1, 1], as the pipeline has them."""
    picture = pixels.resize(picture.convert("RGB"), resolution, pixels.InterpolationMode.LANCZOS)
    return pixels.to_tensor(pixels.center_crop(picture, resolution)) * 2 - 1


def encode_style(
    backbone: Sd3Backbone, examples: Sequence[StyleExample], resolution: int
) -> dict[str, EncodedPicture]:
    """Picture id -> the picture and its caption, encoded."""
    latents = encode_pictures(backbone, [example.picture for example in examples], resolution)
    captions = list(dict.fromkeys(example.caption for example in examples))
    prompts = read_prompts(backbone, captions)
    read = dict(zip(captions, zip(prompts.tokens, prompts.pooled, strict=True), strict=True))
    return {
        example.picture_id: EncodedPicture(latent, *read[example.caption])
        for example, latent in zip(examples, latents, strict=True)
    }


def meet_noise(
    encoded: EncodedPicture, empty: Prompts, text_dropout: float, shift: float
) -> TrainingExample:
    """A training example: noise, its amount, and now and then the ``empty`` prompt for the caption.

    Draws from torch's generator; ``shift`` is the scheduler's.
    """
    sigma = sample_sigmas(1, shift=shift)[0]
    noise = torch.randn(encoded.latent.shape)
    tokens, pooled = encoded.tokens, encoded.pooled
    if drop_text(1, text_dropout)[0]:
        tokens, pooled = empty.tokens[0], empty.pooled[0]
    return TrainingExample(encoded.latent, tokens, pooled, noise, sigma)


@contextmanager
def on_device(backbone: Sd3Backbone, *modules: nn.Module | None) -> Iterator[torch.device]:
    """Frozen parts beside the transformer for the length of the block, then back on the CPU.

    On a 24 GB card the text encoders and a training step do not fit together; where the encoders do not even
    fit beside the transformer, they compute on the CPU. The block gets the device that they are on.
    """
    device = backbone.model.device
    present = [module for module in modules if module is not None]
    size = sum(p.nbytes for module in present for p in module.parameters())
    if device.type != "cpu" and size > free_memory(device):
        device = torch.device("cpu")
    for module in present:
        module.to(device)
    try:
        yield device
    finally:
        if device.type != "cpu":
            for module in present:
                module.to("cpu")
            release_memory(device)


@torch.no_grad()
def draw(
    backbone: Sd3Backbone,
    prompts: Prompts | Sequence[str],
    seeds: Sequence[int],
    steps: int = 28,
    guidance: float = 3.0,
    resolution: int | None = None,
    empty: Prompts | None = None,
    precision: str = "auto",
) -> np.ndarray:
    """A picture for each prompt, by the stock pipeline and its own sampler.

    A picture depends on its prompt and its seed, not on what else is drawn with it.

    Args:
        prompts: N prompts, read already (:func:`read_prompts`) or in words.
        seeds: N numbers, the seed of each picture's noise.
        resolution: side in pixels; None for the model's own.
        empty: the empty prompt, read already, for guidance.
        precision: as in :mod:`serial_lora_course.labs.device`.

    Returns:
        uint8, (N, resolution, resolution, 3).
    """
    if not isinstance(prompts, Prompts):
        prompts = read_prompts(backbone, prompts)
    empty = empty or read_prompts(backbone, [""])
    device, parts = backbone.model.device, backbone.pipeline.components
    # Without the parts that stay on the CPU, where older versions of diffusers would look for its device.
    kept = {name: parts[name] for name in ("transformer", "scheduler", "vae")}
    pipeline = StableDiffusion3Pipeline(**dict.fromkeys(parts) | kept)
    pipeline.set_progress_bar_config(disable=True)
    side = resolution or backbone.resolution
    pictures = []
    for start in range(0, len(seeds), DRAWN_AT_ONCE[backbone.scale]):
        some = slice(start, start + DRAWN_AT_ONCE[backbone.scale])
        part, noise = prompts.rows(some), starting_noise(backbone, seeds[some], side)
        count = len(part)
        with autocast(device, precision, backbone.model):
            latents = pipeline(
                prompt_embeds=part.tokens.to(device),
                pooled_prompt_embeds=part.pooled.to(device),
                negative_prompt_embeds=empty.tokens.expand(count, -1, -1).to(device),
                negative_pooled_prompt_embeds=empty.pooled.expand(count, -1).to(device),
                height=side,
                width=side,
                num_inference_steps=steps,
                guidance_scale=guidance,
                latents=noise.to(device),
                output_type="latent",
            ).images
        pictures.append(decode_latents(backbone, latents))
    return np.concatenate(pictures)


def starting_noise(backbone: Sd3Backbone, seeds: Sequence[int], resolution: int) -> Tensor:
    """The noise (N, c, h, w) that drawings start from, each out of a generator of its own."""
    side = resolution // backbone.pipeline.vae_scale_factor
    shape = (backbone.model.config.in_channels, side, side)
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
