"""Which of timm's modules and transformers' classes are adapted.

Each is built small or cut short, and compared with dense weights that are written by hand into a copy:
the rows of the table say which layers read the tokens, and nothing of this package is asked for them.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from serial_lora import SerialLoRAConfig, adapters, eject, inject, merge
from serial_lora.attention import every_site, find_sites
from serial_lora.feed_forward import blocks_without
from serial_lora.left_out import without_sites
from tests.library.tiny_models import fill_adapters, noisy

SCALE = 0.7

# model: (what makes it small, the layers that read tokens, how many blocks are adapted)
TIMM = {
    "beit_base_patch16_224": (dict(depth=2, embed_dim=48, num_heads=4), r"attn\.qkv", 2),
    "cait_xxs24_224": (dict(depth=2, embed_dim=48, num_heads=4), r"attn\.(qkv|q|k|v)", 4),
    "coat_tiny": (dict(serial_depths=(1, 1, 1, 1), parallel_depth=1), r"factoratt_crpe\d?\.qkv", 7),
    "convit_tiny": (dict(depth=2, local_up_to_layer=1), r"attn\.(qkv|qk|v)", 2),
    "crossvit_9_240": (dict(depth=((1, 1, 0),)), r"blocks\.\d\.blocks\.\d\.\d\.attn\.qkv", 2),
    "davit_tiny": (dict(depths=(1, 1, 1, 1)), r"attn\.qkv", 8),
    "deit_tiny_patch16_224": (dict(depth=2), r"attn\.qkv", 2),
    "edgenext_xx_small": (dict(depths=(1, 2, 2, 2)), r"xca\.qkv", 3),
    "eva02_tiny_patch14_224": (dict(depth=2), r"attn\.qkv", 2),
    "fastvit_sa12": (dict(layers=(1, 1, 1, 1)), r"token_mixer\.qkv", 1),
    "hiera_tiny_224": (dict(stages=(1, 1, 1, 1)), r"attn\.qkv", 4),
    "sam2_hiera_tiny": (dict(stages=(1, 2, 2, 1), global_att_blocks=(4,)), r"attn\.qkv", 6),
    "caformer_s18": ({}, r"token_mixer\.qkv", 12),
    "maxvit_pico_rw_256": ({}, r"attn\.qkv", 22),
    "mobilevit_xxs": ({}, r"attn\.qkv", 9),
    "mvitv2_tiny": ({}, r"attn\.qkv", 10),
    "naflexvit_base_patch16_gap": (dict(depth=2, embed_dim=48, num_heads=4), r"attn\.qkv", 2),
    "nest_tiny": ({}, r"attn\.qkv", 12),
    "nextvit_small": (dict(depths=(1, 1, 5, 1)), r"e_mhsa\.(q|k|v)", 3),
    "pit_ti_224": (dict(depth=(1, 1, 1)), r"attn\.qkv", 3),
    "pvt_v2_b0": (dict(depths=(1, 1, 1, 1)), r"attn\.(q|kv)", 4),
    "pvt_v2_b2_li": (dict(depths=(1, 1, 1, 1)), r"attn\.(q|kv)", 4),
    "swin_tiny_patch4_window7_224": (dict(depths=(1, 1, 2, 1)), r"attn\.qkv", 5),
    "swinv2_tiny_window8_256": (dict(depths=(1, 1, 2, 1)), r"attn\.qkv", 5),
    "swinv2_cr_tiny_224": (dict(depths=(1, 1, 2, 1)), r"attn\.qkv", 5),
    "tiny_vit_5m_224": (dict(depths=(1, 1, 2, 1)), r"attn\.qkv", 4),
    "tnt_s_patch16_224": (dict(depth=2), r"attn_(in|out)\.(qk|v)", 4),
    "twins_pcpvt_small": (dict(depths=(1, 1, 1, 1)), r"attn\.(q|kv)", 4),
    "twins_svt_small": (dict(depths=(2, 2, 2, 2)), r"attn\.(qkv|q|kv)", 8),
    "test_vit_relpos": ({}, r"attn\.qkv", 9),
    "samvit_base_patch16": (dict(depth=2, embed_dim=48, num_heads=4), r"attn\.qkv", 2),
    "vit_small_r26_s32_224": (dict(depth=2), r"attn\.qkv", 2),
    "volo_d1_224": ({}, r"attn\.(qkv|q|kv)", 16),
    "xcit_nano_12_p16_224": (dict(depth=2), r"attn\.(qkv|q|k|v)", 4),
    "qwen3_vit_88m_enc": (dict(depth=2, embed_dim=96, num_heads=4, img_size=64), r"attn\.qkv", 2),
    "deepseek_vit_412m_enc": (
        dict(depth=2, embed_dim=64, num_heads=2, img_size=84),
        r"attn\.qkv",
        2,
    ),
    "csatv2": ({}, r"\d\.attn\.qkv", 4),  # its gates of one number are no attention to adapt
}
LATER = "test_vit_relpos qwen3_vit_88m_enc deepseek_vit_412m_enc csatv2".split()  # than timm 1.0.21
SIDES = {"sam2_hiera_tiny": 256, "caformer_s18": 96}  # of pictures, in place of the usual ones
TRANSFORMERS = """Aimv2Vision AltCLIP Beit Bert BlipVision ChineseCLIPVision CLIPSeg Data2VecVision DeiT
DINOv3ViT Dinov2WithRegisters DPT GroupViTVision Hiera InternVLVision Llama MetaClip2Vision Owlv2Vision
PixtralVision Pvt Qwen3 Sam2Vision SamVision Segformer Siglip2Vision SiglipVision Swin Swinv2 Vilt
ViTMAE ViTMSN XCLIPVision Yolos""".split()


def write_by_hand(plain: nn.Module, adapted: nn.Module, readers: str) -> nn.Module:
    """W (I + s B A) into each layer of these names."""
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in adapted.state_dict().items():
        found = re.fullmatch(r"(.*?)\.?serial_lora(_\d)?\.lora_([AB])", name)
        if found:
            pairs.setdefault(found[1], {})[found[3]] = tensor
    for name, layer in plain.named_modules():
        if re.search(f"(^|\\.)({readers})$", name):
            around = [block for block in pairs if f"{name}.".startswith(f"{block}.")]
            pair = pairs[max(around, key=len)]
            layer.weight += SCALE * layer.weight @ pair["B"] @ pair["A"]
    return plain


def skip_what_is_later(name: str) -> None:
    import timm

    if name in LATER and not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name} yet")


def small(name: str, options: dict) -> nn.Module:
    import timm

    return noisy(lambda: timm.create_model(name, num_classes=5, **options))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.filterwarnings("ignore:no adapter went into")  # VOLO's outlooks, CSATv2's gates
@pytest.mark.parametrize("name", TIMM)
def test_a_module_of_timm_equals_dense_weights(name):
    skip_what_is_later(name)
    options, readers, blocks = TIMM[name]
    model = small(name, options)
    side = SIDES.get(name) or options.get("img_size") or model.default_cfg["input_size"][-1]
    picture = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    base, bits = model(picture), {n: p.clone() for n, p in model.state_dict().items()}
    inject(model, SerialLoRAConfig(rank=3, scale=SCALE))
    assert len(adapters(model)) == blocks
    fill_adapters(model, size=0.3)
    expected = write_by_hand(small(name, options), model, readers)(picture)
    change = (expected - base).abs().max()
    assert change > 4e-5 * base.abs().max()
    for each in (model, merge(model)):
        assert (each(picture) - expected).abs().max() < 0.01 * change + 5e-6 * base.abs().max()
    eject(model)
    assert all(torch.equal(bits[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TIMM, "vit_small_patch16_18x2_224", "eva02_base_patch14_224"])
def test_a_module_of_timm_has_the_feed_forward_of_all_its_blocks_found(name):
    """Once each, but for those of convolutions."""
    import timm

    skip_what_is_later(name)
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=5, **TIMM.get(name, ({},))[0])
    sites = every_site(model)
    convolutions = name in ("fastvit_sa12", "nextvit_small")
    assert bool(blocks_without(model, sites)) == convolutions
    forwards = [site for site in sites if site.place == "feed_forward"]
    layers = [p.module for site in forwards for p in site.projections.values()]
    assert bool(forwards) != convolutions and len(layers) == len(set(layers))
    for site in forwards:  # what names say, where shapes were asked
        assert re.search(r"fc1|linear1|lin1", site.projections["fc1"].module)
        assert re.search(r"fc2|linear2|lin2", site.projections["fc2"].module)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_class_of_transformers_has_all_its_attention_found(name):
    """Without values: which layers these are is compared with dense weights where they are alike."""
    import transformers

    config = getattr(transformers, f"{name}Config")()
    with torch.device("meta"):
        model = getattr(transformers, f"{name}Model")(config)
    sites = find_sites(model)
    assert sites and all({"q", "k", "v"} <= set(site.projections) for site in sites)
    assert not without_sites(model, sites, None)
    assert not blocks_without(model, every_site(model))
