"""Pretraining of the tiny Stable Diffusion 3: many designers' drawings from their names, 64 pixels square.

First the autoencoder (`data_scripts.pretraining.autoencoder`). Then, by rectified flow in its
latents, the transformer: the drawings of every thing of `serial_lora_course.data.style_sets` by
several designers, the designer named in the prompt, some of them once more with a black outline.
The tiny CLIP's text tower, which stays as it is, reads the prompts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel
from PIL import Image
from timm.optim import Muon
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.transforms.functional import to_pil_image

from data_scripts.pretraining.augment import edges
from data_scripts.pretraining.autoencoder import (
    CHANNELS,
    AutoencoderPretraining,
    AutoencoderRecipe,
    DecoderPretraining,
    DecoderRecipe,
    on_paper,
    save_half,
)
from data_scripts.pretraining.icons import load_icons
from data_scripts.pretraining.loop import PretrainingRun
from serial_lora_course.data.emoji import STYLES, load_emoji
from serial_lora_course.data.style_sets import SIZE, caption, things
from serial_lora_course.labs.sd3_pictures import draw, encode_pictures, read_prompts
from serial_lora_course.measures.flow import (
    TRAIN_TIMESTEPS,
    add_noise,
    drop_text,
    flow_loss,
    sample_sigmas,
    velocity,
)
from serial_lora_course.models.judges import load_judge
from serial_lora_course.models.sd3 import TINY_MODEL, Sd3Backbone, build_pipeline

# The first words of a prompt -> who draws for it; Twemoji's are what one gets unasked.
DESIGNERS = {
    "": "twemoji",
    "fluent": "fluent-flat",
    "ink": "noto-mono",
    "outlined": "twemoji",
    "outlined fluent": "fluent-flat",
}
GUIDANCE, STEPS = 3.0, 28
EMPTY_T5 = 256  # tokens that a pipeline without T5 adds unless it is told otherwise


def pretrain(
    folder: Path, asked: str, steps: int, autoencoder_steps: int, decoder_steps: int, seed: int
) -> None:
    """Run the three pretrainings, but for those of the autoencoder that have been run in this folder."""
    inner = folder / "autoencoder"
    first, finished = inner / AutoencoderPretraining.name, inner / DecoderPretraining.name
    if not first.with_suffix(".card.json").exists():
        recipe = AutoencoderRecipe(steps=autoencoder_steps, seed=seed)
        AutoencoderPretraining(inner, recipe, asked).run()
    if not finished.with_suffix(".card.json").exists():
        DecoderPretraining(inner, DecoderRecipe(steps=decoder_steps, seed=seed), first, asked).run()
    TransformerPretraining(folder, Recipe(steps=steps, seed=seed), finished, asked).run()


@dataclass(frozen=True)
class Recipe:
    """What the transformer's run depends on."""

    steps: int = 16000
    batch: int = 64
    learning_rate: float = 2e-3  # of the blocks' matrices
    other_rate: float = 1e-3  # of everything else
    weight_decay: float = 0.01
    warmup: int = 300  # steps
    decay: float = 0.25  # share of the steps in which the rate falls
    twemoji: int = 3  # Twemoji's drawings come so many times as often as another designer's
    text_dropout: float = 0.1  # share of pictures whose prompt is the empty one, for guidance
    padded: int = 16  # one step in so many carries the pipeline's empty T5 tokens
    average: float = 0.9995  # decay of the moving average of the weights
    seed: int = 0


