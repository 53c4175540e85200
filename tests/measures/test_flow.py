"""Rectified flow against finite differences, diffusers' own sampling and plain loops."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling

from serial_lora_course.measures.flow import (
    TRAIN_TIMESTEPS,
    add_noise,
    flow_loss,
    sample_sigmas,
    shift_sigmas,
    velocity,
)


def test_noise_levels_are_those_of_diffusers():
    ours = sample_sigmas(500, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    theirs = compute_density_for_timestep_sampling("logit_normal", 500, 0.0, 1.0)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_shift_is_the_schedulers(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    plain = FlowMatchEulerDiscreteScheduler(shift=1.0).sigmas
    torch.testing.assert_close(shift_sigmas(plain, shift), scheduler.sigmas)
    torch.testing.assert_close(scheduler.sigmas * TRAIN_TIMESTEPS, scheduler.timesteps)


def test_the_weighted_loss_compares_pictures_as_the_published_script_does():
    """Those that a velocity leads back to, x_sigma - sigma v, with the pictures themselves."""
    pictures, noise, error = torch.randn(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.1, 0.4, 0.7, 0.9])
    found = velocity(pictures, noise) + error
    led_to = add_noise(pictures, noise, sigmas) - sigmas.view(-1, 1, 1, 1) * found
    loss = flow_loss(found, velocity(pictures, noise), sigmas, "sigma_squared")
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(led_to, pictures))
