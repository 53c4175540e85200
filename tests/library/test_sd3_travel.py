"""An SD3 adapter on its travels: a stock pipeline loads it and draws the same pictures."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    eject,
    inject,
    load_adapter,
    merge,
    save_adapter,
    to_peft,
    unmerge,
)
from tests.library.tiny_models import RANK, fill_adapters
from tests.models.sd3_models import small_pipeline

pytest.importorskip("peft")  # diffusers' own loader of LoRA files needs it

PROMPTS = ["red apple", "yellow taxi"]
METHODS = [SerialLoRAConfig, LoRAConfig]
CLOSE = dict(rtol=0, atol=2e-4)  # of pictures whose numbers go from 0 to 1
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A whole SD3 on the disk, but for T5, read only."""
    path = tmp_path_factory.mktemp("sd3")
    small_pipeline().save_pretrained(path)
    return path


def load(folder: Path) -> StableDiffusion3Pipeline:
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def stock(folder) -> StableDiffusion3Pipeline:
    """The pipeline as anybody loads it, who has never heard of this library."""
    return load(folder)


@pytest.fixture(
    params=[(method, stream) for method in METHODS for stream in ("image", "both")],
    ids=lambda pair: f"{pair[0].method}-{pair[1]}",
)
def tuned(folder, request) -> StableDiffusion3Pipeline:
    """Another one, adapted, with an adapter as if it had been trained."""
    torch.manual_seed(0)
    pipeline = load(folder)
    method, stream = request.param
    config = method(rank=RANK, scale=0.6, dropout=0.1, stream=stream)
    fill_adapters(inject(pipeline.transformer, config), size=0.4)
    return pipeline


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


def test_a_stock_pipeline_draws_the_same_and_forgets_it_again(stock, tuned, tmp_path):
    base, expected = draw(stock), draw(tuned)
    assert (expected - base).abs().max() > 0.05  # the adapter shows
    to_peft(tuned.transformer, tmp_path)
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
