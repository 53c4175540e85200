"""Rectified flow against finite differences, diffusers' own sampling and plain loops."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from hypothesis import given
from hypothesis import strategies as st

from serial_lora_course.measures.flow import (
    TRAIN_TIMESTEPS,
    add_noise,
    flow_loss,
    sample_sigmas,
    shift_sigmas,
    velocity,
)

shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def pair(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))


@given(shapes, st.floats(0.05, 0.95))
def test_the_velocity_is_the_derivative_of_the_path(shape, sigma):
    latents, noise = pair(shape)
    step = 1e-6
    before, after = (
        add_noise(latents, noise, torch.full((shape[0],), at, dtype=torch.float64))
        for at in (sigma - step, sigma + step)
    )
    torch.testing.assert_close(
        (after - before) / (2 * step), velocity(latents, noise), atol=1e-6, rtol=1e-6
    )


@given(st.floats(-1, 1), st.floats(0.2, 2))
def test_noise_levels_are_those_of_diffusers(mean, std):
    ours = sample_sigmas(500, mean, std, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(3)
    theirs = compute_density_for_timestep_sampling("logit_normal", 500, mean, std)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_shift_is_the_schedulers(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    plain = FlowMatchEulerDiscreteScheduler(shift=1.0).sigmas
    torch.testing.assert_close(shift_sigmas(plain, shift), scheduler.sigmas)
    torch.testing.assert_close(scheduler.sigmas * TRAIN_TIMESTEPS, scheduler.timesteps)


def test_the_weighting_of_the_script_compares_pictures():
    latents, noise = pair((5, 2, 3, 3))
    sigmas = torch.rand(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    predicted = velocity(latents, noise) + 0.3
    there, level = add_noise(latents, noise, sigmas), sigmas.view(-1, 1, 1, 1)
    pictures = there - level * predicted  # the script's "preconditioned" output
    torch.testing.assert_close(
        flow_loss(predicted, velocity(latents, noise), sigmas, "sigma_squared").double(),
        (pictures - latents).square().mean((1, 2, 3)).mean(),
        atol=1e-5,
        rtol=1e-5,
    )
