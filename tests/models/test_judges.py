"""Who judges pictures: the tiny judge by hand on real drawings, the paper's through stand-ins."""

import shutil

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from serial_lora_course.data.style_sets import load_tiny_style
from serial_lora_course.models import judges
from serial_lora_course.models.clip import openai_file
from serial_lora_course.models.judges import PaperJudge, load_judge


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


class MeanColour(nn.Module):
    """In Inception's place: the mean of each channel of uint8 (N, 3, height, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, pictures):
        assert pictures.dtype == torch.uint8 and pictures.shape[2] == pictures.shape[3]
        return self.weight * pictures.double().mean((2, 3))


def test_inception_sees_the_central_square_of_pictures_of_any_size(
    registered_clip, tmp_path, monkeypatch
):
    name, weights = registered_clip
    monkeypatch.setattr(judges, "PAPER_CLIP", name)
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    shutil.copy(weights, tmp_path / "weights" / openai_file(name))
    monkeypatch.setattr(judges, "load_inception", MeanColour)
    chance, sizes = np.random.default_rng(0), ((30, 20), (20, 50), (16, 16))
    colours = chance.integers(0, 256, (3, 3)).tolist()
    pictures = [Image.new("RGB", size, tuple(c)) for size, c in zip(sizes, colours, strict=True)]
    pictures[0].paste("black", (0, 0, 5, 20))  # outside of the square
    pictures[0].paste("black", (25, 0, 30, 20))
    features = PaperJudge().picture_features(pictures)
    assert features.dtype == torch.float32 and features.device.type == "cpu"
    torch.testing.assert_close(features, torch.tensor(colours).float())
