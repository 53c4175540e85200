"""Rectified flow, as pure functions: the straight path from picture to noise and its velocity.

A latent x and noise n are joined by a straight line, x_sigma = (1 - sigma) x + sigma n, and the
model is asked for the line's velocity, n - x (Esser et al. 2024, "Scaling Rectified Flow
Transformers", sections 2 and 3; Liu et al. 2023, "Flow Straight and Fast"). None of this knows a
model or a pipeline.
"""

from __future__ import annotations

import torch
from torch import Tensor

from serial_lora.errors import require_choice

TRAIN_TIMESTEPS = 1000  # the model is told sigma as a timestep out of a thousand


def sample_sigmas(
    count: int, shift: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Noise levels (count,) in (0, 1): logit-normal, of mean 0 and deviation 1, then shifted.

    Middling levels, where there is most to learn, come up most (Esser et al. 2024, section 3.1,
    "logit-normal sampling"); ``compute_density_for_timestep_sampling`` of diffusers draws the same.
    """
    normal = torch.randn(count, generator=generator)
    return shift_sigmas(torch.sigmoid(normal), shift)


def shift_sigmas(sigmas: Tensor, shift: float) -> Tensor:
    """Noise levels moved towards one: shift sigma / (1 + (shift - 1) sigma), for large pictures.

    The more pixels a picture has, the more noise it takes to hide it (Esser et al. 2024, eq. 23;
    SD3 medium has shift 3). A scheduler's ``sigmas`` are shifted already: never do it twice.
    """
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """The points (1 - sigma) x + sigma n on the straight path; latents, noise (B, c, h, w)."""
    sigmas = sigmas.view(-1, 1, 1, 1)
    return (1 - sigmas) * latents + sigmas * noise


def velocity(latents: Tensor, noise: Tensor) -> Tensor:
    """What the model is asked for: the derivative n - x of the path, the same at every sigma."""
    return noise - latents


WEIGHTINGS = ("plain", "sigma_squared")


def flow_loss(
    predicted: Tensor, target: Tensor, sigmas: Tensor, weighting: str = "plain"
) -> Tensor:
    """Mean squared error of the predicted velocity, a scalar.

    Args:
        predicted, target: velocities (B, c, h, w).
        sigmas: noise levels (B,).
        weighting: ``plain``, or ``sigma_squared``, as the published training script has it without saying
            so: by default (``precondition_outputs=1``) it compares predicted pictures x_sigma - sigma v,
            whose error is sigma times the velocity's, so nearly clean pictures hardly count.
    """
    require_choice("weighting", weighting, WEIGHTINGS)
    error = (predicted.float() - target.float()).square().mean((1, 2, 3))  # (B,)
    if weighting == "sigma_squared":
        error = error * sigmas.square()
    return error.mean()


def drop_text(count: int, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Which of ``count`` pictures lose their prompt, bool (count,).

    Trained with the empty prompt now and then, the model learns to draw without one, and guidance
    needs both answers (Ho and Salimans 2022, "Classifier-free Diffusion Guidance").
    """
    return torch.rand(count, generator=generator) < share
