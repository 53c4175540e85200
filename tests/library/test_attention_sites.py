"""Finding attention, and saying clearly when it cannot be found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapters,
    disabled,
    eject,
    inject,
    merge,
    to_peft,
)
from serial_lora.attention import find_attention_sites
from tests.library.tiny_models import TINY, _open_clip, _timm, fill_adapters


def test_fused_sd3_projections_are_refused():
    model = TINY["sd3_image"].build()
    model.transformer_blocks[0].attn.fuse_projections(fuse=True)
    with pytest.raises(SerialLoRAError, match="unfuse_qkv_projections"):
        inject(model, SerialLoRAConfig(rank=2))


@torch.no_grad()
def test_a_model_inside_another_module(method):
    """A tower alone, a backbone with a head in front of which it was put, before or afterwards."""
    tower = inject(TINY["open_clip"].build().visual, method(rank=2))
    assert {name.split(".")[0] for name in adapters(tower)} == {"transformer"}
    x = torch.randn(1, 3, 16, 16)
    for wrapped_first in (True, False):
        backbone = TINY["timm"].build()
        model = nn.Sequential(backbone, nn.Linear(5, 2))
        base = model(x)
        fill_adapters(inject(model if wrapped_first else backbone, method(rank=2)))
        expected = model(x)
        assert not torch.allclose(expected, base)
        with disabled(model):
            torch.testing.assert_close(model(x), base)
        torch.testing.assert_close(merge(model)(x), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(eject(model)(x), base) and not adapters(backbone)


def test_blocks_that_share_weights(method):
    """One attention in two blocks has one adapter; two that are tied have two, and cannot merge."""
    model = _timm()
    model.blocks[1].attn = model.blocks[0].attn
    assert len(find_attention_sites(model)) == 2
    fill_adapters(inject(model, method(rank=2)))
    with torch.no_grad():
        x = torch.randn(1, 3, 16, 16)
        expected = model(x)
        torch.testing.assert_close(merge(model)(x), expected, rtol=1e-4, atol=1e-5)
    eject(model)
    tied = _timm()
    tied.blocks[1].attn.qkv.weight = tied.blocks[0].attn.qkv.weight
    inject(tied, method(rank=2))
    for verb in (merge, to_peft):
        with pytest.raises(SerialLoRAError, match="share"):
            verb(tied)
    eject(tied)


def test_lora_is_refused_in_a_subclass_of_multihead_attention():
    class Mine(nn.MultiheadAttention):
        pass

    model = _open_clip()
    model.visual.transformer.resblocks[0].attn.__class__ = Mine
    with pytest.raises(SerialLoRAError, match="Mine"):
        inject(model, LoRAConfig(rank=2))
    assert not adapters(model)
    inject(model, SerialLoRAConfig(rank=2))
    assert type(model.visual.transformer.resblocks[0].attn) is Mine
