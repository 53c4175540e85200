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
    quantized_bytes,
    quantized_frame,
    shapes_kept,
)
from serial_lora_course.models.architectures import ARCHITECTURES
from tests.library.test_quantized import eight_bits, four_bits, with_bitsandbytes
from tests.library.tiny_models import TINY

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


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_parts_fill_what_bitsandbytes_really_keeps(bits, tmp_path):
    """A tiny T5, which transformers quantizes, and a tiny SD3 transformer (diffusers wants a GPU)."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes comes with pip install '.[quantized]'")
    from transformers import BitsAndBytesConfig, T5Config, T5EncoderModel

    t5 = T5EncoderModel(T5Config(vocab_size=64, d_model=64, d_kv=16, d_ff=128, num_heads=4))
    t5.bfloat16().save_pretrained(tmp_path)
    few = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    loaded = T5EncoderModel.from_pretrained(tmp_path, quantization_config=few, dtype=torch.bfloat16)
    make = {8: eight_bits, 4: four_bits(nested=False)}[bits]
    sd3 = TINY["sd3_image"].build()
    in_bits = with_bitsandbytes(make)(TINY["sd3_image"].build())
    for model, small, left_out in ((t5, loaded, "wo"), (sd3, in_bits, None)):
        names, size = dict(model.named_parameters()), 0
        for name, tensor in small.state_dict().items():
            if name.endswith(("SCB", "absmax")):
                size += tensor.nbytes
            elif name in names:  # whatever is no weight of a linear layer in bfloat16
                size += tensor.numel() * (2 if tensor.is_floating_point() else 1)
        assert size == quantized_bytes(model, bits, left_out)


def test_two_and_three_blocks_tell_what_all_of_them_keep():
    depth = ARCHITECTURES["sd3"].towers[0].depth
    assert estimated_activations(64, SERIAL) == shapes_kept(depth, 64, SERIAL, False)
    inputs = shapes_kept(depth, 64, SERIAL, True)
    block = shapes_kept(3, 64, SERIAL, False) - shapes_kept(2, 64, SERIAL, False)
    assert estimated_activations(64, SERIAL, checkpointing=True) == inputs + block
    tokens = (64 // 16) ** 2 + 77 + 77
    more = shapes_kept(3, 64, SERIAL, True) - shapes_kept(2, 64, SERIAL, True)
    assert more == tokens * 1536 * 2  # a block's inputs in bfloat16, and nothing else


@pytest.fixture(scope="module")
def frame():
    return memory_frame(resolutions=(128, 256), rank=64)


def test_the_table_adds_up(frame):
    assert len(frame) == 2 * 2 * 5
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
        everything, small_t5, cached, checkpointed, four_bits = rows.itertuples()
        fewer = quantized_frame().set_index("part")
        t5, transformer = fewer.index[1], fewer.index[0]
        assert everything.model - small_t5.model == pytest.approx(sizes[t5] - fewer["8 bits"][t5])
        assert four_bits.model == fewer["4 bits"][transformer]
        assert four_bits.activations == checkpointed.activations
        assert everything.model - cached.model == pytest.approx(sizes.drop("transformer").sum())
        assert cached.model == checkpointed.model == sizes["transformer"]
        assert everything.activations == cached.activations > 4 * checkpointed.activations
        assert everything.total > small_t5.total > cached.total > checkpointed.total
        assert checkpointed.total > four_bits.total
    serial, lora = (frame[frame.method == m].reset_index() for m in ("serial_lora", "lora"))
    assert (serial.total < lora.total).all()
