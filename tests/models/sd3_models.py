"""An SD3 small enough to train in a blink, alone, in a pipeline, and in folders of both layouts."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from serial_lora_course.models import sd3
from serial_lora_course.models.sd3 import Sd3Backbone, build_pipeline
from serial_lora_course.models.sd3_text import clip_tokenizer
from serial_lora_course.models.weights import tiny_file

# 4 x 4 latents of a picture of 16 x 16 pixels; prompts as the tiny CLIP's two encoders give them.
SMALL_TRANSFORMER = {
    "sample_size": 4,
    "patch_size": 2,
    "in_channels": 8,
    "out_channels": 8,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "caption_projection_dim": 16,
    "joint_attention_dim": 384,
    "pooled_projection_dim": 384,
    "pos_embed_max_size": 8,
}


def autoencoder_of(blocks: int, **more: object) -> dict:
    """The settings of an autoencoder with so many blocks."""
    return {
        "block_out_channels": (8,) * blocks,
        "down_block_types": ("DownEncoderBlock2D",) * blocks,
        "up_block_types": ("UpDecoderBlock2D",) * blocks,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        **more,
    }


SMALL_AUTOENCODER = autoencoder_of(
    3,
    latent_channels=8,
    sample_size=16,
    mid_block_add_attention=False,
    scaling_factor=1.25,
    shift_factor=0.125,
)
# As SD3 medium: an eighth of the side, 16 channels, their scaling and shift; T5 wider than CLIP.
OFFICIAL_TRANSFORMER = SMALL_TRANSFORMER | {
    "in_channels": 16,
    "out_channels": 16,
    "joint_attention_dim": 48,
    "pooled_projection_dim": 40,
}
OFFICIAL_AUTOENCODER = autoencoder_of(
    4, latent_channels=16, sample_size=32, scaling_factor=1.5305, shift_factor=0.0609
)


def moved(model: nn.Module) -> nn.Module:
    """The model with no parameter left at zero or one, in evaluation mode."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.eval()


def small_pipeline() -> StableDiffusion3Pipeline:
    """diffusers' own classes, two blocks deep, whose prompts the tiny CLIP reads."""
    torch.manual_seed(0)
    transformer = moved(SD3Transformer2DModel(**SMALL_TRANSFORMER))
    torch.manual_seed(0)
    pipeline = build_pipeline(transformer, moved(AutoencoderKL(**SMALL_AUTOENCODER)))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def small_backbone() -> Sd3Backbone:
    """What `load_sd3("tiny")` returns, around the small models."""
    pipeline = small_pipeline()
    return Sd3Backbone(pipeline.transformer, sd3.TINY_MODEL, "tiny", pipeline, 0)


def make_small_sd3_the_tiny_one(monkeypatch, folder: Path) -> None:
    """For a test, the package ships the small models in float16, and the data root is empty."""
    pipeline, shipped = small_pipeline(), folder / "shipped"
    pipeline.transformer.half().save_pretrained(shipped / "transformer")
    pipeline.vae.half().save_pretrained(shipped / "vae")
    monkeypatch.setattr(
        sd3, "tiny_file", lambda name: shipped if name == sd3.TINY_MODEL else tiny_file(name)
    )
    monkeypatch.setenv("SERIAL_LORA_DATA", str(folder / "data"))


def official_folder(folder: Path) -> Path:
    """A folder laid out as SD3 medium's on the hub: float16, three text encoders, shift 3."""
    torch.manual_seed(0)
    pipeline = official_pipeline(
        moved(SD3Transformer2DModel(**OFFICIAL_TRANSFORMER)),
        moved(AutoencoderKL(**OFFICIAL_AUTOENCODER)),
        _clip_encoder(16),
        _clip_encoder(24),
        moved(T5EncoderModel(T5)),
    )
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.half()
    pipeline.save_pretrained(folder)
    # The names that diffusers 0.29 wrote, when SD3 medium was published.
    index = folder / "model_index.json"
    parts = {n: kind for n, kind in json.loads(index.read_text()).items() if kind != [None, None]}
    parts["_diffusers_version"] = "0.29.0.dev0"
    parts["tokenizer_3"] = ["transformers", "T5TokenizerFast"]
    index.write_text(json.dumps(parts, indent=2))
    return folder


def official_pipeline(
    transformer: nn.Module, autoencoder: nn.Module, *encoders: nn.Module
) -> StableDiffusion3Pipeline:
    """Such parts, the three text encoders last, with tokenizers and SD3 medium's scheduler."""
    one, two, t5 = encoders
    tokenizer = clip_tokenizer(tiny_file("tiny-clip.merges.txt.gz"), 77)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=one,
        text_encoder_2=two,
        text_encoder_3=t5,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=_t5_tokenizer(),
    )


def _clip_encoder(width: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=9034,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=9032,
        eos_token_id=9033,
        pad_token_id=9033,
    )
    return moved(CLIPTextModelWithProjection(config))


T5 = T5Config(vocab_size=40, d_model=48, d_kv=8, d_ff=64, num_layers=2, num_heads=2)


def _t5_tokenizer() -> T5TokenizerFast:
    """A letter a token, behind T5's special ones."""
    words = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    unigram = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=2))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    return T5TokenizerFast(tokenizer_object=unigram, extra_ids=0, model_max_length=512)
