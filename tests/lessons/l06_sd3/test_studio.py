"""What a learner writes in lesson 06 is what the lab computes."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from serial_lora_course.checking.solved import solved
from serial_lora_course.labs.sd3_pictures import decode_latents, draw, read_prompts, starting_noise
from tests.models.sd3_models import small_backbone


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


def velocity_of(model, words):
    """As in the lesson, without a card."""

    def velocity(points, sigmas):
        return model(
            hidden_states=points,
            timestep=1000 * torch.as_tensor(sigmas).expand(len(points)),
            encoder_hidden_states=words.tokens.expand(len(points), -1, -1),
            pooled_projections=words.pooled.expand(len(points), -1),
            return_dict=False,
        )[0]

    return velocity


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_learners_sampler_draws_what_the_stock_pipeline_draws(backbone, guidance):
    prompted, empty = (
        velocity_of(backbone.model, read_prompts(backbone, [words])) for words in ("fox face", "")
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(4)
    latents = solved("6.3")(
        lambda x, s: solved("6.4")(empty(x, s), prompted(x, s), guidance),
        starting_noise(backbone, [3], 16),
        scheduler.sigmas.tolist(),
    )
    stock = draw(backbone, ["fox face"], [3], 4, guidance, 16, precision="no")
    apart = np.abs(decode_latents(backbone, latents).astype(int) - stock)
    assert apart.max() <= 1 and stock.std() > 1
