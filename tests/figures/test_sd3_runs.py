"""Pictures of the SD3 lab: what the autoencoder sees on the way, and sheets in files."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.sd3 import TINY
from serial_lora_course.labs.sd3_drawings import draw, starting_noise
from serial_lora_course.labs.sd3_inputs import decode_latents, encode_pictures
from serial_lora_course.lessons.l06_sd3.figures import noise_row, sampler_row
from serial_lora_course.plots.sd3_runs import ON_A_SHEET, draw_run
from tests.models.sd3_models import small_backbone

FEW_STEPS = replace(TINY, drawing_steps=4)


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


def as_bytes(decoded: torch.Tensor) -> np.ndarray:
    """diffusers' own way from an autoencoder's answer to pixels."""
    pictures = VaeImageProcessor().postprocess(decoded, output_type="pil")
    return np.stack([np.asarray(picture) for picture in pictures])


def random_picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_latents_are_shown_as_diffusers_shows_them(backbone):
    vae = backbone.pipeline.vae
    latents = torch.randn(3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoded = vae.decode(latents / 1.25 + 0.125, return_dict=False)[0]
    shown = decode_latents(backbone, latents)
    assert shown.shape == (3, 64, 64, 3) and shown.dtype == np.uint8
    assert np.abs(shown.astype(int) - as_bytes(decoded)).max() <= 1


def test_the_path_leads_from_the_picture_to_the_noise(backbone):
    picture = random_picture()
    row = noise_row(backbone, picture, [0, 0.25, 1], seed=5)
    latent, noise = encode_pictures(backbone, [picture], 64), starting_noise(backbone, [5], 64)
    expected = [latent, 0.75 * latent + 0.25 * noise, noise]
    for shown, point in zip(row.pictures, expected, strict=True):
        difference = shown.astype(int) - decode_latents(backbone, point)[0]
        assert np.abs(difference).max() <= 1
    assert row.sigmas == [0, 0.25, 1] and row.steps is None


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_steps_lead_from_the_noise_to_the_drawing(backbone, guidance):
    config = replace(FEW_STEPS, guidance=guidance, precision="no")
    row = sampler_row(backbone, "fox face", [0, 2, 4], seed=3, config=config)
    noise = decode_latents(backbone, starting_noise(backbone, [3], 64))[0]
    assert np.abs(row.pictures[0].astype(int) - noise).max() <= 1
    drawn = draw(backbone, ["fox face"], [3], 4, guidance, 64, precision="no")[0]
    assert np.array_equal(row.pictures[2], drawn)
    middle = latents_after(backbone, 2, guidance)
    assert np.abs(row.pictures[1].astype(int) - decode_latents(backbone, middle)[0]).max() <= 1
    scheduler = backbone.pipeline.scheduler
    scheduler.set_timesteps(4)
    assert row.sigmas == pytest.approx(scheduler.sigmas[[0, 2, 4]].tolist(), abs=1e-6)
    assert row.steps == [0, 2, 4]
    with pytest.raises(SerialLoRAError, match="step 5"):
        sampler_row(backbone, "fox face", [0, 5], seed=3, config=config)
    assert not backbone.model._forward_pre_hooks


def latents_after(backbone, steps: int, guidance: float) -> torch.Tensor:
    """The latents as the pipeline itself reports them."""
    seen = {}
    pipeline = backbone.pipeline

    def report(_, step, __, values):
        seen[step + 1] = values["latents"].float()
        return {}

    pipeline(
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


# ----------------------------------------------------------------------------------- sheets


def test_a_sheet_holds_the_first_drawings_pixel_by_pixel(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (ON_A_SHEET + 3, 64, 64, 3), dtype=np.uint8)
    captions = [f"thing {n}" for n in range(len(drawn))]
    lab = SimpleNamespace(trial=SimpleNamespace(captions=captions))
    path = draw_run(tmp_path / "runs", lab, None, drawn, "night-100-lora-1")
    with Image.open(path) as sheet:
        words = sheet.text["Description"]
        pixels = np.asarray(sheet.convert("RGB"))
    assert f"{ON_A_SHEET} drawings" in words
    assert "“thing 39”" in words and "“thing 40”" not in words
    first = drawn[0].repeat(2, axis=0).repeat(2, axis=1)
    rows, columns = (np.flatnonzero((pixels != 255).any((axis, 2))) for axis in (1, 0))
    top, left = rows[0], columns[0]
    assert np.array_equal(pixels[top : top + 128, left : left + 128], first)


def test_a_sheet_that_cannot_be_written_is_an_error_in_words(tmp_path):
    (tmp_path / "runs").write_text("in the way")
    drawn = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(SerialLoRAError, match="cannot be used"):
        lab = SimpleNamespace(trial=SimpleNamespace(captions=["key"]))
        draw_run(tmp_path / "runs", lab, None, drawn, "sheet")
