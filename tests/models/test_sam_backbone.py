"""The SAM backbones: segment-anything's own classes, and no foreign or broken weights."""

import pytest
import torch
from segment_anything import sam_model_registry

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.sam import PAPER_FILE, build_sam, load_sam
from tests.models.sam_models import make_small_sam_the_tiny_one

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


def vit_shapes(width: int) -> dict[str, torch.Tensor]:
    """The one tensor that tells SAM's sizes apart, without its bytes on disk."""
    return {"image_encoder.pos_embed": torch.zeros(1).expand(1, 64, 64, width)}


OTHER_MODELS = {
    "vit_l": (vit_shapes(1024), "holds vit_l, another size of SAM"),
    "CLIP": ({"visual.conv1.weight": torch.zeros(2, 3, 4, 4)}, "another model's weights"),
}


@pytest.mark.parametrize("state, reason", OTHER_MODELS.values(), ids=OTHER_MODELS.keys())
def test_a_checkpoint_of_something_else_is_recognised(tmp_path, monkeypatch, state, reason):
    make_small_sam_the_tiny_one(monkeypatch)
    torch.save(state, tmp_path / PAPER_FILE)
    with pytest.raises(SerialLoRAError, match=reason):
        load_sam("tiny", tmp_path / PAPER_FILE)
