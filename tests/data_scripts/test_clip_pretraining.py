"""Pretraining of the tiny CLIP: what it may see, how it is told, what it leaves."""

import math
import random

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_scripts.pretraining import clip as pretraining
from data_scripts.pretraining.clip import (
    Drawings,
    Pretraining,
    Recipe,
    category_of,
    contrastive_loss,
    fast_attention,
    normalize,
)
from data_scripts.pretraining.vocabulary import used_merges, write_merges
from serial_lora_course.data.emoji import STYLES, emoji_concepts, load_emoji
from serial_lora_course.data.emoji_sets import EMOJI_SETS, hidden_codepoints, load_emoji_set
from serial_lora_course.models.clip import encode_prompts, load_clip


@pytest.fixture(scope="module")
def drawings():
    return Drawings([load_emoji(style) for style in STYLES], hidden_codepoints())


# --- what it sees --------------------------------------------------------------------------------


def test_no_hidden_openmoji_drawing_and_no_test_picture_is_seen(drawings):
    """Not even under another name: OpenMoji draws a few concepts alike."""
    hidden = hidden_codepoints()
    pairs = list(zip(drawings.concepts, drawings.is_openmoji.tolist(), strict=True))
    assert not any(openmoji and concept.codepoints in hidden for concept, openmoji in pairs)
    seen = {drawings.pictures[i].numpy().tobytes() for i, (_, own) in enumerate(pairs) if own}
    emoji = load_emoji("openmoji")
    for name in EMOJI_SETS:
        for index in load_emoji_set(name).test.sources:
            pixels = np.ascontiguousarray(emoji.pictures[index].transpose(2, 0, 1))
            assert pixels.tobytes() not in seen, (name, emoji.concepts[index].name)


def test_a_batch_holds_two_drawings_of_each_concept(drawings):
    recipe = Recipe(batch=64)
    batch = drawings.batch(recipe, random.Random(1))
    names = [drawings.concepts[index].name for index in batch]
    assert len(batch) == 64 and names[::2] == names[1::2] and len(set(names)) == 32
    assert batch == drawings.batch(recipe, random.Random(1))
    assert batch != drawings.batch(recipe, random.Random(2))


def test_openmoji_is_never_captioned_with_its_category(drawings):
    """Three categories are class names too, so this is what keeps zero-shot fair."""
    shared = {name for classes in EMOJI_SETS.values() for name in classes}
    shared &= {category_of(concept) for concept in emoji_concepts()}
    assert shared == {"clothing", "mail", "money"}
    run = Pretraining.__new__(Pretraining)
    run.recipe = Recipe(category_captions=(0.0, 0.5), tagged_captions=(0.0, 0.4))
    concepts = [concept for concept in emoji_concepts() if concept.subgroup in shared]
    _, said = run._captions(concepts, [True] * len(concepts), random.Random(0), 1)
    assert said == [concept.name for concept in concepts]
    captions, said = run._captions(concepts, [False] * len(concepts), random.Random(0), 1)
    assert shared <= set(said) and len(captions) == len(concepts)


# --- the loss ------------------------------------------------------------------------------------


def plain_contrastive_loss(logits, positive, ignore) -> float:
    losses = []
    for row in range(len(logits)):
        candidates = [k for k in range(len(logits[row])) if not ignore[row][k]]
        targets = [k for k in candidates if positive[row][k]]
        if not targets:
            continue
        total = sum(math.exp(logits[row][k]) for k in candidates)
        losses.append(
            -sum(math.log(math.exp(logits[row][k]) / total) for k in targets) / len(targets)
        )
    return sum(losses) / len(losses)


@pytest.mark.parametrize("seed", range(2))
def test_the_contrastive_loss_is_a_mean_over_positives(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(7, 9, generator=generator)
    positive = torch.rand(7, 9, generator=generator) < 0.4
    ignore = torch.rand(7, 9, generator=generator) < 0.3
    ignore[0] = True  # a row with nothing to compare
    positive[1] = False  # a row without a positive
    logits.requires_grad_()
    loss = contrastive_loss(logits, positive, ignore)
    plain = plain_contrastive_loss(logits.tolist(), positive.tolist(), ignore.tolist())
    assert loss.item() == pytest.approx(plain, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all() and (gradient[ignore] == 0).all()


# --- words ---------------------------------------------------------------------------------------


def test_the_small_vocabulary_cuts_its_corpus_as_clip_does(tmp_path):
    corpus = [concept.name for concept in emoji_concepts()[::9]] + ["a drawing of {}."]
    merges = used_merges(corpus)
    write_merges(merges, tmp_path / "merges.txt.gz")
    small = open_clip.SimpleTokenizer(bpe_path=str(tmp_path / "merges.txt.gz"))
    whole = open_clip.SimpleTokenizer()
    assert 200 < len(merges) < len(whole.bpe_ranks) / 10
    for text in corpus:
        pieces = [small.decoder[token] for token in small.encode(text)]
        assert pieces == [whole.decoder[token] for token in whole.encode(text)]


# --- the model -----------------------------------------------------------------------------------


@torch.no_grad()
def test_the_fast_attention_of_pretraining_is_attention():
    backbone = load_clip("tiny")
    picture = normalize(torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)))
    tokens = backbone.tokenizer(["a cat", "a red apple"])
    slow = backbone.model.encode_image(picture), encode_prompts(backbone.model, tokens)
    fast_attention(backbone.model)
    fast = backbone.model.encode_image(picture), encode_prompts(backbone.model, tokens)
    for one, other in zip(slow, fast, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_pretraining_normalises_as_the_lab_does():
    picture = Image.effect_noise((48, 48), 80).convert("RGB")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    expected = load_clip("tiny").test_transform(picture)[None]
    torch.testing.assert_close(normalize(pixels), expected, atol=1e-5, rtol=0)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A run of a small model without the icons that only the network has."""
    monkeypatch.setattr(pretraining, "ICON_STYLES", {})
    vision = pretraining.ARCHITECTURE["vision_cfg"] | {"image_size": 64, "width": 48, "layers": 1}
    text = pretraining.ARCHITECTURE["text_cfg"] | {"width": 16, "layers": 1}
    monkeypatch.setattr(
        pretraining, "ARCHITECTURE", {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    )
    return Pretraining(tmp_path, Recipe(batch=16))


@pytest.mark.parametrize("minutes", [1, 50])
def test_a_step_in_both_phases(run, minutes):
    run.seconds = 60.0 * minutes
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    assert 0 < run.one_step() < 20
    assert any(not torch.equal(p, before[name]) for name, p in run.model.named_parameters())


def test_what_is_shipped_says_what_was_measured(run, tmp_path):
    run._note(1.0)
    run.write_model()
    card = run.card()
    assert card["parameters"] == sum(p.numel() for p in run.model.parameters())
    zero_shot = {f"zero-shot {name}" for name in EMOJI_SETS}
    assert zero_shot < card["measured"].keys() and card["training_pictures"] == len(run.drawings)
    assert load_file(tmp_path / "tiny-clip.safetensors").keys() == run.model.state_dict().keys()
