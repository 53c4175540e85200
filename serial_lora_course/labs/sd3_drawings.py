"""Drawings of Stable Diffusion 3, and what they are worth: FID, KID and CLIP-Score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from serial_lora_course.data.types import StyleData, StyleExample
from serial_lora_course.labs.device import autocast
from serial_lora_course.labs.sd3_inputs import Prompts, decode_latents, read_prompts
from serial_lora_course.measures.pictures import (
    frechet_distance,
    jackknife_error,
    kernel_distance,
)
from serial_lora_course.models.judges import Judge
from serial_lora_course.models.sd3 import Sd3Backbone

DRAW_FOR = ("held_out", "all")
DRAWN_AT_ONCE = {"tiny": 25, "paper": 4}  # 25: what a CPU core works on stays in its cache


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
        precision: ``bf16`` (autocast), ``no`` (float32), or ``auto``, see
            :mod:`serial_lora_course.labs.device`.

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


# ----------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Trial:
    """What a style is measured with: fixed prompts, fixed seeds, and real pictures of the style.

    Attributes:
        captions: of the held-out pictures, or of all; the prompts that are drawn.
        prompts, empty: the same, and the empty prompt, read.
        reference: features (N, d) of the same pictures.
    """

    captions: list[str]
    prompts: Prompts
    empty: Prompts
    reference: Tensor

    @property
    def seeds(self) -> range:
        """The seed of each drawing's noise; the same for every model."""
        return range(len(self.captions))


def prepare_trial(
    backbone: Sd3Backbone, judge: Judge, data: StyleData, draw_for: str = "held_out"
) -> Trial:
    """Read and look at, once, what every model of a style is measured with."""
    examples = trial_examples(data, draw_for)
    captions = [example.caption for example in examples]
    return Trial(
        captions,
        read_prompts(backbone, captions),
        read_prompts(backbone, [""]),
        judge.picture_features([example.picture for example in examples]),
    )


def trial_examples(data: StyleData, draw_for: str = "held_out") -> list[StyleExample]:
    """The pictures whose captions are drawn: the held-out ones; of ``all`` those first."""
    parts = (data.test, data.train)[: 1 + (draw_for == "all")]
    return [part[index] for part in parts for index in range(len(part))]


def score_pictures(
    pictures: np.ndarray | Sequence, trial: Trial, judge: Judge, style: str
) -> dict[str, float]:
    """What N pictures, one for each prompt of the trial, are worth.

    Returns:
        ``fid`` and ``kid`` to the held-out pictures of the style (lower is better) and the mean
        ``clip_score``, with the standard errors ``fid_error`` and ``clip_error`` over pictures and
        the spread ``kid_std`` over subsets; and what the judge says of the style.
    """
    measures = crowd_measures(judge.picture_features(pictures), trial.reference)
    scores = judge.clip_scores(pictures, trial.captions)
    error = scores.std() / len(scores) ** 0.5
    measures |= {"clip_score": scores.mean().item(), "clip_error": error.item()}
    return measures | judge.style_measures(pictures, style)


def crowd_measures(features: Tensor, reference: Tensor) -> dict[str, float]:
    """FID and KID of two sets of features, with their spreads."""
    kid, spread = kernel_distance(features, reference)
    error = jackknife_error(
        lambda some: frechet_distance(some, reference), features, groups=min(10, len(features))
    )
    fid = frechet_distance(features, reference)
    return {"fid": fid, "fid_error": error, "kid": kid, "kid_std": spread}
