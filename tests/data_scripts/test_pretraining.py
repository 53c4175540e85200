"""Pretraining of the tiny models: what it may see, its losses, and a few steps of each kind."""

import json
import math
from dataclasses import asdict
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import load_file

from data_scripts.pretraining import clip, loop, sam, sd3
from serial_lora_course.data.emoji import STYLES, load_emoji
from serial_lora_course.data.emoji_sets import EMOJI_SETS, hidden_codepoints, load_emoji_set
from serial_lora_course.data.photographs import PHOTOGRAPHS, photographs
from serial_lora_course.data.style_sets import caption, things
from tests.labs.lab_models import same_tensors
from tests.models.sam_models import SMALL_SAM
from tests.models.sd3_models import SMALL_AUTOENCODER, SMALL_TRANSFORMER

TWO_STEPS = 2 / 60  # minutes of the clock below


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every step of a pretraining takes one second."""
    ticks = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


# --- CLIP ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawings():
    return clip.Drawings([load_emoji(style, 48) for style in STYLES], hidden_codepoints())


def test_clip_sees_no_hidden_openmoji_drawing_and_no_test_picture(drawings):
    """Not even under another name: OpenMoji draws a few concepts alike."""
    hidden, own = hidden_codepoints(), drawings.is_openmoji.tolist()
    shown = [c.codepoints for c, openmoji in zip(drawings.concepts, own, strict=True) if openmoji]
    assert not hidden.intersection(shown)
    seen = {p.numpy().tobytes() for p, o in zip(drawings.pictures, own, strict=True) if o}
    emoji = load_emoji("openmoji", 48)
    for name in EMOJI_SETS:
        for index in load_emoji_set(name, 48).test.sources:
            pixels = np.ascontiguousarray(emoji.pictures[index].transpose(2, 0, 1))
            assert pixels.tobytes() not in seen, (name, emoji.concepts[index].name)


def plain_contrastive_loss(logits, positive, ignore) -> float:
    losses = []
    for row in range(len(logits)):
        candidates = [k for k in range(len(logits[row])) if not ignore[row][k]]
        targets = [k for k in candidates if positive[row][k]]
        if targets:
            total = sum(math.exp(logits[row][k]) for k in candidates)
            each = [math.log(math.exp(logits[row][k]) / total) for k in targets]
            losses.append(-sum(each) / len(targets))
    return sum(losses) / len(losses)


def test_the_contrastive_loss_is_a_mean_over_positives():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(7, 9, generator=generator)
    positive = torch.rand(7, 9, generator=generator) < 0.4
    ignore = torch.rand(7, 9, generator=generator) < 0.3
    ignore[0] = True  # a row with nothing to compare
    positive[1] = False  # a row without a positive
    logits.requires_grad_()
    loss = clip.contrastive_loss(logits, positive, ignore)
    plain = plain_contrastive_loss(logits.tolist(), positive.tolist(), ignore.tolist())
    assert loss.item() == pytest.approx(plain, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all() and (gradient[ignore] == 0).all()


def test_clip_is_pretrained_in_both_phases(monkeypatch, tmp_path):
    monkeypatch.setattr(clip, "ICON_STYLES", {})  # which only the network has
    vision = clip.VISION | {"width": 48, "layers": 1}
    small = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": clip.TEXT | {"width": 16}}
    monkeypatch.setattr(clip, "ARCHITECTURE", small)
    recipe = clip.Recipe(minutes=1 / 60, category_minutes=1 / 60, batch=16)
    run = clip.Pretraining(tmp_path, recipe, "clip --seed 0")
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.run()
    assert any(not torch.equal(p, before[name]) for name, p in run.model.named_parameters())
    card = json.loads((tmp_path / "tiny-clip.card.json").read_text())
    assert card["steps"] == 2 and card["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert card["parameters"] == sum(p.numel() for p in run.model.parameters())
    assert {f"zero-shot {name}" for name in EMOJI_SETS} < card["measured"].keys()
    assert load_file(tmp_path / "tiny-clip.safetensors").keys() == run.model.state_dict().keys()


# --- SAM -----------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    small = SMALL_SAM | {"image_size": 64, "window": 3}
    monkeypatch.setattr(sam, "tiny_architecture", lambda: dict(small))
    monkeypatch.setattr(sam, "MEASURED_SCENES", 1)


def sam_run(folder):
    return sam.SamPretraining(folder, sam.Recipe(minutes=TWO_STEPS, batch=2, prompts=2))


def test_sam_sees_no_hidden_drawing_and_no_test_photograph(small, tmp_path):
    run, hidden = sam_run(tmp_path), hidden_codepoints()
    shown = [c.codepoints not in hidden for c in run.twemoji.concepts]
    assert np.array_equal(run.drawings, run.twemoji.pictures[shown])
    behind = {photograph.tobytes() for photograph in run.backgrounds}
    assert not behind & {photograph.tobytes() for photograph in photographs("test")}
    assert len(behind) == len(PHOTOGRAPHS["train"])


def test_sam_is_pretrained_and_a_step_depends_on_its_number_and_the_seed_alone(small, tmp_path):
    states = []
    for folder, scramble in (("one", 1), ("two", 2)):
        run = sam_run(tmp_path / folder)
        torch.manual_seed(scramble)
        run.run()
        states.append(run.trained.state_dict())
    assert same_tensors(*states)
    card = json.loads((tmp_path / "one" / "tiny-sam.card.json").read_text())
    assert card["steps"] == 2 and 0 <= card["measured"]["openmoji box Dice"] <= 1


def plain_mask_loss(masks, quality, truth, is_point, weight) -> float:
    """One prompt after the other, one pixel after the other."""
    total, guesses = 0.0, []
    for n in range(len(masks)):
        each = []
        for k in range(4):
            entropy = overlap = area = found = common = 0.0
            for logit, target in zip(masks[n, k].flatten(), truth[n].flatten(), strict=True):
                inside = 1 / (1 + math.exp(-logit))
                entropy -= target * math.log(inside) + (1 - target) * math.log(1 - inside)
                overlap, area = overlap + inside * target, area + inside + target
                found, common = found + (logit > 0), common + (logit > 0) * target
            each.append(entropy / truth[n].size + 1 - (2 * overlap + 1) / (area + 1))
            either = found + truth[n].sum() - common
            guesses.append((quality[n, k] - common / max(either, 1)) ** 2)
        total += each[0] + (min(each[1:]) if is_point[n] else 0)
    return total / len(masks) + weight * sum(guesses) / len(guesses)


def test_the_mask_loss_pixel_by_pixel():
    chance = np.random.default_rng(0)
    masks, quality = 3 * chance.standard_normal((3, 4, 5, 5)), chance.random((3, 4))
    truth = (chance.random((3, 5, 5)) < 0.4).astype(float)
    truth[2] = 0  # nothing of it is left at this resolution
    is_point = np.asarray([True, False, True])
    tensors = [torch.from_numpy(a) for a in (masks, quality, truth, is_point)]
    loss = sam.mask_loss(*tensors, iou_weight=0.3).item()
    assert loss == pytest.approx(plain_mask_loss(masks, quality, truth, is_point, 0.3), abs=1e-6)


# --- SD3 -----------------------------------------------------------------------------------------


def test_sd3_is_pretrained_on_visible_drawings_and_ships_its_average(monkeypatch, tmp_path):
    wide = SMALL_TRANSFORMER | {"sample_size": 16, "pos_embed_max_size": 16}
    few = things()[::90]
    monkeypatch.setattr(sd3, "build_transformer", lambda: SD3Transformer2DModel(**wide))
    monkeypatch.setattr(sd3, "build_autoencoder", lambda: AutoencoderKL(**SMALL_AUTOENCODER))
    monkeypatch.setattr(sd3, "things", lambda: few)
    visible = {style: sd3.drawings(style, hidden=False) for style in STYLES}
    hidden = hidden_codepoints()
    for style, found in visible.items():
        emoji = load_emoji(style, 64)
        shown = [i for i, c in enumerate(emoji.concepts) if c.codepoints not in hidden]
        assert len(found) == len(shown)
        assert np.array_equal(found[-1].numpy(), np.asarray(emoji.picture(shown[-1])))
    monkeypatch.setattr(sd3, "drawings", lambda style, hidden: visible[style][:8])
    for name, number in (("MEASURED", 4), ("STEPS", 2)):
        monkeypatch.setattr(sd3, name, number)
    sd3.pretrain(tmp_path, "sd3 --seed 0", TWO_STEPS, TWO_STEPS)
    card = json.loads((tmp_path / "tiny-sd3.card.json").read_text())
    assert card["command"].endswith("pretrain_tiny.py sd3 --seed 0") and card["steps"] == 2
    assert card["autoencoder"]["steps"] == 2 and 0 <= card["measured"]["retrieval"] <= 1

    shipped = tmp_path / "tiny-sd3"
    vae = AutoencoderKL.from_pretrained(shipped / "vae")
    batch = sd3.to_model(torch.cat([each[:8:4] for each in visible.values()]))
    with torch.no_grad():
        latents = vae.encode(batch).latent_dist.mode() - vae.config.shift_factor
    latents = latents * vae.config.scaling_factor
    assert abs(latents.mean()) < 0.1 and 0.9 < latents.std() < 1.1

    later = sd3.TransformerPretraining(
        tmp_path / "later",
        sd3.Recipe(minutes=TWO_STEPS, batch=8, padded=2, start=str(shipped)),
        tmp_path / "autoencoder" / "tiny-sd3-vae",
    )
    assert later.captions == [caption(concept) for concept in few]
    weights = load_file(shipped / "transformer" / "diffusion_pytorch_model.safetensors")
    assert same_tensors({n: w.float() for n, w in weights.items()}, later.model.state_dict())
    shapes, forward = [], later.model.forward
    later.model.forward = lambda x, tokens, *more, **options: (
        shapes.append(tuple(tokens.shape[:2])) or forward(x, tokens, *more, **options)
    )
    for later.step in range(2):
        later.one_step()
    alone = later.prompts.tokens.shape[1]
    assert shapes == [(2, alone + sd3.EMPTY_T5), (8, alone)]  # one in `padded` has empty tokens
    trained = {name: tensor.clone() for name, tensor in later.model.state_dict().items()}
    with later.averaged():
        assert not same_tensors(later.model.state_dict(), trained)
    assert same_tensors(later.model.state_dict(), trained)  # the average was lent
