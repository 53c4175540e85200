"""Formula, walk and injected tensors give one number on real models, built on the meta device."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora.parameters import ParameterCount, count_parameters
from serial_lora_course.measures.counts import enumerate_count, lora_count, serial_lora_count
from serial_lora_course.models.architectures import ARCHITECTURES

PAPER_COUNTS = {
    "clip": (3_932_160, 983_040),
    "sam": (4_718_592, 1_179_648),
    "sd3": (18_874_368, 4_718_592),
}


def meta_vit(width: int, depth: int, heads: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    with torch.device("meta"):
        return VisionTransformer(
            img_size=32, patch_size=16, embed_dim=width, depth=depth, num_heads=heads, num_classes=3
        )


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_three_ways_to_one_number(key):
    """By the formula, by walking the real model, and by counting what `inject` put into it."""
    item, counts = ARCHITECTURES[key], []
    for kind, formula in ((LoRAConfig, item.lora), (SerialLoRAConfig, item.serial_lora)):
        config, model = kind(rank=item.rank, stream=item.stream), item.on_meta()
        assert enumerate_count(model, config) == formula()
        with torch.device("meta"):
            inject(model, config)
        counts.append(count_parameters(model).adapter)
        assert counts[-1] == formula()
    assert counts[0] == 4 * counts[1]
    if key in PAPER_COUNTS:
        assert tuple(counts) == PAPER_COUNTS[key]


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 6),
    head_width=st.integers(1, 24),
    depth=st.integers(1, 5),
    data=st.data(),
)
def test_any_small_vision_transformer(heads, head_width, depth, data):
    width = heads * head_width
    rank = data.draw(st.integers(1, width))
    for config, formula in (
        (LoRAConfig(rank=rank), lora_count),
        (SerialLoRAConfig(rank=rank), serial_lora_count),
    ):
        model = meta_vit(width, depth, heads)
        expected = formula(width, depth, rank)
        assert enumerate_count(model, config) == expected
        before = sum(p.numel() for p in model.parameters())
        inject(model, config)
        count = count_parameters(model)
        assert count == ParameterCount(expected, before + expected, expected, 4 * expected)
        assert trainable(model) == expected


def test_both_streams_of_sd3():
    """Eight projections a block, but the last block has no text output: 24 * 8 - 1 pairs."""
    model = ARCHITECTURES["sd3"].on_meta()
    pairs = 24 * 8 - 1
    config = LoRAConfig(rank=64, stream="both")
    assert enumerate_count(model, config) == pairs * 2 * 1536 * 64 == 37_552_128
    config = SerialLoRAConfig(rank=64, stream="both")
    assert enumerate_count(model, config) == 2 * 4_718_592
