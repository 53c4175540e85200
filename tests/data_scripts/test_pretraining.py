"""Pretraining of the tiny models: a few steps of each kind, and what it may not see."""

import json
from dataclasses import asdict
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import load_file

from data_scripts.pretraining import clip, loop, sam, sd3
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.emoji_sets import EMOJI_SETS, hidden_codepoints, load_emoji_set
from serial_lora_course.data.scenes import PHOTOGRAPHS, photographs
from serial_lora_course.data.style_sets import things
from tests.labs.lab_models import same_tensors
from tests.models.sam_models import SMALL_SAM
from tests.models.sd3_models import SMALL_AUTOENCODER, SMALL_TRANSFORMER

TWO_STEPS = 2 / 60  # minutes of the clock below
DRAWERS = ("twemoji", "openmoji")


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every step of a pretraining takes one second."""
    ticks = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


def test_clip_is_pretrained_in_both_phases_and_on_no_hidden_drawing(monkeypatch, tmp_path):
    monkeypatch.setattr(clip, "ICON_STYLES", {})  # which only the network has
    monkeypatch.setattr(clip, "STYLES", DRAWERS)
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
    assert {f"zero-shot {name}" for name in EMOJI_SETS} < card["measured"].keys()
    assert load_file(tmp_path / "tiny-clip.safetensors").keys() == run.model.state_dict().keys()

    # Not even under another name: OpenMoji draws a few concepts alike.
    seen = {p.numpy().tobytes() for p in run.drawings.pictures[run.drawings.is_openmoji]}
    emoji = load_emoji("openmoji", 48)
    for name in EMOJI_SETS:
        for drawing in emoji.some(load_emoji_set(name, 48).test.sources):
            assert drawing.transpose(2, 0, 1).tobytes() not in seen


def test_sam_is_pretrained_and_a_step_depends_on_its_number_and_the_seed_alone(
    monkeypatch, tmp_path
):
    small, states = SMALL_SAM | {"image_size": 64, "window": 3}, []
    monkeypatch.setattr(sam, "tiny_architecture", lambda: dict(small))
    monkeypatch.setattr(sam, "MEASURED_SCENES", 1)
    for folder, scramble in (("one", 1), ("two", 2)):
        recipe = sam.Recipe(minutes=TWO_STEPS, batch=2, prompts=2)
        run = sam.SamPretraining(tmp_path / folder, recipe)
        torch.manual_seed(scramble)
        run.run()
        states.append(run.trained.state_dict())
    assert same_tensors(*states)
    card = json.loads((tmp_path / "one" / "tiny-sam.card.json").read_text())
    assert card["steps"] == 2 and 0 <= card["measured"]["openmoji box Dice"] <= 1
    concepts = load_emoji("twemoji", sam.DRAWING_SIZE).concepts
    assert len(run.drawings) == sum(c.codepoints not in hidden_codepoints() for c in concepts)
    behind = {photograph.tobytes() for photograph in run.backgrounds}
    assert not behind & {photograph.tobytes() for photograph in photographs("test")}
    assert len(behind) == len(PHOTOGRAPHS["train"])


def test_sd3_is_pretrained_on_visible_drawings_and_its_latents_have_unit_size(
    monkeypatch, tmp_path
):
    wide = SMALL_TRANSFORMER | {"sample_size": 16, "pos_embed_max_size": 16}
    few, hidden, asked = things()[::90], hidden_codepoints(), []
    concepts = [c for c in load_emoji("twemoji", 64).concepts if c.codepoints not in hidden]
    visible = sd3.drawings("twemoji", hidden=False)
    assert len(visible) == len(concepts)

    def drawings(style, hidden):
        asked.append((style, hidden))
        return visible[:8]

    monkeypatch.setattr(sd3, "build_transformer", lambda: SD3Transformer2DModel(**wide))
    monkeypatch.setattr(sd3, "build_autoencoder", lambda: AutoencoderKL(**SMALL_AUTOENCODER))
    monkeypatch.setattr(sd3, "things", lambda: few)
    monkeypatch.setattr(sd3, "drawings", drawings)
    for name, number in (("MEASURED", 4), ("STEPS", 2)):
        monkeypatch.setattr(sd3, name, number)
    sd3.pretrain(tmp_path, "sd3 --seed 0", TWO_STEPS, TWO_STEPS)
    assert set(asked) == {(style, hidden) for style in sd3.STYLES for hidden in (False, True)}
    card = json.loads((tmp_path / "tiny-sd3.card.json").read_text())
    assert card["steps"] == card["autoencoder"]["steps"] == 2
    assert 0 <= card["measured"]["retrieval"] <= 1

    vae = AutoencoderKL.from_pretrained(tmp_path / "tiny-sd3" / "vae")
    with torch.no_grad():
        latents = vae.encode(sd3.to_model(visible[:8:4])).latent_dist.mode()
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert abs(latents.mean()) < 0.1 and 0.9 < latents.std() < 1.1
