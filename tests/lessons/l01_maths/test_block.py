"""CLIP, opened at a block, answers as CLIP does."""

import torch

from serial_lora_course.lessons.l01_maths.block import OpenedCLIP


def test_with_the_blocks_own_attention_the_opened_clip_gives_its_own_scores():
    opened = OpenedCLIP(block=2, every=40)
    pictures = torch.stack([opened.prepare(picture) for picture, _ in [*opened.data.train][::40]])
    x, attn = opened.tokens[0], opened.block.attention
    with torch.no_grad():
        image, _, scale = opened.clip(pictures)[:3]
        scores = opened.finish(x + attn(opened.block.ln_1(x)))
    torch.testing.assert_close(scores, scale * image @ opened.texts.T, rtol=1e-4, atol=1e-4)
