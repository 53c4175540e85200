"""The SD3 backbones: diffusers' own pipeline from folders, and no foreign or broken ones."""

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.clip import load_clip
from serial_lora_course.models.sd3 import load_sd3
from serial_lora_course.models.sd3_text import clip_tokenizer, text_encoder
from serial_lora_course.models.weights import tiny_file
from tests.labs.lab_models import same_tensors
from tests.models.sd3_models import official_folder

WEIGHTS = "diffusion_pytorch_model.safetensors"
PROMPTS = ["red apple", "a photo of a yellow taxi", "face", ""]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A small SD3 in the official layout. Read only."""
    return official_folder(tmp_path_factory.mktemp("official") / "sd3")


@pytest.fixture
def folder(official, tmp_path):
    """A copy of the official folder, to break."""
    return Path(shutil.copytree(official, tmp_path / "mine"))


def models_of(pipeline) -> dict[str, torch.nn.Module]:
    return {n: m for n, m in pipeline.components.items() if isinstance(m, torch.nn.Module)}


@cache
def tokenizers() -> tuple:
    """open_clip's and transformers', of the tiny CLIP."""
    return load_clip().tokenizer, clip_tokenizer(tiny_file("tiny-clip.merges.txt.gz"), 16)


@torch.no_grad()
def test_the_whole_encoder_reads_as_the_tiny_clip_does():
    clip, (theirs, ours) = load_clip().model, tokenizers()
    read = text_encoder(clip)(**ours(PROMPTS, padding="max_length", return_tensors="pt"))
    expected = clip.encode_text(theirs(PROMPTS))
    torch.testing.assert_close(read.text_embeds, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.text(
        st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<>&"), max_size=20
    )
)
def test_a_prompt_becomes_the_same_tokens_as_in_open_clip(prompt):
    theirs, ours = tokenizers()
    (expected,) = theirs([prompt])
    tokens = ours(prompt, truncation=True).input_ids
    assert tokens == expected[: expected.argmax() + 1].tolist()


def test_a_folder_in_the_official_layout(official):
    backbone = load_sd3("paper", official)
    pipeline = backbone.pipeline
    assert (backbone.scale, backbone.text_tokens, backbone.resolution) == ("paper", 77, 32)
    kinds = {name: part.dtype for name, part in models_of(pipeline).items()}
    assert kinds.pop("vae") == torch.float32  # its file is float16, as all of them
    assert len(kinds) == 4 and set(kinds.values()) == {torch.bfloat16}
    assert pipeline.scheduler.config.shift == 3
    config = pipeline.vae.config
    assert (config.scaling_factor, config.shift_factor) == (1.5305, 0.0609)
    tokens, _, pooled, _ = pipeline.encode_prompt(
        PROMPTS, None, None, max_sequence_length=backbone.text_tokens
    )
    assert tokens.shape == (len(PROMPTS), 77 + 77, 48) and pooled.shape == (len(PROMPTS), 16 + 24)
    assert tokens[:, 77:].any() and not tokens[:, :77, 16 + 24 :].any()  # CLIP is padded to T5
    stored = load_file(official / "vae" / WEIGHTS)
    assert same_tensors(pipeline.vae.state_dict(), {k: t.float() for k, t in stored.items()})


# --- refusals ------------------------------------------------------------------------------------


def test_a_folder_with_pickles_is_refused_in_one_sentence(folder):
    path = folder / "transformer" / WEIGHTS
    torch.save(load_file(path), path.with_name("diffusion_pytorch_model.bin"))
    path.unlink()
    with pytest.raises(SerialLoRAError, match="cannot be loaded") as caught:
        load_sd3("paper", folder)
    assert all(part in str(caught.value) for part in (folder.name, "fetch.py sd3", "--weights"))
