"""Pretraining of the tiny CLIP: what it may see, how it is told, how pictures are changed."""

import gzip
import math
import random

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from data_scripts.pretraining import augment as augmentation
from data_scripts.pretraining import clip as pretraining
from data_scripts.pretraining.augment import augment, move
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
from serial_lora_course.models.weights import tiny_file


@pytest.fixture(scope="module")
def drawings():
    return Drawings([load_emoji(style) for style in STYLES], hidden_codepoints())


# --- what it sees --------------------------------------------------------------------------------


def test_no_hidden_openmoji_drawing_is_seen(drawings):
    hidden = hidden_codepoints()
    for concept, is_openmoji in zip(drawings.concepts, drawings.is_openmoji, strict=True):
        assert not (is_openmoji and concept.codepoints in hidden)


def test_no_test_picture_of_any_set_is_seen(drawings):
    """Not even under another name: OpenMoji draws a few concepts alike."""
    seen = {
        drawings.pictures[index].numpy().tobytes()
        for index in torch.nonzero(drawings.is_openmoji).flatten().tolist()
    }
    for name in EMOJI_SETS:
        test = load_emoji_set(name).test
        for index in test.indices:
            pixels = np.ascontiguousarray(test.emoji.pictures[index].transpose(2, 0, 1))
            assert pixels.tobytes() not in seen, (name, test.emoji.concepts[index].name)


def test_every_other_drawing_is_seen(drawings):
    hidden = hidden_codepoints()
    sets = {style: load_emoji(style) for style in STYLES}
    visible = sum(c.codepoints not in hidden for s in STYLES[1:3] for c in sets[s].concepts)
    assert len(drawings) == visible + len(sets["twemoji"]) + len(sets["noto-mono"])
    assert drawings.pictures.shape == (len(drawings), 4, 64, 64)


def test_a_batch_holds_two_drawings_of_each_concept(drawings):
    recipe = Recipe(batch=64)
    batch = drawings.batch(recipe, random.Random(1))
    names = [drawings.concepts[index].name for index in batch]
    assert len(batch) == 64 and names[::2] == names[1::2] and len(set(names)) == 32
    assert batch == drawings.batch(recipe, random.Random(1))
    assert batch != drawings.batch(recipe, random.Random(2))


def test_symbols_and_flags_are_not_mirrored(drawings):
    for concept, mirror in zip(drawings.concepts, drawings.mirror.tolist(), strict=True):
        assert mirror == (concept.group not in ("Symbols", "Flags"))


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


def test_with_one_positive_each_it_is_clips_loss():
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    loss = contrastive_loss(logits, torch.eye(6).bool(), torch.zeros(6, 6).bool())
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(6))
    torch.testing.assert_close(loss, expected)


# --- augmentation --------------------------------------------------------------------------------


def premultiplied(drawings, indices):
    rgba = drawings.pictures[indices].float() / 255
    rgba[:, :3] *= rgba[:, 3:]
    return rgba


def test_augmented_pictures_are_pictures(drawings):
    rgba = premultiplied(drawings, list(range(0, len(drawings), 40)))
    mirror = torch.ones(len(rgba), dtype=torch.bool)
    found = augment(rgba, mirror, torch.Generator().manual_seed(0))
    assert found.shape == (len(rgba), 3, 64, 64) and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1 and torch.isfinite(found).all()
    again = augment(rgba, mirror, torch.Generator().manual_seed(0))
    other = augment(rgba, mirror, torch.Generator().manual_seed(1))
    assert torch.equal(found, again) and not torch.equal(found, other)


def flips(mirror: bool, count: int = 400) -> int:
    """How many of many copies of an off-centre mark end up on the other side."""
    sheet = torch.zeros(count, 4, 48, 48)
    sheet[:, :, 21:27, 36:42] = 1.0  # right of the middle, further than any shift
    moved = move(sheet, torch.full((count,), mirror), torch.Generator().manual_seed(3))
    columns = torch.arange(48.0) - 23.5
    centre = (moved[:, 3].sum(1) * columns).sum(1) / moved[:, 3].sum((1, 2))
    assert (centre.abs() > 1).all()
    return int((centre < 0).sum())


def test_half_of_what_may_be_mirrored_is_and_nothing_else():
    assert flips(mirror=False) == 0 and 140 < flips(mirror=True) < 260


def test_moving_nothing_changes_nothing(monkeypatch):
    def middle(count, low, high, generator):
        still = 1.0 if low > 0 else 0.0
        return torch.full((count,), still)

    monkeypatch.setattr(augmentation, "uniform", middle)
    pictures = torch.rand(3, 4, 16, 16)
    moved = move(pictures, torch.zeros(3, dtype=torch.bool), torch.Generator())
    torch.testing.assert_close(moved, pictures, atol=1e-5, rtol=0)


def test_one_dark_ink_stays_inside_its_drawing():
    alpha = torch.rand(50, 1, 12, 12)
    ink = augmentation.shift_colours(torch.zeros(50, 3, 12, 12), alpha, torch.Generator())
    assert (ink <= alpha * 0.6 + 1e-6).all() and ink.amax((1, 2, 3)).gt(0).float().mean() > 0.2


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


def test_the_shipped_merges_are_clips_in_clips_order():
    lines = (
        gzip.decompress(tiny_file("tiny-clip.merges.txt.gz").read_bytes()).decode().split("\n")[1:]
    )
    ranks = open_clip.SimpleTokenizer().bpe_ranks
    positions = [ranks[tuple(line.split())] for line in lines if line]
    assert positions == sorted(positions) and len(set(positions)) == len(positions)


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
    from PIL import Image

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
