"""Pretraining of the tiny Stable Diffusion 3: Twemoji from their names, 64 pixels square.

First the autoencoder (see `sd3_autoencoder`), then, by rectified flow in its latents, the
transformer. It learns the Twemoji drawing of every thing of `serial_lora_course.data.types` and sees no
other style. Its prompts are read by the tiny CLIP's text tower, which stays as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import nn

from data_scripts.pretraining.loop import PretrainingRun
from data_scripts.pretraining.sd3_autoencoder import (
    SIZE,
    AutoencoderPretraining,
    save_half,
    say_start,
    start_from,
)
from data_scripts.pretraining.sd3_autoencoder import Recipe as AutoencoderRecipe
from serial_lora_course.data.emoji import ATTRIBUTION, STYLES, load_emoji
from serial_lora_course.data.style_sets import caption, things
from serial_lora_course.labs.sd3_drawings import draw
from serial_lora_course.labs.sd3_inputs import encode_pictures, read_prompts
from serial_lora_course.measures.flow import (
    TRAIN_TIMESTEPS,
    add_noise,
    drop_text,
    flow_loss,
    sample_sigmas,
    velocity,
)
from serial_lora_course.models.judges import load_judge
from serial_lora_course.models.sd3 import Sd3Backbone, build_pipeline
from serial_lora_course.plots.drawings import plot_sheet
from serial_lora_course.plots.style import SCREEN_DPI, save_figure

NAME = "tiny-sd3"
GUIDANCE = 3.0
STEPS = 28
SHEET = 40  # prompts
EMPTY_T5 = 256  # tokens that a pipeline without T5 adds unless it is told otherwise


@dataclass(frozen=True)
class Recipe:
    """What the transformer's run depends on."""

    minutes: float = 60.0
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.02  # fraction of the time
    text_dropout: float = 0.1  # share of pictures whose prompt is the empty one, for guidance
    padded: int = 16  # one step in so many carries the pipeline's empty T5 tokens
    average: float = 0.9995  # decay of the moving average of the weights
    start: str = ""  # folder of weights to go on from; empty for none
    seed: int = 0


