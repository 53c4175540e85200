"""The noise levels of training, and the way between a picture and noise.

A latent with noise in it is still a latent, so the autoencoder can show what it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from serial_lora_course.labs.sd3 import Sd3LabConfig
from serial_lora_course.labs.sd3_drawings import draw, starting_noise
from serial_lora_course.labs.sd3_inputs import decode_latents, encode_pictures
from serial_lora_course.measures.flow import TRAIN_TIMESTEPS, add_noise
from serial_lora_course.models.sd3 import Sd3Backbone
from serial_lora_course.plots.drawings import Row
from serial_lora_course.plots.style import (
    BLUE,
    DASHED,
    QUIET,
    VERMILION,
    house_style,
    with_description,
)


def plot_sigmas(levels: Mapping[str, Any], bins: int = 40) -> Figure:
    """How often each noise level comes up in training, as a histogram of those that were drawn.

    Args:
        levels: two names, such as "plain" and "shift 3", to noise levels (count,) between 0 and 1.
    """
    medians = {name: float(np.median(values)) for name, values in levels.items()}
    with house_style():
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for (name, values), colour in zip(levels.items(), (BLUE, VERMILION), strict=False):
            look = {"edgecolor": colour, "facecolor": to_rgba(colour, 0.15), "linewidth": 1.8}
            look |= {"histtype": "stepfilled", "linestyle": "-" if colour == BLUE else "--"}
            label = f"{name}: half are below {medians[name]:.2f}"
            axes.hist(np.asarray(values), bins, (0, 1), density=True, label=label, **look)
        axes.axhline(1, color=QUIET, linestyle=DASHED, label="all levels equally often")
        axes.set(xlim=(0, 1), xlabel="noise level σ (0: the picture, 1: noise alone)")
        axes.set_ylabel("how often (density)")
        figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    words = "; ".join(f"{name}: median {median:.2f}" for name, median in medians.items())
    return with_description(figure, f"Histogram of training's noise levels. {words}.")


def noise_row(
    backbone: Sd3Backbone,
    picture: Image.Image,
    sigmas: Sequence[float],
    seed: int,
    config: Sd3LabConfig,
) -> Row:
    """A picture on its straight path to noise: (1 - sigma) x + sigma n, decoded.

    Args:
        sigmas: how much noise, numbers from 0 to 1.
        seed: of the noise n, the same at every sigma.
    """
    levels = torch.as_tensor(sigmas, dtype=torch.float32)
    latent = encode_pictures(backbone, [picture], config.resolution)
    noise = starting_noise(backbone, [seed], config.resolution)
    points = decode_latents(backbone, add_noise(latent, noise, levels))
    return Row("picture to noise", points, [f"σ = {sigma:.2f}" for sigma in sigmas])


def sampler_row(
    backbone: Sd3Backbone, prompt: str, after: Sequence[int], seed: int, config: Sd3LabConfig
) -> Row:
    """A drawing while it is made, by the model as it is: the latent after some of the steps.

    Args:
        after: numbers of steps, from 0 (noise alone) to the config's ``drawing_steps``.
    """
    last, seen, sigmas = config.drawing_steps, [], []

    def look(_: Any, __: tuple, arguments: dict[str, Tensor]) -> None:
        # With guidance the latent comes twice, once for the empty prompt and once for this one.
        seen.append(arguments["hidden_states"][:1].float().cpu())
        sigmas.append(arguments["timestep"][0].item() / TRAIN_TIMESTEPS)

    handle = backbone.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        size, precision = config.resolution, config.precision
        drawn = draw(backbone, [prompt], [seed], last, config.guidance, size, precision=precision)
    finally:
        handle.remove()
    on_the_way = [*decode_latents(backbone, torch.cat(seen)), drawn[0]]
    captions = [f"after {step}: σ = {[*sigmas, 0.0][step]:.2f}" for step in after]
    return Row("noise to drawing", [on_the_way[step] for step in after], captions)
