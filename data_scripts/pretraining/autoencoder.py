"""Pretraining of the autoencoder of the tiny Stable Diffusion 3: a drawing to 16 x 16 latents and back.

It learns drawings of all designers but OpenMoji in changing colours, so that whatever style the
transformer is tuned to later fits through it; the adaptation styles' drawings of hidden concepts
(`serial_lora_course.data.emoji_sets`) measure it. Then its decoder alone, so that thin lines stay
thin and the latents stay what they are.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin
from torch import Tensor

from data_scripts.pretraining.augment import chosen, edges
from data_scripts.pretraining.clip import SEEN_STYLES
from data_scripts.pretraining.icons import ICON_STYLES, load_icons, load_named_icons
from data_scripts.pretraining.loop import PretrainingRun
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints, unseen_drawings
from serial_lora_course.data.style_sets import SIZE, TINY_STYLES, render
from serial_lora_course.models.sd3 import TINY_MODEL
from serial_lora_course.models.weights import tiny_file

CHANNELS = 16  # of the latents
#: What a card says of one run alone.
OWN_IN_CARD = ("model", "command", "recipe", "minutes", "steps", "machine", "measured")
MEASURED = 200  # drawings of each style


@dataclass(frozen=True)
class AutoencoderRecipe:
    """What the autoencoder's run depends on."""

    steps: int = 5000
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 200  # steps
    decay: float = 0.3  # share of the steps in which the rate falls
    edge_loss: float = 0.5  # weight of differences between neighbouring pixels
    colour_loss: float = 1.0  # weight of the colour of cells of 4 x 4 pixels
    square_loss: float = (
        2.0  # weight of the squared error, which the peak signal-to-noise ratio measures
    )
    icons: float = 0.4  # share of drawings that are icons, most of them in one ink
    kl_loss: float = 5e-4  # weight of a latent number's distance from a standard normal
    seed: int = 0


def build_autoencoder() -> AutoencoderKL:
    """SD3's autoencoder at a small size: 64 pixels to 16 x 16 latents of 16 channels, SD3's number."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


class AutoencoderPretraining(PretrainingRun):
    """One run of the autoencoder."""

    name = "tiny-sd3-vae"
    betas = (0.9, 0.95)

    def __init__(self, folder: Path, recipe: AutoencoderRecipe, asked: str = "sd3") -> None:
        super().__init__(folder, recipe, asked)
        self.emoji = seen_emoji()
        self.icons = torch.from_numpy(load_named_icons(SIZE).pictures)
        model = self.build_model().to(memory_format=torch.channels_last)
        self.set_up(model, average=0.999)

    def build_model(self) -> AutoencoderKL:
        return build_autoencoder()

    def one_step(self) -> float:
        recipe = self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        pictures = vary(self.pick(generator), generator)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        self.trained.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = self.model.encode(pictures).latent_dist
            drawn = self.model.decode(posterior.sample(generator)).sample
        drawn = drawn.float()
        loss = F.l1_loss(drawn, pictures) + recipe.edge_loss * edge_difference(drawn, pictures)
        loss = loss + recipe.square_loss * F.mse_loss(drawn, pictures)
        cells = (F.avg_pool2d(picture, 4) for picture in (drawn, pictures))
        loss = loss + recipe.colour_loss * F.l1_loss(*cells)
        distance = posterior.kl().mean().float() / posterior.mean[0].numel()
        return self.descend(loss + recipe.kl_loss * distance)

    def pick(self, generator: torch.Generator) -> Tensor:
        """A batch of drawings (B, 4, size, size) in [0, 1], of emoji and of icons."""
        icons = round(self.recipe.batch * self.recipe.icons)
        shares = (self.emoji, self.recipe.batch - icons), (self.icons, icons)
        picked = [
            drawings[torch.randint(len(drawings), (count,), generator=generator)]
            for drawings, count in shares
        ]
        return torch.cat(picked).permute(0, 3, 1, 2).float() / 255

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Of each adaptation style: how true the round trip is to drawings that were never seen."""
        self.model.eval()
        result, errors = {}, []
        with self.averaged():
            for style in TINY_STYLES:
                pictures = unseen_pictures(style)
                difference = (self._round_trip(pictures) - pictures).clamp(-2, 2)
                squared = difference.square().mean((1, 2, 3)) / 4
                result[f"PSNR {style}"] = round((-10 * squared.log10()).mean().item(), 2)
                errors.append(difference.abs().mean().item() * 127.5)
        result["PSNR"] = round(float(np.mean(list(result.values()))), 2)
        result["mean error"] = round(float(np.mean(errors)), 3)
        return result

    def _round_trip(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, size, size) in [-1, 1] through the latents and back."""
        parts = (self.model.encode(part).latent_dist.mode() for part in pictures.split(64))
        return torch.cat([self.model.decode(part).sample for part in parts]).clamp(-1, 1)

    @torch.no_grad()
    def write_model(self) -> None:
        """The autoencoder as diffusers saves it, with the shift and scale of its own latents."""
        drawings = self.emoji[:: max(1, len(self.emoji) // 2000)].permute(0, 3, 1, 2).float() / 255
        with self.averaged():
            parts = (2 * on_paper(drawings) - 1).split(64)
            latents = torch.cat([self.model.encode(part).latent_dist.mode() for part in parts])
            # As SD3's own: one shift and one scale that make the latents' mean 0 and spread 1.
            self.model.register_to_config(
                shift_factor=round(latents.mean().item(), 4),
                scaling_factor=round(1 / latents.std().item(), 4),
            )
            save_half(self.model, self.folder / self.name)

    def shipped_card(self) -> dict:
        return json.loads(tiny_file(f"{TINY_MODEL}.card.json").read_text("utf-8"))["autoencoder"]


@dataclass(frozen=True)
class DecoderRecipe:
    """What the decoder's own run depends on."""

    steps: int = 12000
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 200  # steps
    decay: float = 0.5  # share of the steps in which the rate falls
    edge_loss: float = 1.0  # weight of differences between neighbouring pixels
    icons: float = 0.4  # share of drawings that are icons, most of them in one ink
    coloured_paper: float = 0.25  # share of drawings that lie on a colour, often a dark one
    seed: int = 0


