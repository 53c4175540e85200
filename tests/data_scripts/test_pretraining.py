"""Pretraining of the tiny models: what it may see, its losses, and a few steps of each kind."""

import json
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
from serial_lora_course.data.scenes import PHOTOGRAPHS, photographs
from serial_lora_course.data.style_sets import things
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


# --- SD3 -----------------------------------------------------------------------------------------


def test_sd3_is_pretrained_on_visible_drawings_and_its_latents_have_unit_size(
    monkeypatch, tmp_path
):
    wide = SMALL_TRANSFORMER | {"sample_size": 16, "pos_embed_max_size": 16}
    few, hidden = things()[::90], hidden_codepoints()
    monkeypatch.setattr(sd3, "build_transformer", lambda: SD3Transformer2DModel(**wide))
    monkeypatch.setattr(sd3, "build_autoencoder", lambda: AutoencoderKL(**SMALL_AUTOENCODER))
    monkeypatch.setattr(sd3, "things", lambda: few)
    visible = {style: sd3.drawings(style, hidden=False) for style in STYLES}
    for style, found in visible.items():
        shown = [c for c in load_emoji(style, 64).concepts if c.codepoints not in hidden]
        assert len(found) == len(shown)
    monkeypatch.setattr(sd3, "drawings", lambda style, hidden: visible[style][:8])
    for name, number in (("MEASURED", 4), ("STEPS", 2)):
        monkeypatch.setattr(sd3, name, number)
    sd3.pretrain(tmp_path, "sd3 --seed 0", TWO_STEPS, TWO_STEPS)
    card = json.loads((tmp_path / "tiny-sd3.card.json").read_text())
    assert card["steps"] == card["autoencoder"]["steps"] == 2
    assert 0 <= card["measured"]["retrieval"] <= 1

    vae = AutoencoderKL.from_pretrained(tmp_path / "tiny-sd3" / "vae")
    batch = sd3.to_model(torch.cat([each[:8:4] for each in visible.values()]))
    with torch.no_grad():
        latents = vae.encode(batch).latent_dist.mode() - vae.config.shift_factor
    latents = latents * vae.config.scaling_factor
    assert abs(latents.mean()) < 0.1 and 0.9 < latents.std() < 1.1
