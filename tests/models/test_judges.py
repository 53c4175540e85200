"""Who judges pictures: the tiny judge by hand on real drawings, the paper's through stand-ins."""

import open_clip
import torch
from torch.nn import functional as F

from serial_lora_course.data.style_sets import load_tiny_style
from serial_lora_course.models.judges import load_judge


def fourth_block(clip: open_clip.CLIP, pixels: torch.Tensor) -> torch.Tensor:
    """The image tower from the pixels to the end of its fourth block, (n, 1 + patches, width)."""
    visual = clip.visual
    tokens = F.conv2d(pixels, visual.conv1.weight, stride=visual.conv1.stride)
    tokens = tokens.flatten(2).transpose(1, 2)  # (n, patches, width)
    first = visual.class_embedding.expand(len(tokens), 1, -1)
    x = visual.ln_pre(torch.cat([first, tokens], dim=1) + visual.positional_embedding)
    for block in visual.transformer.resblocks[:4]:
        normed = block.ln_1(x)
        x = x + block.attn(normed, normed, normed)[0]
        x = x + block.mlp(block.ln_2(x))
    return x


@torch.no_grad()
def test_features_are_the_mean_of_the_fourth_blocks_patches():
    test, judge = load_tiny_style("openmoji").test, load_judge("tiny")
    pictures = [test[index].picture for index in range(0, len(test), 25)]
    pixels = torch.stack([judge.clip.test_transform(picture) for picture in pictures])
    expected = fourth_block(judge.clip.model, pixels)[:, 1:].mean(1)
    features = judge.picture_features(pictures)
    assert features.shape == (8, 192) and features.dtype == torch.float32
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
