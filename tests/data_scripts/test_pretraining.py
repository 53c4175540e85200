"""Pretraining of the tiny models: a few steps of each kind, and what it may not see."""

import json
from dataclasses import asdict

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from safetensors.torch import load_file

from data_scripts.pretraining import autoencoder, clip, loop, sam, sd3
from data_scripts.pretraining.icons import Icons
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import load_emoji
from serial_lora_course.data.emoji_sets import EMOJI_SETS, hidden_codepoints
from serial_lora_course.data.scenes import PHOTOGRAPHS, photographs
from serial_lora_course.data.style_sets import things
from tests.labs.lab_models import same_tensors
from tests.models.sam_models import SMALL_SAM
from tests.models.sd3_models import SMALL_AUTOENCODER, SMALL_TRANSFORMER

DRAWERS = ("twemoji", "noto-mono")
NAMES = ("camera", "red apple", "arrow", "horse", "key", "cloud", "bell", "boat", "tree", "cup")
ICONS = Icons(load_emoji("symbola", 48).pictures[:20], NAMES * 2)
KINDS = {"camera": ("device",), "red apple": ("edible fruit", "food")}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """What npm would bring: no emoji, twenty icons and what kinds of things they are."""
    for module in (clip, autoencoder):
        monkeypatch.setattr(module, "ICON_STYLES", {})
        monkeypatch.setattr(module, "load_named_icons", lambda size: ICONS)
    monkeypatch.setattr(clip, "kinds_of", lambda names: {n: KINDS.get(n, ()) for n in names})


def small_clip(monkeypatch, folder, **recipe):
    vision = clip.VISION | {"width": 48, "layers": 1}
    small = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": clip.TEXT | {"width": 16}}
    monkeypatch.setattr(clip, "ARCHITECTURE", small)
    return clip.Pretraining(folder, clip.Recipe(batch=16, **recipe), "clip --seed 0")


def test_clip_is_pretrained_and_on_no_drawing_of_openmoji(monkeypatch, tmp_path):
    run = small_clip(monkeypatch, tmp_path, steps=2)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run.run()
    assert any(not torch.equal(p, before[name]) for name, p in run.model.named_parameters())
    card = json.loads((tmp_path / "tiny-clip.card.json").read_text())
    assert card["steps"] == 2 and card["recipe"] == json.loads(json.dumps(asdict(run.recipe)))
    assert {f"zero-shot {name}" for name in EMOJI_SETS} < card["measured"].keys()
    seen = len(run.drawings.names)
    assert sum(card["data"].values()) == card["training_pictures"] == seen
    assert card["data"].keys() == card["licences"].keys() == {*DRAWERS, "icon sets"}
    assert load_file(tmp_path / "tiny-clip.safetensors").keys() == run.model.state_dict().keys()
    seen = {p.numpy().tobytes() for p in run.drawings.pictures.permute(0, 2, 3, 1)}
    for style in ("openmoji", "openmoji-line", "unifont"):
        assert not {p.tobytes() for p in load_emoji(style, 48).pictures} & seen


def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not_stopped(monkeypatch, tmp_path):
    whole = small_clip(monkeypatch, tmp_path / "whole", steps=4)
    whole.run()
    stopped = small_clip(monkeypatch, tmp_path / "stopped", steps=4)
    steps = iter((stopped.one_step,) * 2)
    monkeypatch.setattr(loop, "KEEP_EVERY", -1)
    with monkeypatch.context() as power:
        power.setattr(stopped, "one_step", lambda: next(steps)())
        with pytest.raises(StopIteration):
            stopped.run()
    again = small_clip(monkeypatch, tmp_path / "stopped", steps=4)
    torch.manual_seed(5)
    again.run()
    assert same_tensors(whole.trained.state_dict(), again.trained.state_dict())
    assert not again.unfinished.exists()


def test_a_run_of_another_recipe_is_refused(monkeypatch, tmp_path):
    small_clip(monkeypatch, tmp_path, steps=8).keep()
    with pytest.raises(SerialLoRAError):
        small_clip(monkeypatch, tmp_path, steps=8, learning_rate=1e-4).go_on()


