"""Pretraining of the tiny SD3's autoencoder: a drawing of 64 pixels to 16 x 16 latents and back.

It learns every style of `serial_lora_course.data.emoji`, in changing colours, so that whatever style the
transformer is tuned to later fits through it. Drawings of hidden concepts
(`serial_lora_course.data.emoji_sets`) are left out and measure it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ModelMixin
from torch import Tensor

from data_scripts.pretraining.augment import chosen
from data_scripts.pretraining.loop import PretrainingRun
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import STYLES, load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints

SIZE = 64
MEASURED = 512  # drawings
IN_COLOUR = ("twemoji", "openmoji")


@dataclass(frozen=True)
class Recipe:
    """What the autoencoder's run depends on."""

    minutes: float = 12.0
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.03  # fraction of the time
    edge_loss: float = 0.5  # weight of differences between neighbouring pixels
    colour_loss: float = 2.0  # weight of the colour of cells of 4 x 4 pixels
    in_colour: float = 0.8  # share of drawings from the coloured styles
    kl_loss: float = 1e-3  # weight of a latent number's distance from a standard normal
    start: str = ""  # folder of weights to go on from; empty for none
    seed: int = 0


def build_autoencoder() -> AutoencoderKL:
    """SD3's autoencoder at a small size: 64 pixels to 16 x 16 latents of 8 channels."""
    widths = (32, 64, 64)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=8,
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

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        super().__init__(folder, recipe, recipe.minutes)
        self.seen = {style: drawings(style, hidden=False) for style in STYLES}
        self.unseen = torch.cat([drawings(style, hidden=True) for style in STYLES])
        model = start_from(recipe.start, AutoencoderKL, "vae") or build_autoencoder()
        self.set_up(model.to(memory_format=torch.channels_last), average=0.998)

    def one_step(self) -> float:
        recipe = self.recipe
        self.set_learning_rate(recipe.learning_rate, self.seconds / self.budget, recipe.warmup)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self.step)
        pictures = vary(to_model(self._pick(generator)), generator)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        self.trained.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = self.model.encode(pictures).latent_dist
            drawn = self.model.decode(posterior.sample(generator)).sample
        drawn = drawn.float()
        loss = F.l1_loss(drawn, pictures) + recipe.edge_loss * edge_difference(drawn, pictures)
        cells = (F.avg_pool2d(picture, 4) for picture in (drawn, pictures))
        loss = loss + recipe.colour_loss * F.l1_loss(*cells)
        distance = posterior.kl().mean().float() / posterior.mean[0].numel()
        return self.descend(loss + recipe.kl_loss * distance)

    def _pick(self, generator: torch.Generator) -> Tensor:
        """A batch of drawings, most of them in colour."""
        picked = []
        for name, style in self.seen.items():
            share = self.recipe.in_colour if name in IN_COLOUR else 1 - self.recipe.in_colour
            count = round(self.recipe.batch * share / 2)  # two styles are coloured, two are not
            picked.append(style[torch.randint(len(style), (count,), generator=generator)])
        return torch.cat(picked)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Error of the round trip, in grey levels of 255, on drawings that it is not trained on."""
        self.model.eval()
        chance = torch.Generator().manual_seed(0)
        picked = torch.randperm(len(self.unseen), generator=chance)[:MEASURED]
        pictures = to_model(self.unseen[picked])
        with self.averaged(), torch.autocast("cpu", dtype=torch.bfloat16):
            means = [self.model.encode(part).latent_dist.mode() for part in pictures.split(64)]
            drawn = torch.cat([self.model.decode(part).sample.float() for part in means])
        error = (drawn.clamp(-1, 1) - pictures).abs().mean((0, 2, 3)) * 127.5
        squared = (drawn.clamp(-1, 1) - pictures).square().mean((1, 2, 3)) / 4
        return {
            "mean error": round(error.mean().item(), 3),
            "mean error, worst channel": round(error.max().item(), 3),
            "PSNR": round((-10 * squared.log10()).mean().item(), 2),
        }

    @torch.no_grad()
    def write_model(self) -> None:
        """The autoencoder as diffusers saves it, with the shift and scale of its own latents."""
        with self.averaged():
            parts = to_model(torch.cat([style[::4] for style in self.seen.values()])).split(64)
            latents = torch.cat([self.model.encode(part).latent_dist.mode() for part in parts])
            # As SD3's own: one shift and one scale that make the latents' mean 0 and spread 1.
            self.model.register_to_config(
                shift_factor=round(latents.mean().item(), 4),
                scaling_factor=round(1 / latents.std().item(), 4),
            )
            save_half(self.model, self.folder / self.name)

    def card(self) -> dict:
        command = f"sd3 --autoencoder-minutes {self.recipe.minutes:g}"
        return self.facts(command + say_start(self.recipe.start)) | {
            "measured": {
                "what": f"round trip of {MEASURED} drawings of hidden concepts, in the four "
                "styles: mean absolute error in grey levels of 255, of all channels and of the "
                "worst; peak signal-to-noise ratio in decibels",
                **self.measured(),
            }
        }


def start_from(folder: str, kind: type[ModelMixin], part: str) -> ModelMixin | None:
    """A part of an earlier pretraining's result in float32, to go on from; None without a folder.

    Raises:
        SerialLoRAError: the folder has no such part.
    """
    if not folder:
        return None
    try:
        return kind.from_pretrained(Path(folder) / part, local_files_only=True).float()
    except (OSError, ValueError) as error:
        raise SerialLoRAError(
            f"{folder} has no {part} to go on from; give --start the folder of an earlier "
            "pretraining's result, such as serial_lora_course/assets/weights/tiny-sd3."
        ) from error


def say_start(folder: str) -> str:
    """The option of a command line that started from a folder; its name will do for a card."""
    return f" --start {Path(folder).name}" if folder else ""


def save_half(model: ModelMixin, folder: Path) -> None:
    """Config and float16 weights, as diffusers saves them; the model itself stays float32."""
    copy = deepcopy(model).half()
    copy.register_to_config(_name_or_path="")  # else a config tells where the weights once lay
    copy.save_pretrained(folder)


def drawings(style: str, hidden: bool) -> Tensor:
    """The drawings (N, size, size, 3), uint8, of the concepts that are hidden, or are not."""
    emoji, hidden_ones = load_emoji(style, SIZE), hidden_codepoints()
    return torch.from_numpy(
        np.stack(
            [
                np.asarray(emoji.picture(index))
                for index, concept in enumerate(emoji.concepts)
                if (concept.codepoints in hidden_ones) == hidden
            ]
        )
    )


def to_model(pictures: Tensor) -> Tensor:
    """uint8 (B, size, size, 3) to float32 (B, 3, size, size) in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def vary(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, invert, recolour or coarsen some: styles to come have such colours and such cells."""
    count = len(pictures)
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
