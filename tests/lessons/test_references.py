"""What the checks compare with, against the libraries' own."""

import pytest
import torch
from segment_anything.modeling.image_encoder import Block
from segment_anything.utils.transforms import ResizeLongestSide

from serial_lora_course.lessons.l05_sam import blocks, checks
from serial_lora_course.measures.metrics import dice_ce


@pytest.mark.parametrize("size", [(97, 160), (151, 103), (50, 83), (64, 64), (601, 800)])
def test_the_frame_is_segment_anythings(size):
    own = ResizeLongestSide(128).get_preprocess_shape(*size, 128)
    assert checks.frame_by_fractions(size, 128) == own


@pytest.mark.parametrize("side", [4, 3, 0])
def test_one_window_at_a_time_is_segment_anythings_block(side):
    block = Block(12, 2, window_size=side, use_rel_pos=True, input_size=(6, 7)).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 6, 7, 12)
    with torch.no_grad():
        half = x + blocks.one_window_at_a_time(block.attn, block.norm1(x), side)
        whole = half + block.mlp(block.norm2(half))
        torch.testing.assert_close(whole, block(x))


def test_pixels_give_the_packages_loss():
    logits, masks = torch.randn(3, 5, 4), torch.rand(3, 5, 4) > 0.5
    torch.testing.assert_close(checks.loss_of_pixels(logits, masks), dice_ce(logits, masks).mean())