class DecoderPretraining(AutoencoderPretraining):
    """The decoder alone, further, on the logarithm that the signal-to-noise ratio is.

    The latents stay as they are, so the transformer fits before and after, as it does with the
    decoders that Stability AI tuned for Stable Diffusion 1 in this way (stabilityai/sd-vae-ft-mse).
    """

    name = "tiny-sd3-decoder"

    def __init__(
        self, folder: Path, recipe: DecoderRecipe, autoencoder: Path, asked: str = "sd3"
    ) -> None:
        self.autoencoder = autoencoder
        super().__init__(folder, recipe, asked)

    def build_model(self) -> AutoencoderKL:
        model = AutoencoderKL.from_pretrained(self.autoencoder)
        model.encoder.requires_grad_(False)
        return model

    def one_step(self) -> float:
        recipe = self.recipe
        generator = torch.Generator().manual_seed((recipe.seed + 1) * 7_000_003 + self.step)
        drawings = on_coloured_paper(self.pick(generator), recipe.coloured_paper, generator)
        pictures = vary(drawings, generator).contiguous(memory_format=torch.channels_last)
        self.trained.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                latents = self.model.encode(pictures).latent_dist.mode()
            drawn = self.model.decode(latents).sample
        drawn = drawn.float()
        squared = (drawn - pictures).square().mean((1, 2, 3))
        loss = (squared + 1e-4).log().mean()  # 1e-4: nobody sees what is more exact
        return self.descend(loss + recipe.edge_loss * edge_difference(drawn, pictures))

    def write_model(self) -> None:
        with self.averaged():
            save_half(self.model, self.folder / self.name)

    def card(self) -> dict:
        """The autoencoder's, with what is measured now and what this run was."""
        known = json.loads(self.autoencoder.with_suffix(".card.json").read_text("utf-8"))
        own = {key: value for key, value in super().card().items() if key in OWN_IN_CARD}
        return known | {"measured": own.pop("measured"), "decoder": own}