def test_the_rate_warms_up_stays_and_falls_to_nothing(monkeypatch, tmp_path):
    run = small_clip(monkeypatch, tmp_path, steps=1000, warmup=100, decay=0.2)
    rates = []
    for run.step in (0, 99, 500, 800, 900, 1000):
        run.set_learning_rate()
        rates.append(run.optimizer.param_groups[0]["lr"] / run.recipe.learning_rate)
    assert rates == pytest.approx([0.01, 1, 1, 1, 0.5, 0], abs=1e-9)


def test_sam_is_pretrained_and_a_step_depends_on_its_number_and_the_seed_alone(
    monkeypatch, tmp_path
):
    small, states = SMALL_SAM | {"image_size": 64, "window": 3}, []
    monkeypatch.setattr(sam, "tiny_architecture", lambda: dict(small))
    monkeypatch.setattr(sam, "MEASURED_SCENES", 1)
    for folder, scramble in (("one", 1), ("two", 2)):
        recipe = sam.Recipe(steps=2, batch=2, prompts=2)
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
    few, hidden = things()[::90], hidden_codepoints()
    visible = autoencoder.seen_emoji()
    concepts = [c for style in DRAWERS for c in load_emoji(style, 64).concepts]
    assert len(visible) == sum(c.codepoints not in hidden for c in concepts)

    monkeypatch.setattr(sd3, "build_transformer", lambda: SD3Transformer2DModel(**wide))
    monkeypatch.setattr(
        autoencoder, "build_autoencoder", lambda: AutoencoderKL(**SMALL_AUTOENCODER)
    )
    monkeypatch.setattr(sd3, "things", lambda: few)
    few_icons = Icons(visible[8:16].numpy(), ())
    monkeypatch.setattr(autoencoder, "seen_emoji", lambda: visible[:8])
    monkeypatch.setattr(autoencoder, "load_named_icons", lambda size: few_icons)
    monkeypatch.setattr(autoencoder, "MEASURED", 4)
    monkeypatch.setattr(sd3, "DESIGNERS", {"": "twemoji", "ink": "noto-mono"})
    monkeypatch.setattr(sd3, "STEPS", 2)
    captions, _, _ = sd3.captioned_drawings()
    assert len(captions) == 2 * len(few) and captions[-1] == f"ink {captions[len(few) - 1]}"
    sd3.pretrain(tmp_path, "sd3 --seed 0", 2, 2, 2, 0)
    card = json.loads((tmp_path / "tiny-sd3.card.json").read_text())
    assert card["steps"] == card["autoencoder"]["steps"] == 2
    assert card["autoencoder"]["decoder"]["steps"] == 2
    assert 0 <= card["measured"]["retrieval"] <= 1

    vae = AutoencoderKL.from_pretrained(tmp_path / "tiny-sd3" / "vae")
    with torch.no_grad():
        drawings = visible[:8].permute(0, 3, 1, 2).float() / 255
        latents = vae.encode(2 * autoencoder.on_paper(drawings) - 1).latent_dist.mode()
        before = AutoencoderKL.from_pretrained(tmp_path / "autoencoder" / "tiny-sd3-vae")
        assert torch.equal(  # the decoder learns by itself
            latents, before.encode(2 * autoencoder.on_paper(drawings) - 1).latent_dist.mode()
        )
    latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert abs(latents.mean()) < 0.1 and 0.9 < latents.std() < 1.1


def test_an_outline_is_black_thin_and_only_where_something_ends():
    square = torch.zeros(1, 4, 32, 32)
    square[:, 0, 8:24, 8:24] = square[:, 3, 8:24, 8:24] = 1  # red
    (outlined,) = sd3.outlined(square)
    inside, outside = outlined[:, 10:22, 10:22], torch.cat([outlined[:, :6], outlined[:, 26:]], 1)
    assert (inside == torch.tensor([1.0, 0.0, 0.0])[:, None, None]).all() and (outside == 1).all()
    row = outlined[:, 16].amax(0)  # of all three colours: 0 is black
    for border in (slice(6, 10), slice(22, 26)):
        assert row[border].min() < 0.3  # nearly black in the middle,
        assert 1 <= (1 - row[border]).sum() <= 2.5  # and two pixels wide at most
    assert (sd3.outlined(torch.zeros(1, 4, 32, 32)) == 1).all()
