"""Rectified flow against finite differences, diffusers' own sampling and plain loops."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from hypothesis import given
from hypothesis import strategies as st

from serial_lora_course.measures.flow import TRAIN_TIMESTEPS, sample_sigmas, shift_sigmas


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