class TransformerPretraining(PretrainingRun):
    """One run of the transformer."""

    name = NAME
    betas = (0.9, 0.95)

    def __init__(self, folder: Path, recipe: Recipe, autoencoder: Path) -> None:
        super().__init__(folder, recipe, recipe.minutes)
        self.autoencoder_card = json.loads(autoencoder.with_suffix(".card.json").read_text("utf-8"))
        emoji = load_emoji("twemoji", SIZE)
        self.captions = [caption(concept) for concept in things()]
        self.pictures = [emoji.picture(emoji.positions[concept.codepoints]) for concept in things()]
        self.judge = load_judge()
        start = start_from(recipe.start, SD3Transformer2DModel, "transformer")
        transformer = start or build_transformer()
        pipeline = build_pipeline(transformer, AutoencoderKL.from_pretrained(autoencoder))
        pipeline.set_progress_bar_config(disable=True)
        self.backbone = Sd3Backbone(transformer, self.name, "tiny", pipeline, text_tokens=0)
        self.latents = encode_pictures(self.backbone, self.pictures, SIZE)
        self.prompts = read_prompts(self.backbone, self.captions)
        self.empty = read_prompts(self.backbone, [""])
        self.set_up(transformer, average=recipe.average)

    def one_step(self) -> float:
        recipe = self.recipe
        self.set_learning_rate(recipe.learning_rate, self.seconds / self.budget, recipe.warmup)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        padded = self.step % recipe.padded == 0
        count = recipe.batch // 4 if padded else recipe.batch  # four times the work a picture
        picked = torch.randint(len(self.latents), (count,), generator=generator)
        empty = drop_text(count, recipe.text_dropout, generator)
        prompts = self.prompts.rows(picked)
        tokens = torch.where(empty[:, None, None], self.empty.tokens, prompts.tokens)
        pooled = torch.where(empty[:, None], self.empty.pooled, prompts.pooled)
        if padded:
            tokens = torch.cat([tokens, tokens.new_zeros(count, EMPTY_T5, tokens.shape[2])], 1)
        latents = self.latents[picked]
        noise = torch.randn(latents.shape, generator=generator)
        sigmas = sample_sigmas(count, generator=generator)
        self.trained.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (predicted,) = self.model(
                add_noise(latents, noise, sigmas),
                tokens,
                pooled,
                sigmas * TRAIN_TIMESTEPS,
                return_dict=False,
            )
        return self.descend(flow_loss(predicted, velocity(latents, noise), sigmas))

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """How often the tiny CLIP finds the right name of a drawing among a hundred."""
        chance = torch.Generator().manual_seed(self.recipe.seed)
        picked = torch.randperm(len(self.captions), generator=chance)[:100].tolist()
        captions, real = ([known[i] for i in picked] for known in (self.captions, self.pictures))
        self.model.eval()
        with self.averaged():
            drawn = self.draw(captions)
        return {
            "retrieval": round(self.judge.retrieval(drawn, captions), 3),
            "retrieval, real": round(self.judge.retrieval(real, captions), 3),
        }

    def draw(self, captions: list[str]) -> np.ndarray:
        """Pictures (N, size, size, 3), uint8, of the prompts."""
        return draw(self.backbone, captions, range(len(captions)), STEPS, GUIDANCE)

    def write_model(self) -> None:
        """Transformer and autoencoder as diffusers saves them, and a sheet of drawings."""
        save_half(self.backbone.pipeline.vae, self.folder / self.name / "vae")
        with self.averaged():
            save_half(self.model, self.folder / self.name / "transformer")
            self._write_sheet()

    def _write_sheet(self) -> None:
        """Drawings of forty prompts, picked blindly, for people to judge."""
        chance = torch.Generator().manual_seed(self.recipe.seed + 1)
        picked = torch.randperm(len(self.captions), generator=chance)[:SHEET].tolist()
        captions = [self.captions[i] for i in picked]
        figure = plot_sheet(self.draw(captions), captions)
        save_figure(figure, self.folder / f"{self.name}.sheet.png", dpi=SCREEN_DPI)

    def card(self) -> dict:
        recipe, autoencoder = self.recipe, self.autoencoder_card
        command = (
            f"sd3 --minutes {recipe.minutes:g} "
            f"--autoencoder-minutes {autoencoder['recipe']['minutes']:g} --seed {recipe.seed}"
            + say_start(recipe.start)
        )
        return self.facts(command) | {
            "autoencoder": autoencoder,
            "text encoders": "the tiny CLIP's text tower, whole and cut short; frozen",
            "data": {"drawings": f"{len(self.captions)} Twemoji drawings with their names"},
            "licences": {style: ATTRIBUTION[style] for style in STYLES},
            "measured": {
                "what": "share of 100 random names that the tiny CLIP finds back, among the "
                f"hundred, in the drawing made for the name ({STEPS} steps, guidance "
                f"{GUIDANCE:g}); 'real' is the same for the Twemoji drawings themselves",
                **self.measured(),
            },
            "sheet": f"{self.name}.sheet.png: {SHEET} random prompts, none left out",
            "limits": "draws the things of its training names in Twemoji's style, nothing else; "
            "for teaching",
            "weights_licence": "CC BY-SA 4.0, as OpenMoji, on which the autoencoder was trained",
        }


def build_transformer(layers: int = 5, width: int = 192, heads: int = 3) -> SD3Transformer2DModel:
    """SD3's transformer at a small size, started as diffusion transformers are."""
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        joint_attention_dim=384,
        pooled_projection_dim=384,
        caption_projection_dim=width,
        pos_embed_max_size=16,
    )
    initialize(model)
    return model


def initialize(model: SD3Transformer2DModel) -> None:
    """Every block starts as the identity and the answer as zero (Peebles and Xie 2023, 3.2)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for block in model.transformer_blocks:
        for norm in (block.norm1, block.norm1_context):
            nn.init.zeros_(norm.linear.weight)
    nn.init.zeros_(model.norm_out.linear.weight)
    nn.init.zeros_(model.proj_out.weight)


def pretrain(folder: Path, recipe: Recipe, autoencoder: AutoencoderRecipe) -> None:
    """Run, or go on with, both pretrainings; everything they make is in ``folder``."""
    inner = folder / "autoencoder"
    finished = inner / AutoencoderPretraining.name
    if not finished.with_suffix(".card.json").exists():
        AutoencoderPretraining(inner, autoencoder).run()
    TransformerPretraining(folder, recipe, finished).run()
