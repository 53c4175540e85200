"""Pretraining of the tiny SD3: what it sees, what a step is, how it goes on, what it leaves."""

import csv
import json
from dataclasses import asdict, replace

import pytest
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from data_scripts.pretraining import sd3 as pretraining
from data_scripts.pretraining import sd3_autoencoder as autoencoding
from data_scripts.pretraining.sd3 import Recipe, TransformerPretraining, pretrain
from data_scripts.pretraining.sd3_autoencoder import (
    AutoencoderPretraining,
    edge_difference,
    to_model,
)
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji import STYLES, load_emoji
from serial_lora_course.data.emoji_sets import hidden_codepoints
from serial_lora_course.data.style_sets import caption, things
from tests.labs.lab_models import same_tensors
from tests.models.sd3_models import SMALL_AUTOENCODER, SMALL_TRANSFORMER, small_autoencoder

SHORT = 8 / 60  # minutes: eight steps of the clock below
RECIPE = Recipe(minutes=SHORT, batch=8, padded=4)
AUTOENCODER = autoencoding.Recipe(minutes=SHORT, batch=10)


@pytest.fixture
def small(monkeypatch, clock):
    """Pretraining of small models on twelve things, by a clock on which a step takes a second."""
    transformer = SMALL_TRANSFORMER | {"sample_size": 16, "pos_embed_max_size": 16}
    monkeypatch.setattr(
        pretraining, "build_transformer", lambda: SD3Transformer2DModel(**transformer)
    )
    monkeypatch.setattr(
        autoencoding, "build_autoencoder", lambda: AutoencoderKL(**SMALL_AUTOENCODER)
    )
    few = things()[::90]
    monkeypatch.setattr(pretraining, "things", lambda: few)
    monkeypatch.setattr(autoencoding, "MEASURED", 8)
    for name, number in (("STEPS", 2), ("SHEET", 6)):
        monkeypatch.setattr(pretraining, name, number)
    return few


@pytest.fixture
def autoencoder(tmp_path):
    """The folder of a small autoencoder, with as much of a card as the transformer's reads."""
    folder = tmp_path / "autoencoder" / "tiny-sd3-vae"
    autoencoding.save_half(small_autoencoder(), folder)
    folder.with_suffix(".card.json").write_text(json.dumps({"recipe": asdict(AUTOENCODER)}))
    return folder


