"""The CLIP backbones: open_clip's own factory, CLIP's own tokens, and no foreign weights."""

import open_clip
import pytest
import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import emoji_concepts
from serial_lora_course.data.emoji_sets import EMOJI_SETS, GENERIC_TEMPLATE, TEMPLATE
from serial_lora_course.models.clip import encode_prompts, load_clip


@pytest.fixture(scope="module")
def tiny():
    return load_clip("tiny")


def test_the_tiny_tokenizer_cuts_words_as_clips_does(tiny):
    """Its vocabulary is smaller, so ids differ; the pieces they stand for must not."""
    theirs = open_clip.SimpleTokenizer()
    texts = {text for c in emoji_concepts() for text in (c.name, c.subgroup.replace("-", " "))}
    for classes in EMOJI_SETS.values():
        texts |= {form.format(c) for c in classes for form in (TEMPLATE, GENERIC_TEMPLATE)}
    assert len(texts) > 1900
    for text in texts:
        ours = [tiny.tokenizer.decoder[i] for i in tiny.tokenizer.encode(text)]
        assert ours == [theirs.decoder[i] for i in theirs.encode(text)], text


PROMPTS = ["a photo of a cat.", "a dog", "a drawing of an unusually long thing."]


@torch.no_grad()
@pytest.mark.parametrize("prompts", [PROMPTS, ["a very long prompt " * 9, "cat"]])
def test_cut_prompts_equal_whole_prompts_in_the_tiny_model(tiny, prompts):
    tokens = tiny.tokenizer(prompts)
    whole = tiny.model.encode_text(tokens, normalize=True)  # open_clip's own way
    torch.testing.assert_close(encode_prompts(tiny.model, tokens), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-32", "ViT-L-14"])
@pytest.mark.parametrize("weights", ["default", "openai.safetensors"])
def test_gelu_is_refused_with_the_reason(name, weights):
    with pytest.raises(SerialLoRAError, match=f"QuickGELU.*use {name}-quickgelu"):
        load_clip("paper", name, weights)
