"""A SAM small enough to train in a blink, and pictures with known masks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from segment_anything.modeling import Sam

from serial_lora.config import AdapterConfig, SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora_course.data.types import Pictures, SegmentationData, SegmentationExample
from serial_lora_course.models import sam as sam_backbones
from serial_lora_course.models.sam import build_sam

# 5 x 5 tokens in windows of 3 x 3: the last windows are padded, as in the full-size model.
SMALL_SAM = {
    "image_size": 40,
    "patch_size": 8,
    "width": 16,
    "blocks": 3,
    "heads": 2,
    "window": 3,
    "global_blocks": [2],
    "prompt_width": 16,
    "decoder_heads": 2,
    "decoder_mlp": 16,
}
ODD_SIZES = [(37, 29), (29, 37), (40, 40), (51, 80), (23, 11), (97, 41)]  # (width, height)


def small_sam() -> Sam:
    """segment-anything's own classes, three blocks deep, no parameter left at zero."""
    torch.manual_seed(0)
    model = build_sam(**SMALL_SAM)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        # A random decoder's masks are nearly flat; with contrast there is something to learn.
        decoder = model.mask_decoder
        for layer in (decoder.output_upscaling[0], decoder.output_upscaling[3]):
            layer.weight.mul_(6)
        for network in decoder.output_hypernetworks_mlps:
            network.layers[-1].weight.mul_(6)
    return model.eval()


def adapted_sam(config: AdapterConfig | None = None) -> Sam:
    """The small model with an adapter, whose B is random, as if trained."""
    model = small_sam()
    torch.manual_seed(1)
    inject(model, config or SerialLoRAConfig(rank=4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.copy_(0.3 * torch.randn(parameter.shape))
    return model


def sam_weights_file(path: Path) -> Path:
    """The small model's weights as a safetensors file."""
    save_file({k: t.contiguous() for k, t in small_sam().state_dict().items()}, path)
    return path


def make_small_sam_the_tiny_one(monkeypatch) -> None:
    """For a test, `load_sam("tiny", weights)` builds the small model."""
    monkeypatch.setattr(sam_backbones, "tiny_architecture", lambda: dict(SMALL_SAM))


def example(
    size: tuple[int, int] = (37, 29), objects: int = 2, seed: int = 0, name: str | None = None
) -> SegmentationExample:
    """Bright ellipses, perhaps overlapping, on a dark noisy ground; (width, height) pixels."""
    chance = np.random.default_rng((seed, *size))
    width, height = size
    pixels = chance.integers(0, 90, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    masks = np.zeros((objects, height, width), bool)
    for mask in masks:
        x, y = chance.uniform(0.25, 0.75, 2) * size
        across, down = np.maximum(chance.uniform(0.15, 0.35, 2) * size, 1)
        mask |= ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1
        pixels[mask] = 165 + pixels[mask] % 90
    names = tuple(f"thing {i}" for i in range(objects))
    return SegmentationExample(
        Image.fromarray(pixels), masks, names, name or f"{seed}-{width}x{height}"
    )


def segmentation_data(train: int = 10, test: int = 4, name: str = "ellipses") -> SegmentationData:
    """Ellipses of odd sizes, one to three a picture."""

    def part(word: str, count: int, seed: int) -> Pictures:
        sizes = [ODD_SIZES[i % len(ODD_SIZES)] for i in range(count)]
        made = [example(s, 1 + i % 3, seed + i, f"{word}-{i}") for i, s in enumerate(sizes)]
        return Pictures([each.picture_id for each in made], made.__getitem__, range(count))

    return SegmentationData(
        name=name, train=part("train", train, 100), test=part("test", test, 200)
    )
