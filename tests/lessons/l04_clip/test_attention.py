"""The opened attention computes what the packed one does, until a wrapper changes it."""

import torch
from torch import nn

from serial_lora_course.lessons.l04_clip.attention import OpenAttention


def test_it_equals_the_packed_attention_under_a_mask():
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(packed.in_proj_bias)
    tokens = torch.randn(2, 5, 12)
    causal = torch.full((5, 5), float("-inf")).triu(1)
    for mask in (None, causal):
        found, _ = OpenAttention(packed, lambda layer: layer)(tokens, attn_mask=mask)
        expected, _ = packed(tokens, tokens, tokens, attn_mask=mask)
        torch.testing.assert_close(found, expected)


def test_each_of_the_four_projections_is_wrapped():
    packed = nn.MultiheadAttention(12, 3, batch_first=True)
    opened = OpenAttention(packed, lambda layer: nn.Sequential(layer, nn.Identity()))
    wrapped = [name for name, part in opened.named_children() if isinstance(part, nn.Sequential)]
    assert wrapped == ["q", "k", "v", "out"]
