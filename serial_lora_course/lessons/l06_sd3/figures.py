"""The noise levels of training, and the way between a picture and noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.sd3 import Sd3Lab, Sd3LabConfig
from serial_lora_course.labs.sd3_drawings import draw, starting_noise
from serial_lora_course.labs.sd3_inputs import decode_latents, encode_pictures
from serial_lora_course.measures.flow import TRAIN_TIMESTEPS, add_noise
from serial_lora_course.models.sd3 import Sd3Backbone
from serial_lora_course.plots.drawings import Row, draw_rows
from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    GREEN,
    INK,
    QUIET,
    VERMILION,
    house_style,
    with_description,
)


def plot_sigmas(levels: Mapping[str, Any], bins: int = 40) -> Figure:
    """How often each noise level comes up in training, as a histogram of those that were drawn.

    Args:
        levels: name ("plain", "shift 3") to noise levels (count,) between 0 and 1, as
            :func:`serial_lora_course.measures.flow.sample_sigmas` draws them.
        bins: of equal width.
    """
    columns = {name: np.asarray(values, float).ravel() for name, values in levels.items()}
    with house_style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for place, (name, values) in enumerate(columns.items()):
            label = f"{name}: half are below {np.median(values):.2f}"
            look = {"histtype": "stepfilled", "label": label, **_hist_look(place)}
            axes.hist(values, bins=bins, range=(0, 1), density=True, **look)
        axes.axhline(1, color=QUIET, linestyle=DASHED, label="all levels equally often")
        axes.set(
            xlim=(0, 1),
            xlabel="noise level σ (0: the picture, 1: noise alone)",
            ylabel="how often (density)",
        )
        figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    phrases = "; ".join(f"{name}: median {np.median(v):.2f}" for name, v in columns.items())
    return with_description(
        figure, f"Histogram of the noise levels that training draws, between 0 and 1. {phrases}."
    )


def _hist_look(place: int) -> dict[str, Any]:
    """Outlines that differ in line as well as in colour, and shine through one another."""
    colour = (BLUE, VERMILION, GREEN, INK)[place % 4]
    line = ("-", "--", ":", "-.")[place % 4]
    face = to_rgba(colour, 0.15)
    return {"edgecolor": colour, "facecolor": face, "linestyle": line, "linewidth": 1.8}


@dataclass(frozen=True)
class PathRow:
    """One row of :func:`plot_flow_path`.

    Attributes:
        title: what happens from left to right, such as "picture to noise".
        pictures: M latents of the path, decoded: pictures as in
            :func:`serial_lora_course.plots.pictures.show_pictures`.
        sigmas: (M,), the share of noise in each, from 0 to 1.
        steps: how many steps of the sampler lie behind each; None where nothing was sampled.
    """

    title: str
    pictures: Sequence[Any]
    sigmas: Sequence[float]
    steps: Sequence[int] | None = None

    @property
    def captions(self) -> list[str]:
        """How much noise each picture has, and after how many steps."""
        noise = [f"σ = {float(sigma):.2f}" for sigma in self.sigmas]
        if self.steps is None:
            return noise
        return [f"after {step}: {words}" for step, words in zip(self.steps, noise, strict=True)]


def plot_flow_path(rows: Sequence[PathRow]) -> Figure:
    """A picture on its straight path to noise, and a sampler's way from noise to a drawing.

    Args:
        rows: such as the path of one picture, and the steps of one drawing.
    """
    figure = draw_rows([Row(row.title, row.pictures, below=row.captions) for row in rows])
    phrases = "; ".join(f"{row.title} ({', '.join(row.captions)})" for row in rows)
    return with_description(
        figure, f"Latents between picture (σ = 0) and noise (σ = 1), decoded. Rows: {phrases}."
    )


def noise_row(
    backbone: Sd3Backbone,
    picture: Image.Image,
    sigmas: Sequence[float],
    seed: int = 0,
    config: Sd3LabConfig | None = None,
) -> PathRow:
    """A picture on its straight path to noise: (1 - sigma) x + sigma n, decoded.

    Args:
        picture: as the lab takes them, of any size.
        sigmas: how much noise, numbers from 0 to 1.
        seed: of the noise n, the same at every sigma.
        config: of the lab, for the resolution; None for the scale's own.
    """
    side = (config or Sd3Lab.configs[backbone.scale]).resolution
    levels = torch.as_tensor(sigmas, dtype=torch.float32)
    latent = encode_pictures(backbone, [picture], side)
    points = add_noise(latent, starting_noise(backbone, [seed], side), levels)
    return PathRow("picture to noise", decode_latents(backbone, points), levels.tolist())


def sampler_row(
    backbone: Sd3Backbone,
    prompt: str,
    after: Sequence[int],
    seed: int = 0,
    config: Sd3LabConfig | None = None,
) -> PathRow:
    """A drawing while it is made, by the model as it is: the latent after some of the steps.

    Args:
        after: numbers of steps, from 0 (noise alone) to the config's ``drawing_steps``.
        config: of the lab, for steps, guidance and resolution; None for the scale's own.

    Raises:
        SerialLoRAError: a step that is not taken.
    """
    config = config or Sd3Lab.configs[backbone.scale]
    last = config.drawing_steps
    wrong = [step for step in after if not 0 <= step <= last]
    if wrong:
        raise SerialLoRAError(f"there are {last} steps, and step {wrong[0]} is none of them.")
    seen: list[tuple[Tensor, float]] = []

    def look(_: Any, __: tuple, arguments: dict[str, Any]) -> None:
        # With guidance the latent comes twice, once for the empty prompt and once for this one.
        latent = arguments["hidden_states"][:1].float().cpu()
        seen.append((latent, arguments["timestep"][0].item() / TRAIN_TIMESTEPS))

    handle = backbone.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        drawn = draw(
            backbone,
            [prompt],
            [seed],
            last,
            config.guidance,
            config.resolution,
            precision=config.precision,
        )
    finally:
        handle.remove()
    on_the_way = decode_latents(backbone, torch.cat([latent for latent, _ in seen]))
    pictures = [drawn[0] if step == last else on_the_way[step] for step in after]
    sigmas = [0.0 if step == last else seen[step][1] for step in after]
    return PathRow("noise to drawing", pictures, sigmas, list(after))
