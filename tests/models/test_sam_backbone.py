"""The SAM backbones: segment-anything's own classes."""

import torch
from segment_anything import sam_model_registry

from serial_lora_course.models.sam import build_sam

VIT_B = {
    "image_size": 1024,
    "patch_size": 16,
    "width": 768,
    "blocks": 12,
    "heads": 12,
    "window": 14,
    "global_blocks": [2, 5, 8, 11],
    "prompt_width": 256,
    "decoder_heads": 8,
    "decoder_mlp": 2048,
}


def test_our_builder_makes_vit_b_as_segment_anything_does():
    with torch.device("meta"):
        ours, theirs = build_sam(**VIT_B), sam_model_registry["vit_b"]()
    assert str(ours) == str(theirs)  # every layer, its sizes and its epsilon
    shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
    for one, other in zip(ours.image_encoder.blocks, theirs.image_encoder.blocks, strict=True):
        assert one.window_size == other.window_size and one.attn.scale == other.attn.scale
    assert ours.image_encoder.img_size == theirs.image_encoder.img_size
    assert ours.prompt_encoder.input_image_size == theirs.prompt_encoder.input_image_size
    assert ours.mask_threshold == theirs.mask_threshold == 0
