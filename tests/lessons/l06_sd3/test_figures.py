"""What the autoencoder sees between a picture and noise."""

from dataclasses import replace

import numpy as np
import pytest

from serial_lora_course.labs.sd3 import TINY
from serial_lora_course.labs.sd3_drawings import draw, starting_noise
from serial_lora_course.labs.sd3_inputs import decode_latents
from serial_lora_course.lessons.l06_sd3.figures import sampler_row
from tests.models.sd3_models import small_backbone


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


def latents_after(backbone, steps, guidance):
    """The latents as the pipeline itself reports them."""
    seen = {}

    def report(_, step, __, values):
        seen[step + 1] = values["latents"].float()
        return {}

    backbone.pipeline(
        "fox face",
        negative_prompt="",
        num_inference_steps=4,
        guidance_scale=guidance,
        height=64,
        width=64,
        latents=starting_noise(backbone, [3], 64),
        output_type="latent",
        max_sequence_length=0,
        callback_on_step_end=report,
    )
    return seen[steps]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_steps_lead_from_the_noise_to_the_drawing(backbone, guidance):
    config = replace(TINY, drawing_steps=4, guidance=guidance, precision="no")
    row = sampler_row(backbone, "fox face", [0, 2, 4], 3, config)
    drawn = draw(backbone, ["fox face"], [3], 4, guidance, 64, precision="no")[0]
    assert np.array_equal(row.pictures[2], drawn)
    middle = latents_after(backbone, 2, guidance)
    for shown, latent in zip(
        row.pictures, (starting_noise(backbone, [3], 64), middle), strict=False
    ):
        assert np.abs(shown.astype(int) - decode_latents(backbone, latent)[0]).max() <= 1
    assert not backbone.model._forward_pre_hooks
