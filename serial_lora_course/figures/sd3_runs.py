"""Pictures of the SD3 lab's runs: the drawings on one sheet, and what lies between noise and drawing.

A latent with noise in it is still a latent, so the autoencoder can show what it holds. That is how
the rows of :func:`serial_lora_course.figures.drawings.plot_flow_path` are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from serial_lora.errors import SerialLoRAError
from serial_lora_course.figures.drawings import PathRow, plot_sheet
from serial_lora_course.figures.style import SCREEN_DPI, save_figure
from serial_lora_course.files import refusals_told
from serial_lora_course.labs.methods import Method
from serial_lora_course.labs.sd3 import Sd3Lab, Sd3LabConfig
from serial_lora_course.labs.sd3_drawings import draw, starting_noise
from serial_lora_course.labs.sd3_inputs import decode_latents, encode_pictures
from serial_lora_course.measures.flow import TRAIN_TIMESTEPS, add_noise
from serial_lora_course.models.sd3 import Sd3Backbone

ON_A_SHEET = 40


@refusals_told()
def draw_run(folder: Path, lab: Sd3Lab, method: Method, drawn: np.ndarray, name: str) -> Path:
    """Write the first drawings of a run, each with its prompt, on one sheet.

    Args:
        drawn: uint8, (N, height, width, 3), for the prompts of the lab's trial.
    """
    sheet = plot_sheet(drawn[:ON_A_SHEET], lab.trial.captions[:ON_A_SHEET])
    path = folder / f"{name}.png"
    return save_figure(
        sheet, path, dpi=SCREEN_DPI
    )  # at which each pixel is a whole number of pixels


# ----------------------------------------------------------------------- between noise and drawing


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
