"""What goes into SD3 and one training step: against the stock pipeline, picture by picture."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate

from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora_course.data.types import StyleExample
from serial_lora_course.labs import sd3 as lab
from serial_lora_course.labs import sd3_pictures as drawings
from serial_lora_course.labs.sd3_pictures import (
    EncodedPicture,
    TrainingExample,
    encode_style,
    meet_noise,
    read_prompts,
    to_square,
)
from tests.models.sd3_models import small_backbone

CAPTIONS = ["red apple", "sailboat", "red apple", "crescent moon", "teapot"]
SIDE = 16


@pytest.fixture(scope="module")
def backbone():
    return small_backbone()


def examples():
    """Pictures of one colour each, some wide and some tall, with captions."""
    chance = np.random.default_rng(0)
    made = []
    for index, caption in enumerate(CAPTIONS):
        size = (20 + index, 20) if index % 2 else (20, 23)
        colour = tuple(int(level) for level in chance.integers(0, 256, 3))
        made.append(StyleExample(Image.new("RGB", size, colour), caption, f"picture {index}"))
    return made


@pytest.fixture(scope="module")
def encoded(backbone):
    return encode_style(backbone, examples(), SIDE)


@pytest.fixture(scope="module")
def empty(backbone):
    return read_prompts(backbone, [""])


# --- encoding ------------------------------------------------------------------------------------


@torch.no_grad()
def test_encoded_pictures_are_the_autoencoders_and_the_pipelines(backbone, encoded):
    pipeline = backbone.pipeline
    for example in examples():
        picture = to_square(example.picture, SIDE)[None]
        latent = pipeline.vae.encode(picture).latent_dist.mean
        latent = (latent - 0.125) * 1.25  # the small autoencoder's shift and scale
        tokens, _, pooled, _ = pipeline.encode_prompt(
            example.caption, None, None, do_classifier_free_guidance=False, max_sequence_length=0
        )
        expected = EncodedPicture(latent[0], tokens[0], pooled[0])
        for part, right in zip(encoded[example.picture_id], expected, strict=True):
            torch.testing.assert_close(part, right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (40, 90), (91, 40), (16, 16), (5, 8)])
def test_pictures_are_scaled_by_the_shorter_side_and_cut_in_the_middle(size):
    width, height = size
    picture = Image.new("RGB", size, (0, 255, 0))
    if width > height:
        picture.paste((255, 0, 0), (0, 0, (width - height) // 2, height))
    elif height > width:
        picture.paste((255, 0, 0), (0, 0, width, (height - width) // 2))
    square = to_square(picture, 32)
    assert square.shape == (3, 32, 32) and square.dtype == torch.float32
    middle = square[:, 8:-8, 8:-8]
    expected = torch.tensor([-1.0, 1.0, -1.0]).view(3, 1, 1)
    torch.testing.assert_close(middle, expected.expand_as(middle), atol=0.1, rtol=0)


# --- noise ---------------------------------------------------------------------------------------


def test_text_is_dropped_whole_and_as_often_as_asked(encoded, empty):
    torch.manual_seed(0)
    picture, dropped = encoded["picture 1"], 0
    for _ in range(300):
        met = meet_noise(picture, empty, 0.25, 1.0)
        is_empty = torch.equal(met.tokens, empty.tokens[0])
        assert is_empty == torch.equal(met.pooled, empty.pooled[0])
        assert is_empty or torch.equal(met.tokens, picture.tokens)
        dropped += is_empty
    assert 45 < dropped < 105
    assert torch.equal(meet_noise(picture, empty, 0.0, 1.0).tokens, picture.tokens)


# --- the step ------------------------------------------------------------------------------------


def batch_of(encoded, empty) -> TrainingExample:
    torch.manual_seed(0)
    return default_collate([meet_noise(p, empty, 0.2, 1.0) for p in encoded.values()])


def adapted_transformer():
    model = inject(small_backbone().model, SerialLoRAConfig(rank=4))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("weighting", ["plain", "sigma_squared"])
@torch.no_grad()
def test_the_loss_is_that_of_each_picture_alone(encoded, empty, weighting):
    model, batch = adapted_transformer(), batch_of(encoded, empty)
    losses = []
    for row, sigma in enumerate(batch.sigma):
        latent, noise = batch.latent[row], batch.noise[row]
        predicted = model(
            ((1 - sigma) * latent + sigma * noise)[None],
            encoder_hidden_states=batch.tokens[row : row + 1],
            pooled_projections=batch.pooled[row : row + 1],
            timestep=1000 * sigma[None],
        ).sample[0]
        error = (predicted - (noise - latent)).square().mean()
        losses.append(error * sigma**2 if weighting == "sigma_squared" else error)
    expected = sum(losses) / len(losses)
    torch.testing.assert_close(lab.StyleObjective(model, weighting)(batch), expected)


# --- drawing -------------------------------------------------------------------------------------

few_steps = partial(drawings.draw, steps=3, guidance=2.5, precision="no")


def test_drawings_are_the_stock_pipelines(backbone):
    drawn = few_steps(backbone, CAPTIONS[:2], [5, 6])
    noise = torch.stack(
        [torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)]
    )
    expected = backbone.pipeline(
        CAPTIONS[:2],
        num_inference_steps=3,
        guidance_scale=2.5,
        latents=noise,
        max_sequence_length=0,
        output_type="np",
    ).images
    assert drawn.shape == (2, SIDE, SIDE, 3) and drawn.dtype == np.uint8
    assert np.abs(drawn - expected * 255).max() <= 1


def test_a_drawing_does_not_depend_on_what_is_drawn_with_it(backbone, monkeypatch):
    together = few_steps(backbone, CAPTIONS, range(5)).astype(int)
    for index in (0, 3):
        alone = few_steps(backbone, [CAPTIONS[index]], [index])[0].astype(int)
        assert np.abs(alone - together[index]).max() <= 1
    monkeypatch.setitem(drawings.DRAWN_AT_ONCE, "tiny", 2)
    assert np.abs(few_steps(backbone, CAPTIONS, range(5)).astype(int) - together).max() <= 1
