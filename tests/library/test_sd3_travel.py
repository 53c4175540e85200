"""An SD3 adapter on its travels: a stock pipeline loads it and draws the same pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from serial_lora import eject, inject, load_adapter, merge, save_adapter, to_diffusers, unmerge
from tests.library.tiny_models import RANK, fill_adapters
from tests.models.sd3_models import small_pipeline

pytest.importorskip("peft")  # diffusers' own loader of LoRA files needs it

PROMPTS = ["red apple", "yellow taxi"]
CLOSE = dict(rtol=0, atol=2e-4)  # of pictures whose numbers go from 0 to 1
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def load(tmp_path_factory) -> Callable[[], StableDiffusion3Pipeline]:
    """Loads the pipeline from the disk, but for T5, as anybody does."""
    path = tmp_path_factory.mktemp("sd3")
    small_pipeline().save_pretrained(path)

    def load() -> StableDiffusion3Pipeline:
        left_out = {"text_encoder_3": None, "tokenizer_3": None}
        pipeline = StableDiffusion3Pipeline.from_pretrained(path, **left_out)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


def draw(pipeline: StableDiffusion3Pipeline, **options: object) -> Tensor:
    """Pictures (2, 16, 16, 3) of the same prompts from the same noise each time."""
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    pictures = pipeline(
        PROMPTS,
        num_inference_steps=4,
        guidance_scale=3.0,
        max_sequence_length=8,
        generator=generators,
        output_type="np",
        **options,
    ).images
    return torch.as_tensor(pictures)


def test_a_stock_pipeline_draws_the_same_and_forgets_it_again(load, method, tmp_path):
    stock, tuned = load(), load()
    config = method(rank=RANK, scale=0.6, dropout=0.1, stream="both")
    fill_adapters(inject(tuned.transformer, config), size=0.4)
    base, expected = draw(stock), draw(tuned)
    assert (expected - base).abs().max() > 0.05  # the adapter shows
    to_diffusers(tuned.transformer, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stock.load_lora_weights(tmp_path, weight_name=FILE)
    torch.testing.assert_close(draw(stock), expected, **CLOSE)
    stock.unload_lora_weights()
    assert torch.equal(draw(stock), base)
    load_adapter(stock.transformer, save_adapter(tuned.transformer, tmp_path / "ours"))
    assert torch.equal(draw(stock), expected)
    unmerge(merge(tuned.transformer))
    assert torch.equal(draw(tuned), expected)
    eject(tuned.transformer)
    assert torch.equal(draw(tuned), base)
