"""The memory table of SD3 medium against counts by hand and a step that was taken."""

import pytest
import torch
from torch import nn

from serial_lora import LoRAConfig, SerialLoRAConfig, adapter_parameters, inject
from serial_lora_course.labs.memory_sd3 import (
    GIB,
    TRAINED_BYTES,
    estimated_activations,
    memory_frame,
    parts_frame,
    shapes_kept,
)
from serial_lora_course.models.architectures import ARCHITECTURES

SERIAL = SerialLoRAConfig(rank=64)


def clip_by_hand(width: int, layers: int) -> int:
    """Words and 77 places, then for each layer attention, a four times wider MLP and two norms."""
    block = 4 * (width * width + width) + (8 * width * width + 5 * width) + 4 * width
    return (49408 + 77) * width + layers * block + 2 * width + width * width


def t5_by_hand() -> int:
    """Words; attention without biases and a gated MLP of three matrices; places in one block."""
    width, inner, wide = 4096, 64 * 64, 10240
    block = 4 * width * inner + 3 * width * wide + 2 * width
    return 32128 * width + 24 * block + 32 * 64 + width


def test_the_parts_have_their_published_sizes():
    parts = parts_frame().set_index("part")
    parameters = parts["parameters"].to_dict()
    assert parameters["CLIP ViT-L text encoder"] == clip_by_hand(768, 12)
    assert parameters["OpenCLIP ViT-bigG text encoder"] == clip_by_hand(1280, 32)
    assert parameters["T5 v1.1 XXL encoder"] == t5_by_hand()
    assert parameters["transformer"] == 2_028_328_000
    for name, row in parts.iterrows():
        assert row["GiB"] * GIB == row["parameters"] * (4 if name == "autoencoder" else 2)


def test_a_trained_number_fills_what_adamw_really_keeps_for_it():
    layer = nn.Linear(8, 4, bias=False)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(3, 8)).sum().backward()
    optimizer.step()
    weight = layer.weight
    averages = [tensor for tensor in optimizer.state[weight].values() if tensor.ndim]
    kept = sum(tensor.nbytes for tensor in (weight, weight.grad, *averages))
    assert kept == TRAINED_BYTES * weight.numel()


def test_two_and_three_blocks_tell_what_all_of_them_keep():
    depth = ARCHITECTURES["sd3"].towers[0].depth
    assert estimated_activations(64, SERIAL) == shapes_kept(depth, 64, SERIAL, 77, False)
    inputs = shapes_kept(depth, 64, SERIAL, 77, True)
    block = shapes_kept(3, 64, SERIAL, 77, False) - shapes_kept(2, 64, SERIAL, 77, False)
    assert estimated_activations(64, SERIAL, checkpointing=True) == inputs + block
    tokens = (64 // 16) ** 2 + 77 + 77
    more = shapes_kept(3, 64, SERIAL, 77, True) - shapes_kept(2, 64, SERIAL, 77, True)
    assert more == tokens * 1536 * 2  # a block's inputs in bfloat16, and nothing else


@pytest.fixture(scope="module")
def frame():
    return memory_frame(resolutions=(128, 256), rank=64)


def test_the_table_adds_up(frame):
    assert len(frame) == 2 * 2 * 3
    parts = frame[["model", "adapter", "activations"]].sum(axis=1)
    assert frame["total"].tolist() == parts.tolist()
    for method, config in (("lora", LoRAConfig(rank=64)), ("serial_lora", SERIAL)):
        with torch.device("meta"):
            model = inject(ARCHITECTURES["sd3"].build(), config)
        trained = sum(parameter.numel() for parameter in adapter_parameters(model))
        rows = frame[frame.method == method]
        assert set(rows["adapter"]) == {trained * 16 / GIB}


def test_caching_spares_the_encoders_and_checkpointing_the_activations(frame):
    sizes = parts_frame().set_index("part")["GiB"]
    for _, rows in frame.groupby(["pixels", "method"], sort=False):
        everything, cached, checkpointed = rows.itertuples()
        assert everything.model - cached.model == pytest.approx(sizes.drop("transformer").sum())
        assert cached.model == checkpointed.model == sizes["transformer"]
        assert everything.activations == cached.activations > 4 * checkpointed.activations
        assert everything.total > cached.total > checkpointed.total
    serial, lora = (frame[frame.method == m].reset_index() for m in ("serial_lora", "lora"))
    assert (serial.total < lora.total).all()
