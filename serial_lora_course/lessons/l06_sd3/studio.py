"""A small studio around an SD3, and questions to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from serial_lora.attention import find_attention_sites
from serial_lora.config import STREAMS, LoRAConfig, SerialLoRAConfig
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.data.types import StyleExample
from serial_lora_course.frontend import is_static
from serial_lora_course.labs import sd3 as lab
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.lesson import Lesson
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Record
from serial_lora_course.labs.sd3_drawings import starting_noise
from serial_lora_course.labs.sd3_inputs import (
    EncodedPicture,
    Prompts,
    TrainingExample,
    decode_latents,
    encode_style,
    on_device,
    to_square,
)
from serial_lora_course.lessons.l06_sd3.known_pictures import known_pictures
from serial_lora_course.measures.counts import enumerate_count
from serial_lora_course.measures.flow import TRAIN_TIMESTEPS, sample_sigmas
from serial_lora_course.measures.pictures import (
    frechet_distance,
    kernel_distance,
)
from serial_lora_course.models.sd3 import Sd3Backbone

Encoded = Sequence[EncodedPicture]
Layers = Callable[[nn.Module, str], list[str]]


flow_path = lab.flow_path


class Tuned(NamedTuple):
    """An SD3 with its adapter, the record of the run, and drawings for the eight prompts."""

    backbone: Sd3Backbone
    record: Record
    drawings: np.ndarray  # (8, side, side, 3)


class Studio:
    """The lesson's SD3 with test prompts, pictures that it knows, and what it was tuned to.

    What takes long is done when it is first asked for, and remembered.

    Attributes:
        trial: the test prompts, read, and the style's held-out pictures.
        words, asked, seeds: of eight test prompts at equal distances: in words, read, and the seeds of
            the noise that their drawings start from; ``picked`` are their places in the trial.
        known, encoded: pictures such as were seen in pretraining, as they are and encoded.
        levels: a noise level for each of these.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.lesson, self.model, self.data = lesson, lesson.model, lesson.data
        self.side = lesson.config.resolution  # of a picture, in pixels
        self.trial = lab.prepare_trial(lesson.backbone, lesson.judge, self.data, lesson.tests)
        count = len(self.trial.captions)
        self.picked = list(range(count // 8 // 2, count, max(1, count // 8)))[:8]
        self.words = [self.trial.captions[index] for index in self.picked]
        self.asked, self.seeds = self.trial.prompts.rows(self.picked), self.picked
        self.known = known_pictures(lesson.scale)
        self.encoded = self.encode(self.known.examples)
        generator = torch.Generator().manual_seed(0)
        self.levels = sample_sigmas(len(self.encoded), generator=generator)

    def encode(self, examples: Sequence[StyleExample]) -> Encoded:
        """Latent and prompt of each picture."""
        return list(encode_style(self.lesson.backbone, examples, self.side).values())

    def batch(self, encoded: Encoded, sigmas: Tensor, seed: int = 0) -> TrainingExample:
        """Encoded pictures with noise, so much of it each, where the transformer is."""
        latents, tokens, pooled = (torch.stack(part) for part in zip(*encoded, strict=True))
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        parts = (latents, tokens, pooled, noise, sigmas)
        return TrainingExample(*(part.to(self.lesson.device) for part in parts))

    @torch.no_grad()
    def loss(self, batch: TrainingExample) -> Tensor:
        """The lab's loss of a batch, a scalar."""
        with self.lesson.autocast():
            return lab.StyleObjective(self.model)(batch)

    @torch.no_grad()
    def answer(self, points: Tensor, sigmas: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        """The transformer's velocity at points (B, c, h, w) with noise levels (B,)."""
        with self.lesson.autocast():
            (velocity,) = self.model(
                hidden_states=points,
                timestep=TRAIN_TIMESTEPS * sigmas,
                encoder_hidden_states=tokens,
                pooled_projections=pooled,
                return_dict=False,
            )
        return velocity

    def velocity_of(self, prompts: Prompts) -> Callable[[Tensor, float], Tensor]:
        """For a sampler: latents (B, c, h, w) and one noise level -> the velocity for these prompts."""
        tokens, pooled = (part.to(self.lesson.device) for part in (prompts.tokens, prompts.pooled))

        def velocity(latents: Tensor, sigma: float) -> Tensor:
            some = [part.expand(len(latents), *part.shape[1:]) for part in (tokens, pooled)]
            return self.answer(latents, torch.full((len(latents),), sigma).to(latents), *some)

        return velocity

    def noise(self, some: int = 8) -> Tensor:
        """Where the drawings of the first of the eight prompts start: (some, c, h, w)."""
        start = starting_noise(self.lesson.backbone, self.seeds[:some], self.side)
        return start.to(self.lesson.device)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Drawings out of latents: uint8, (N, side, side, 3)."""
        return decode_latents(self.lesson.backbone, latents.cpu())

    def draw(
        self, sd3: Sd3Backbone | None = None, some: int = 8, guidance: float | None = None
    ) -> np.ndarray:
        """What the stock pipeline draws for the first of the eight prompts: uint8, (some, ...)."""
        config = self.lesson.config
        return lab.draw(
            sd3 or self.lesson.backbone,
            self.asked.rows(slice(some)),
            self.seeds[:some],
            config.drawing_steps,
            config.guidance if guidance is None else guidance,
            self.side,
            self.trial.empty,
            self.lesson.precision,
        )

    @cached_property
    def encoded_style(self) -> tuple[dict[str, EncodedPicture], float]:
        """The training pictures of a run with their captions, encoded; the seconds it took."""
        started = time.perf_counter()
        chosen = training_subset(self.data, self.lesson.amount, 1)
        examples = [self.data.train[index] for index in chosen]
        style = encode_style(self.lesson.backbone, examples, self.side)
        return style, time.perf_counter() - started

    @cached_property
    def untuned(self) -> tuple[np.ndarray, dict[str, float]]:
        """What SD3, not adapted, draws for the test prompts, (N, side, side, 3), and its scores."""
        drawings = self.lesson.lab(trial=self.trial).draw()
        return drawings, self.score(drawings)

    def score(self, drawings: np.ndarray | Sequence) -> dict[str, float]:
        """What pictures, one for each test prompt, are worth."""
        return lab.score_pictures(drawings, self.trial, self.lesson.judge, self.data.name)

    @cached_property
    def held_out(self) -> list:
        """The style's own pictures for the test prompts."""
        return [self.data.test[index].picture for index in self.trial.seeds]

    def tune(self, name: str, path: Callable = flow_path) -> Tuned:
        """A twin of the SD3, tuned by one method on a part of the training pictures.

        Args:
            path: (latents, noise, sigmas) -> points and velocities, as the loss takes them.
        """
        own = self.lesson.twin()
        base = {f"base_{measure}": value for measure, value in self.untuned[1].items()}
        task = self.lesson.lab(own, base=base, trial=self.trial, encoded=self.encoded_style[0])
        task.path = path
        settings = {"progress": not is_static(), "keep_adapter": True}
        record = run_one(task, get_method(name), self.lesson.amount, 1, **settings)
        return Tuned(own, record, self.draw(own))

    @cached_property
    def halves_apart(self) -> pd.DataFrame:
        """FID and KID of N real pictures of the style beside N others, for some N; mean of draws."""
        judge, data = self.lesson.judge, self.data
        most = min(200, len(data.train), len(data.test))
        halves = [
            judge.picture_features([part[index].picture for index in range(most)])
            for part in (data.train, data.test)
        ]  # (N, d) each
        rng, rows = torch.Generator().manual_seed(0), {}
        for count in (most // 8, most // 4, most // 2, most):
            draws = [
                [half[torch.randperm(most, generator=rng)[:count]] for half in halves]
                for _ in range(1 if count == most else 8)
            ]  # of all there is only one draw
            fids = torch.tensor([frechet_distance(*pair) for pair in draws])
            kids = torch.tensor([kernel_distance(*pair)[0] for pair in draws])
            spread = kids.std() if len(draws) > 1 else torch.tensor(torch.nan)
            measures = {"FID": fids.mean(), "KID": kids.mean(), "± over draws": spread}
            rows[count] = {name: value.item() for name, value in measures.items()}
        return pd.DataFrame(rows).T.rename_axis("pictures on each side")

    @torch.no_grad()
    def _each_through(self, layer: Callable, tensors: Tensor) -> Tensor:
        with on_device(self.lesson.backbone, self.lesson.backbone.pipeline.vae) as where:
            return torch.cat([layer(each[None].to(where)).cpu() for each in tensors])

    @cached_property
    def pixels(self) -> Tensor:
        """The known pictures, (N, 3, side, side)."""
        return torch.stack([to_square(each.picture, self.side) for each in self.known.examples])

    def raw_latents(self) -> Tensor:
        """What the autoencoder makes of the known pictures, neither shifted nor scaled."""
        vae = self.lesson.backbone.pipeline.vae
        return self._each_through(lambda x: vae.encode(x).latent_dist.mode(), self.pixels)

    def trip(self, latents: Tensor, decoded: Tensor) -> dict[str, float]:
        """The latents' mean and spread, the error of the round trip, and the transformer's loss.

        Args:
            latents: what the transformer gets; ``decoded``: what the decoder gets.
        """
        vae = self.lesson.backbone.pipeline.vae
        back = self._each_through(lambda z: vae.decode(z).sample, decoded).clamp(-1, 1)
        batch = self.batch(self.encoded, self.levels)._replace(
            latent=latents.to(self.lesson.device)
        )
        return {
            "mean": latents.mean().item(),
            "spread": latents.std().item(),
            "round trip": 127.5 * (back - self.pixels).abs().mean().item(),
            "loss": self.loss(batch).item(),
        }

    def loss_by_level(self) -> pd.DataFrame:
        """Where the loss comes from: how often each fifth of the noise levels comes up, and its error."""
        many = sample_sigmas(100_000, generator=torch.Generator().manual_seed(1))
        rows = {}
        for low in (0.0, 0.2, 0.4, 0.6, 0.8):
            middle = torch.full((len(self.encoded),), low + 0.1)
            error = self.loss(self.batch(self.encoded, middle)).item()
            often = ((many >= low) & (many < low + 0.2)).float().mean().item()
            row = {"how often": often, "error": error, "plain": often * error}
            rows[f"{low:.1f} to {low + 0.2:.1f}"] = row | {
                "σ² weighted": row["plain"] * (low + 0.1) ** 2
            }
        table = pd.DataFrame(rows).T.rename_axis("noise level")
        table[["plain", "σ² weighted"]] /= table[["plain", "σ² weighted"]].sum()
        return table

    def wrong_captions(self, pictures: Encoded) -> dict[str, float]:
        """The loss with every picture's own caption and with the next one's."""
        following = [*pictures[1:], pictures[0]]
        exchanged = [
            mine._replace(tokens=other.tokens, pooled=other.pooled)
            for mine, other in zip(pictures, following, strict=True)
        ]
        own, other = (
            torch.stack(
                [self.loss(self.batch(each, self.levels[: len(each)], seed)) for seed in range(3)]
            )
            for each in (pictures, exchanged)
        )
        return {
            "own captions": own.mean().item(),
            "another's": other.mean().item(),
            "difference": (other.mean() / own.mean() - 1).item(),
            "by the noise alone": (own.std() / own.mean()).item(),
        }

    def stock_drawings(self, stock: StableDiffusion3Pipeline) -> Tensor:
        """What another pipeline draws for the eight prompts: (8, side, side, 3), 0 to 255."""
        backbone = replace(self.lesson.backbone, model=stock.transformer, pipeline=stock)
        return torch.as_tensor(self.draw(backbone)).float()

    def forget(self) -> None:
        """Drop what was remembered."""
        for name in ("encoded_style", "untuned", "held_out", "halves_apart", "pixels"):
            self.__dict__.pop(name, None)


def heard_by(attention: nn.Module, run: Callable[[], object]) -> dict[str, Any]:
    """What a hook on arguments by position hears at a layer, and one on arguments by keyword."""
    heard: dict[str, Any] = {}

    def plain(layer: nn.Module, positional: tuple) -> None:
        heard["arguments by position"] = len(positional)

    def named(layer: nn.Module, positional: tuple, keywords: dict[str, Tensor]) -> None:
        heard.update({name: tuple(value.shape) for name, value in keywords.items()})

    hooks = [attention.register_forward_pre_hook(plain)]
    hooks.append(attention.register_forward_pre_hook(named, with_kwargs=True))
    run()
    for hook in hooks:
        hook.remove()
    return heard


def stream_costs(models: Mapping[str, tuple[nn.Module, int]], layers_of: Layers) -> pd.DataFrame:
    """What each choice of stream costs: places of Serial LoRA, layers of LoRA, parameters of both.

    Args:
        models: scale -> a transformer and the rank.
    """
    rows = []
    for scale, (transformer, rank) in models.items():
        for stream in STREAMS:
            serial = enumerate_count(transformer, SerialLoRAConfig(rank, stream=stream))
            lora = enumerate_count(transformer, LoRAConfig(rank, stream=stream))
            row = {"scale": scale, "rank": rank, "stream": stream}
            row["places"] = len(find_attention_sites(transformer, stream=stream))
            row["layers"] = len(layers_of(transformer, stream))
            rows.append(
                row | {"Serial LoRA": serial, "LoRA": lora, "ratio": f"{lora / serial:.2f}"}
            )
    return pd.DataFrame(rows)


def dealt(names: Sequence[str], latents_of: Callable[[int, Tensor], Tensor]) -> pd.DataFrame:
    """Three rounds over shuffled pictures, two a step: whose latent meets whose caption.

    Picture i shows ``names[i]``, and its latent is the number i.

    Args:
        latents_of: step of the round, positions (2,) -> the latents of that step.
    """
    shuffle, rows = torch.Generator().manual_seed(0), []
    for round_number in (1, 2, 3):
        for step, positions in enumerate(torch.randperm(len(names), generator=shuffle).split(2)):
            latents = latents_of(step, positions)
            for latent, position in zip(latents.tolist(), positions.tolist(), strict=True):
                row = {"round": round_number, "latent of": names[latent]}
                rows.append(row | {"caption": names[position]})
    table = pd.DataFrame(rows)
    return table.assign(right=table["latent of"] == table["caption"])


def named_pictures(names: Sequence[str], positions: Tensor) -> list[SimpleNamespace]:
    """Those pictures as examples, with nothing but their ``picture_id``."""
    return [SimpleNamespace(picture_id=names[index]) for index in positions.tolist()]