def seen_emoji() -> Tensor:
    """Drawings (N, size, size, 4), uint8, by all designers but OpenMoji, of no hidden concept."""
    hidden = hidden_codepoints()
    sets = [load_emoji(style, SIZE) for style in SEEN_STYLES]
    sets += [load_icons(style, SIZE) for style in ICON_STYLES]
    kept = [
        emoji.some([i for i, c in enumerate(emoji.concepts) if c.codepoints not in hidden])
        for emoji in sets
    ]
    return torch.from_numpy(np.concatenate(kept))


def unseen_pictures(style: str) -> Tensor:
    """A tiny style's pictures of hidden concepts (N, 3, size, size) in [-1, 1]; at most MEASURED."""
    emoji = load_emoji(TINY_STYLES[style].drawn_by, SIZE)
    positions = sorted(unseen_drawings(emoji))
    positions = positions[:: max(1, len(positions) // MEASURED)]
    pictures = np.stack([render(style, drawing) for drawing in emoji.some(positions)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def on_paper(drawings: Tensor) -> Tensor:
    """Drawings (B, 4, size, size) on white paper, (B, 3, size, size), both in [0, 1]."""
    return drawings[:, :3] * drawings[:, 3:] + 1 - drawings[:, 3:]


def on_coloured_paper(drawings: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Drawings (B, 4, size, size), this share of them without transparent places, on one colour each."""
    count, paint = len(drawings), drawings[:, 3:]
    paper = torch.rand(count, 3, 1, 1, generator=generator)
    paper = paper * torch.rand(count, 1, 1, 1, generator=generator)  # dark ones more often
    opaque = torch.cat([drawings[:, :3] * paint + (1 - paint) * paper, torch.ones_like(paint)], 1)
    return torch.where(chosen(count, share, generator), opaque, drawings)


def vary(drawings: Tensor, generator: torch.Generator) -> Tensor:
    """Drawings (B, 4, size, size) in [0, 1] as pictures (B, 3, size, size) in [-1, 1].

    Some are outlined, flipped, inverted, recoloured or made coarse: styles to come have such lines,
    such colours and such cells.
    """
    count = len(drawings)
    sheet = on_paper(drawings)
    outlined = sheet * (1 - edges(sheet, drawings[:, 3:]))
    pictures = 2 * torch.where(chosen(count, 0.25, generator), outlined, sheet) - 1
    pictures = torch.where(chosen(count, 0.5, generator), pictures.flip(3), pictures)
    pictures = torch.where(chosen(count, 0.2, generator), -pictures, pictures)
    # Emoji are mostly yellow, red and blue, which differ in red and blue alone: without exchanged
    # channels the latents soon carry no green.
    order = torch.rand(count, 3, 1, 1, generator=generator).argsort(1)
    exchanged = pictures.gather(1, order.expand_as(pictures))
    pictures = torch.where(chosen(count, 0.5, generator), exchanged, pictures)
    mix = torch.eye(3) + 0.3 * torch.randn(count, 3, 3, generator=generator)
    mixed = torch.einsum("nij,njhw->nihw", mix / mix.sum(2, keepdim=True), pictures).clamp(-1, 1)
    pictures = torch.where(chosen(count, 0.4, generator), mixed, pictures)
    coarse = F.interpolate(F.avg_pool2d(pictures, 4), scale_factor=4.0, mode="nearest")
    return torch.where(chosen(count, 0.1, generator), coarse, pictures)


def edge_difference(drawn: Tensor, pictures: Tensor) -> Tensor:
    """How far the steps between neighbouring pixels are from the picture's, on average."""
    return sum(F.l1_loss(drawn.diff(dim=axis), pictures.diff(dim=axis)) for axis in (2, 3))


def save_half(model: ModelMixin, folder: Path) -> None:
    """Config and float16 weights, as diffusers saves them; the model itself stays float32."""
    copy = deepcopy(model).half()
    copy.register_to_config(_name_or_path="")  # else a config tells where the weights once lay
    copy.save_pretrained(folder)
