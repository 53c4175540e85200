"""The lesson's opened attention computes what the packed one does, until LoRA changes it."""

import ast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools import ROOT


def opened(packed: nn.MultiheadAttention, lora_of) -> nn.Module:
    tree = ast.parse((ROOT / "solutions/04_clip_few_shot.py").read_text(encoding="utf-8"))
    (part,) = (node for node in tree.body if getattr(node, "name", "") == "OpenAttention")
    names = {"nn": nn, "Tensor": Tensor, "F": F}
    exec(compile(ast.Module([part], []), "lesson 04", "exec"), names)
    return names["OpenAttention"](packed, lora_of)


def test_it_equals_the_packed_attention_under_a_mask():
    torch.manual_seed(0)
    packed = nn.MultiheadAttention(12, 3, batch_first=True)
    nn.init.normal_(packed.in_proj_bias)
    tokens = torch.randn(2, 5, 12)
    causal = torch.full((5, 5), float("-inf")).triu(1)
    for mask in (None, causal):
        found, _ = opened(packed, lambda layer: layer)(tokens, attn_mask=mask)
        expected, _ = packed(tokens, tokens, tokens, attn_mask=mask)
        torch.testing.assert_close(found, expected)


def test_each_of_the_four_projections_is_wrapped():
    packed = nn.MultiheadAttention(12, 3, batch_first=True)
    parts = opened(packed, lambda layer: nn.Sequential(layer, nn.Identity())).named_children()
    assert [name for name, part in parts if isinstance(part, nn.Sequential)] == [*"qkv", "out"]