def state(run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def averaged_state(run) -> dict[str, torch.Tensor]:
    with run.averaged():
        return state(run)


# --- the autoencoder -----------------------------------------------------------------------------


def test_the_autoencoder_sees_no_hidden_drawing(small, tmp_path):
    run, hidden = AutoencoderPretraining(tmp_path / "run", AUTOENCODER), hidden_codepoints()
    for style, drawings in run.seen.items():
        emoji = load_emoji(style, 64)
        visible = [i for i, c in enumerate(emoji.concepts) if c.codepoints not in hidden]
        assert len(drawings) == len(visible)
        for row in (0, len(visible) // 2, -1):
            expected = torch.tensor(emoji.picture(visible[row]).getdata(), dtype=torch.uint8)
            assert torch.equal(drawings[row].reshape(-1, 3), expected)
    assert sum(map(len, run.seen.values())) + len(run.unseen) == sum(
        len(load_emoji(style, 64)) for style in run.seen
    )


def test_edges_are_compared_step_by_step():
    drawn, pictures = torch.rand(2, 3, 5, 6), torch.rand(2, 3, 5, 6)
    down = (drawn[:, :, 1:] - drawn[:, :, :-1]) - (pictures[:, :, 1:] - pictures[:, :, :-1])
    right = (drawn[..., 1:] - drawn[..., :-1]) - (pictures[..., 1:] - pictures[..., :-1])
    expected = down.abs().mean() + right.abs().mean()
    torch.testing.assert_close(edge_difference(drawn, pictures), expected)
    assert edge_difference(pictures + 0.3, pictures) < 1e-6


@pytest.mark.slow
def test_exported_latents_have_mean_zero_and_spread_one(small, tmp_path):
    AutoencoderPretraining(tmp_path, AUTOENCODER).run()
    model = AutoencoderKL.from_pretrained(tmp_path / "tiny-sd3-vae")
    hidden = hidden_codepoints()
    pictures = []
    for one in (load_emoji(style, 64) for style in STYLES):
        visible = [i for i, c in enumerate(one.concepts) if c.codepoints not in hidden]
        pictures += [one.picture(i) for i in visible[::16]]
    batch = to_model(torch.stack([torch.tensor(p.getdata()).view(64, 64, 3) for p in pictures]))
    with torch.no_grad():
        latents = torch.cat([model.encode(part).latent_dist.mode() for part in batch.split(64)])
    scaled = (latents - model.config.shift_factor) * model.config.scaling_factor
    assert abs(scaled.mean()) < 0.1 and 0.9 < scaled.std() < 1.1


# --- the transformer -----------------------------------------------------------------------------


def test_prompts_latents_and_pictures_belong_together(small, autoencoder, tmp_path):
    run = TransformerPretraining(tmp_path / "run", RECIPE, autoencoder)
    assert run.captions == [caption(concept) for concept in small]
    assert len(run.pictures) == len(run.latents) == len(run.prompts) == len(small)
    twemoji = load_emoji("twemoji", 64)
    place = [concept.codepoints for concept in twemoji.concepts].index(small[3].codepoints)
    assert run.pictures[3].tobytes() == twemoji.picture(place).tobytes()


def test_one_step_in_some_carries_the_pipelines_empty_tokens(
    small, autoencoder, tmp_path, monkeypatch
):
    run = TransformerPretraining(tmp_path / "run", RECIPE, autoencoder)
    shapes, forward = [], run.model.forward

    def watched(latents, tokens, *arguments, **options):
        shapes.append(tuple(tokens.shape[:2]))
        return forward(latents, tokens, *arguments, **options)

    monkeypatch.setattr(run.model, "forward", watched)
    for run.step in range(5):
        run.one_step()
    alone = run.prompts.tokens.shape[1]
    assert shapes == [(2, alone + 256), (8, alone), (8, alone), (8, alone), (2, alone + 256)]


@pytest.mark.slow
def test_a_run_goes_on_from_an_earlier_result(small, autoencoder, tmp_path):
    """As when its checkpoint is lost: from the weights that it left, rounded to float16."""
    folder = tmp_path / "earlier" / "tiny-sd3"
    earlier = TransformerPretraining(tmp_path / "earlier", RECIPE, autoencoder)
    earlier.run()
    later = TransformerPretraining(
        tmp_path / "later", replace(RECIPE, start=str(folder), seed=1), autoencoder
    )
    rounded = {name: tensor.half().float() for name, tensor in averaged_state(earlier).items()}
    assert same_tensors(state(later), rounded)
    later.run()
    card = json.loads((tmp_path / "later" / "tiny-sd3.card.json").read_text())
    assert card["command"].endswith(" --start tiny-sd3") and card["recipe"]["start"] == "tiny-sd3"
    again = AutoencoderPretraining(tmp_path / "vae", replace(AUTOENCODER, start=str(folder)))
    assert same_tensors(state(again), dict(AutoencoderKL.from_pretrained(autoencoder).state_dict()))


@pytest.mark.parametrize("start", ["nowhere", "."])
def test_nothing_to_go_on_from_is_said_in_one_sentence(small, tmp_path, start):
    recipe = replace(AUTOENCODER, start=str(tmp_path / start))
    with pytest.raises(SerialLoRAError, match="has no vae to go on from; give --start"):
        AutoencoderPretraining(tmp_path / "run", recipe)


@pytest.mark.slow
def test_everything_that_is_shipped_is_there_and_is_the_average(small, tmp_path):
    pretrain(tmp_path, RECIPE, AUTOENCODER)
    card = json.loads((tmp_path / "tiny-sd3.card.json").read_text())
    assert card["recipe"] == asdict(RECIPE) and card["autoencoder"]["recipe"] == asdict(AUTOENCODER)
    assert "sd3 --minutes 0.133" in card["command"] and "--autoencoder-minutes" in card["command"]
    assert card["steps"] == 8 and card["licences"].keys() == set(STYLES)
    assert (tmp_path / "tiny-sd3.sheet.png").stat().st_size > 1000
    with (tmp_path / "tiny-sd3.curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 0 <= float(rows[-1]["retrieval"]) == card["measured"]["retrieval"] <= 1

    run = TransformerPretraining(tmp_path, RECIPE, tmp_path / "autoencoder" / "tiny-sd3-vae")
    shipped = SD3Transformer2DModel.from_pretrained(tmp_path / "tiny-sd3" / "transformer")
    expected = {name: tensor.half().float() for name, tensor in averaged_state(run).items()}
    assert same_tensors(dict(shipped.state_dict()), expected)
    assert (tmp_path / "tiny-sd3" / "vae" / "config.json").is_file()

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "autoencoder").rglob("*")}
    pretrain(tmp_path, RECIPE, AUTOENCODER)  # nothing is left to do; that is not touched
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "autoencoder").rglob("*")}