class TransformerPretraining(PretrainingRun):
    """One run of the transformer."""

    name = TINY_MODEL
    betas = (0.9, 0.95)

    def __init__(self, folder: Path, recipe: Recipe, autoencoder: Path, asked: str = "sd3") -> None:
        super().__init__(folder, recipe, asked)
        self.autoencoder_card = json.loads(autoencoder.with_suffix(".card.json").read_text("utf-8"))
        self.captions, self.pictures, styles = captioned_drawings()
        often = torch.tensor([recipe.twemoji if style == "twemoji" else 1 for style in styles])
        self.pool = torch.arange(len(styles)).repeat_interleave(often)
        transformer = build_transformer()
        pipeline = build_pipeline(transformer, AutoencoderKL.from_pretrained(autoencoder))
        pipeline.set_progress_bar_config(disable=True)
        self.backbone = Sd3Backbone(transformer, self.name, "tiny", pipeline, text_tokens=0)
        self.latents = encode_pictures(self.backbone, self.pictures, SIZE)
        self.prompts = read_prompts(self.backbone, self.captions)
        self.empty = read_prompts(self.backbone, [""])
        self.set_up(transformer, average=recipe.average)

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Muon (Jordan 2024) for the blocks' matrices, which needs half of AdamW's steps; AdamW for the rest."""
        recipe, blocks = self.recipe, list(self.model.transformer_blocks.parameters())
        matrices = [parameter for parameter in blocks if parameter.ndim == 2]
        known = set(map(id, matrices))
        others = [parameter for parameter in self.model.parameters() if id(parameter) not in known]
        groups = [
            {"params": matrices, "lr": recipe.learning_rate},
            {"params": others, "lr": recipe.other_rate, "use_fallback": True},
        ]
        return Muon(groups, weight_decay=recipe.weight_decay, betas=self.betas, nesterov=True)

    def one_step(self) -> float:
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        padded = self.step % recipe.padded == 0
        count = recipe.batch // 4 if padded else recipe.batch  # four times the work a picture
        picked = self.pool[torch.randint(len(self.pool), (count,), generator=generator)]
        empty = drop_text(count, recipe.text_dropout, generator)
        prompts = self.prompts.rows(picked)
        tokens = torch.where(empty[:, None, None], self.empty.tokens, prompts.tokens)
        pooled = torch.where(empty[:, None], self.empty.pooled, prompts.pooled)
        if padded:
            tokens = torch.cat([tokens, tokens.new_zeros(count, EMPTY_T5, tokens.shape[2])], 1)
        latents = self.latents[picked]
        noise = torch.randn(latents.shape, generator=generator)
        sigmas = sample_sigmas(count, generator=generator)
        noisy, times = add_noise(latents, noise, sigmas), sigmas * TRAIN_TIMESTEPS
        self.trained.train()
        # With so few tokens plain products are faster on a processor than fused attention.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            (predicted,) = self.model(noisy, tokens, pooled, times, return_dict=False)
        return self.descend(flow_loss(predicted, velocity(latents, noise), sigmas))

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """How often the tiny CLIP finds the right name of a drawing among a hundred."""
        rng = torch.Generator().manual_seed(self.recipe.seed)
        picked = torch.randperm(len(things()), generator=rng)[:100].tolist()  # Twemoji's come first
        captions, real = ([known[i] for i in picked] for known in (self.captions, self.pictures))
        self.model.eval()
        with self.averaged():
            drawn = draw(self.backbone, captions, range(len(captions)), STEPS, GUIDANCE)
        judge, shares = load_judge(), {}
        for name, pictures in (("retrieval", drawn), ("retrieval, real", real)):
            likest = (judge.clip_features(pictures) @ judge.text_features(captions).T).argmax(1)
            right = [captions[i] == own for i, own in zip(likest, captions, strict=True)]
            shares[name] = round(sum(right) / len(right), 3)
        return shares

    def write_model(self) -> None:
        """Transformer and autoencoder as diffusers saves them."""
        save_half(self.backbone.pipeline.vae, self.folder / self.name / "vae")
        with self.averaged():
            save_half(self.model, self.folder / self.name / "transformer")

    def card(self) -> dict:
        return super().card() | {"autoencoder": self.autoencoder_card}


def captioned_drawings() -> tuple[list[str], list[Image.Image], list[str]]:
    """Every thing as each designer draws it: a prompt that names designer and thing, the picture, the set."""
    captions, pictures, styles = [], [], []
    for words, style in DESIGNERS.items():
        emoji = load_emoji(style, SIZE) if style in STYLES else load_icons(style, SIZE)
        drawn = [concept for concept in things() if concept.codepoints in emoji.positions]
        drawings = emoji.some([emoji.positions[concept.codepoints] for concept in drawn])
        sheets = torch.from_numpy(drawings).permute(0, 3, 1, 2).float() / 255
        sheets = outlined(sheets) if words.startswith("outlined") else on_paper(sheets)
        captions += [f"{words} {caption(concept)}".strip() for concept in drawn]
        pictures += [to_pil_image(sheet) for sheet in sheets]
        styles += [style] * len(drawn)
    return captions, pictures, styles


def outlined(drawings: Tensor) -> Tensor:
    """Drawings (N, 4, size, size) in [0, 1] with a thin black outline, (N, 3, size, size).

    The outline is found at twice the size, so that half a pixel of it lies on either side; what is
    paler than a fifth of black is left out, and what is darker than four fifths is black.
    """
    sheet = on_paper(drawings)
    large = F.interpolate(torch.cat([sheet, drawings[:, 3:]], 1), scale_factor=2, mode="bilinear")
    ink = F.avg_pool2d(edges(large[:, :3], large[:, 3:]), 2)
    return sheet * (1 - (1.6 * ink - 0.3).clamp(0, 1))


def build_transformer(layers: int = 5, width: int = 192, heads: int = 3) -> SD3Transformer2DModel:
    """SD3's transformer at a small size, started as diffusion transformers are.

    Every block starts as the identity and the answer as zero (Peebles and Xie 2023, section 3.2).
    """
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        joint_attention_dim=384,
        pooled_projection_dim=384,
        caption_projection_dim=width,
        pos_embed_max_size=16,
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for block in model.transformer_blocks:
        for norm in (block.norm1, block.norm1_context):
            nn.init.zeros_(norm.linear.weight)
    nn.init.zeros_(model.norm_out.linear.weight)
    nn.init.zeros_(model.proj_out.weight)
    return model
