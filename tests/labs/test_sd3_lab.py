"""The SD3 lab: what it measures, what it keeps, what it refuses."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from serial_lora import adapters
from serial_lora.errors import SerialLoRAError
from serial_lora.picture_metrics import frechet_distance
from serial_lora_course.data.types import StyleData, StyleExample
from serial_lora_course.labs import runs
from serial_lora_course.labs import sd3 as lab
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.sd3_inputs import encode_style
from serial_lora_course.labs.training import TrainingConfig
from tests.labs.lab_models import calls, power_cut, state_of, unchanged
from tests.models.sd3_models import (
    SMALL_TRANSFORMER,
    make_small_sd3_the_tiny_one,
    official_folder,
    small_backbone,
)

QUICK = {
    "rank": 4,
    "epochs": 1,
    "min_steps": 2,
    "batch_size": 4,
    "resolution": 16,
    "drawing_steps": 2,
}
REACHED = {"fid", "fid_error", "kid", "kid_std", "clip_score", "clip_error", "style_share"}
COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 200, 60), (90, 90, 90)]


class Pictures(list):
    """Captioned pictures of one colour each."""

    def __init__(self, part: str, count: int) -> None:
        super().__init__(
            StyleExample(
                Image.new("RGB", (16, 16), COLOURS[i % 5]), f"colour {i % 5}", f"{part} {i}"
            )
            for i in range(count)
        )

    @property
    def picture_ids(self):
        return [example.picture_id for example in self]


def style_data(name="colours", train=10, test=6) -> StyleData:
    return StyleData(name=name, train=Pictures("train", train), test=Pictures("test", test))


class ColourJudge:
    """Judges by the mean colour: the darker, the more in style."""

    def picture_features(self, pictures):
        return torch.stack([torch.tensor(np.asarray(p)).float().mean((0, 1)) for p in pictures])

    def clip_scores(self, pictures, captions):
        assert len(pictures) == len(captions)
        return self.picture_features(pictures).mean(1) / 255

    def style_measures(self, pictures, style):
        dark = self.picture_features(pictures).mean(1) < 128
        return {"style_share": dark.float().mean().item()}


@pytest.fixture(autouse=True)
def two_styles(monkeypatch):
    """Two data sets of colours in the place of the tiny styles, and a judge that is quick."""
    sets = {name: style_data(name=name) for name in ("colours", "others")}
    monkeypatch.setattr(lab, "load_style", lambda name, scale, root: sets[name])
    monkeypatch.setattr(lab, "load_judge", lambda scale: ColourJudge())
    return sets


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """The small SD3, which is the tiny one for a test."""
    return make_small_sd3_the_tiny_one(monkeypatch, tmp_path / "tiny")


@pytest.fixture
def config():
    return lab.lab_config("tiny", **QUICK)


@pytest.fixture
def run_one(config):
    """`run_one` on the small model with everything that it needs, and the backbone itself."""
    backbone, judge, data = small_backbone(), ColourJudge(), style_data()
    trial = lab.prepare_trial(backbone, judge, data)
    encoded = encode_style(backbone, data.train, 16)

    def run(method="serial_lora", percent=100, seed=1, config=config, **options):
        return lab.run_one(
            backbone,
            judge,
            data,
            encoded,
            trial,
            METHODS[method],
            percent,
            seed,
            config,
            **options,
        )

    run.backbone, run.trial, run.judge = backbone, trial, judge
    return run


# --- measuring -----------------------------------------------------------------------------------


def test_scores_are_the_judges_on_all_pictures():
    data, judge = style_data(), ColourJudge()
    trial = lab.prepare_trial(small_backbone(), judge, data)
    drawn = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    scores = lab.score_pictures(drawn, trial, judge, "colours")
    assert scores.keys() == REACHED
    features = drawn.reshape(6, -1, 3).mean(1)
    real = np.asarray([COLOURS[i % 5] for i in range(6)], float)
    expected = frechet_distance(torch.tensor(features), torch.tensor(real))
    assert scores["fid"] == pytest.approx(expected, rel=1e-4)
    each = features.mean(1) / 255
    assert scores["clip_score"] == pytest.approx(each.mean(), rel=1e-4)
    assert scores["clip_error"] == pytest.approx(each.std(ddof=1) / math.sqrt(6), rel=1e-3)
    assert scores["style_share"] == pytest.approx((features.mean(1) < 128).mean())


def test_the_trial_is_the_held_out_pictures_and_fixed_seeds():
    data = style_data()
    trial = lab.prepare_trial(small_backbone(), ColourJudge(), data)
    assert trial.captions == [f"colour {i % 5}" for i in range(6)]
    assert list(trial.seeds) == list(range(6)) and len(trial.prompts) == 6
    held_out = [example.picture for example in data.test]
    assert torch.equal(trial.reference, ColourJudge().picture_features(held_out))


def test_base_measures_are_the_unadapted_models_and_real_pictures(run_one, config):
    data = style_data()
    base = lab.base_measures(run_one.backbone, run_one.judge, data, run_one.trial, config)
    drawn = lab.draw_trial(run_one.backbone, run_one.trial, config)
    scores = lab.score_pictures(drawn, run_one.trial, run_one.judge, "colours")
    assert {k: v for k, v in base.items() if k.startswith("base_")} == {
        f"base_{name}": value for name, value in scores.items()
    }
    # The first six training pictures have the colours of the six held-out ones.
    assert base["real_fid"] == pytest.approx(0, abs=1e-3)


# --- one run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(METHODS))
def test_a_run_leaves_the_backbone_as_it_was(run_one, method):
    model = run_one.backbone.model
    before = state_of(model)
    record = run_one(method, percent=50)
    assert unchanged(model, before) and not model.is_gradient_checkpointing
    assert (record.task, record.scale, record.method) == ("sd3", "tiny", method)
    assert record.amount == 50 and record.sizes["training_pictures"] == 5
    assert record.sizes["steps"] == 2 and record.sizes["drawings"] == 6
    assert record.sizes["activation_bytes"] > 0
    without = {f"{kind}_{name}" for kind in ("base", "real") for name in REACHED}
    assert record.measures.keys() == REACHED | without | {"loss"}
    assert all(math.isfinite(value) for value in record.measures.values())


@pytest.mark.parametrize("part", ["train", "activation_bytes", "draw_trial"])
@pytest.mark.parametrize("keep_adapter", [False, True])
def test_a_failed_run_leaves_the_backbone_as_it_was(run_one, monkeypatch, part, keep_adapter):
    def fails(*_, **__):
        raise SerialLoRAError("The loss became nan at step 1; use a smaller learning rate.")

    model = run_one.backbone.model
    before = state_of(model)
    monkeypatch.setattr(lab, part, fails)
    with pytest.raises(SerialLoRAError, match="nan"):
        run_one(base={"base_fid": 0.0}, keep_adapter=keep_adapter)
    assert unchanged(model, before) and not model.is_gradient_checkpointing


def test_the_adapter_stays_when_that_is_asked_for(run_one, config):
    record = run_one(keep_adapter=True)
    assert len(adapters(run_one.backbone.model)) == SMALL_TRANSFORMER["num_layers"]
    drawn = lab.draw_trial(run_one.backbone, run_one.trial, config)
    scores = lab.score_pictures(drawn, run_one.trial, run_one.judge, "colours")
    assert scores["fid"] == record.measures["fid"]


def test_equal_budget_has_exactly_serial_loras_parameters(run_one):
    sizes = {
        name: run_one(name, 20, base={}).sizes
        for name in ("lora", "serial_lora", "lora_equal_budget")
    }
    budget = sizes["serial_lora"]["parameters"]
    assert budget == 2 * QUICK["rank"] * 16 * SMALL_TRANSFORMER["num_layers"]
    assert sizes["lora_equal_budget"]["parameters"] == budget
    assert sizes["lora"]["parameters"] == 4 * budget == sizes["serial_lora"]["bytes"]


def test_the_same_run_twice_gives_the_same_record(run_one, config):
    one, two = (run_one(base={"base_fid": 1.0}) for _ in range(2))
    assert one.measures == two.measures and one.key == two.key
    assert run_one(seed=2, base={"base_fid": 1.0}).measures["loss"] != one.measures["loss"]
    other = replace(config, gradient_checkpointing=True)
    checkpointed = run_one(config=other, base={"base_fid": 1.0})
    assert checkpointed.measures == pytest.approx(one.measures, rel=1e-3)
    assert checkpointed.sizes["activation_bytes"] < one.sizes["activation_bytes"]


@pytest.mark.parametrize("method", ["lora", "serial_lora", "serial_lora_plus"])
def test_a_longer_run_learns(run_one, config, method):
    longer = replace(config, min_steps=120, lr=2e-2, plus_lr=5e-3, batch_size=10, text_dropout=0.0)
    short, long = (
        run_one(method, config=one, base={}).measures["loss"] for one in (config, longer)
    )
    assert long < short


def test_the_stream_decides_what_is_adapted(run_one, config):
    parameters = {
        stream: run_one(config=replace(config, stream=stream), base={}).sizes["parameters"]
        for stream in ("image", "text", "both")
    }
    assert parameters["both"] == parameters["image"] + parameters["text"]


def test_settings_of_the_paper_are_the_papers():
    training = lab.PAPER.training(steps=1)
    assert (training.lr, training.schedule, training.clip_norm) == (1.5e-5, "constant", 1.0)
    assert (lab.PAPER.rank, lab.PAPER.epochs, lab.PAPER.guidance) == (64, 10, 7.0)
    assert lab.PAPER.drawing_steps == lab.TINY.drawing_steps == 28


# --- many runs -----------------------------------------------------------------------------------


def test_the_lab_runs_every_combination_once(shipped, tmp_path, monkeypatch):
    out, seen = tmp_path / "new" / "records.jsonl", []
    measured = calls(monkeypatch, lab, "base_measures")
    options = dict(methods=["lora", "serial_lora"], percent=[50, 100], seeds=[1], out=out)
    options |= dict(on_record=lambda record, is_new: seen.append(is_new)) | QUICK
    options |= dict(pictures=tmp_path / "pictures")
    first = lab.run_lab(["colours", "others", "colours"], **options)
    assert seen == [True] * 8 and len(measured) == 2  # the unadapted model, once a style
    assert read_records(out) == first
    assert {(r.dataset, r.method, r.amount) for r in first} == {
        (name, method, percent)
        for name in ("colours", "others")
        for method in ("lora", "serial_lora")
        for percent in (50, 100)
    }
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 8
    assert [path.name for path in out.parent.glob("[!.]*")] == ["records.jsonl"]

    def must_not_run(*_, **__):
        raise AssertionError("a finished record was run again")

    monkeypatch.setattr(lab, "run_one", must_not_run)
    monkeypatch.setattr(lab, "base_measures", must_not_run)
    seen.clear()
    again = lab.run_lab(["colours", "others"], **options)
    assert again == first and seen == [False] * 8


def test_an_interrupted_lab_goes_on_and_ends_as_if_uninterrupted(shipped, tmp_path, monkeypatch):
    options = dict(methods=["lora", "serial_lora"], seeds=[1], percent=[100])
    options |= QUICK | dict(min_steps=6, dropout=0.2)
    monkeypatch.setattr(runs, "TrainingConfig", partial(TrainingConfig, save_every=2))
    whole = lab.run_lab(["colours"], **options)

    out = tmp_path / "records.jsonl"
    # One batch of each run is for measuring the memory.
    with power_cut(lab.StyleObjective, 1 + 6 + 1 + 5):
        lab.run_lab(["colours"], out=out, **options)
    assert len(read_records(out)) == 1
    seen = calls(monkeypatch, lab.StyleObjective, "forward")
    records = lab.run_lab(["colours"], out=out, **options)
    assert len(seen) == 1 + 2  # from the state saved at step 4
    assert [record.measures for record in records] == [record.measures for record in whole]
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_folder_in_the_official_layout_takes_the_same_way(tmp_path):
    """Shift 3, 16 latent channels, T5, bfloat16 weights: paper scale, but for the sizes."""
    options = dict(methods=["lora", "serial_lora"], seeds=[1], scale="paper")
    options |= QUICK | dict(resolution=32, batch_size=4, accumulation=2, drawing_steps=2)
    folder = official_folder(tmp_path / "sd3")
    records = lab.run_lab(["colours"], weights=folder, out=tmp_path / "paper.jsonl", **options)
    assert [record.method for record in records] == ["lora", "serial_lora"]
    for record in records:
        assert all(math.isfinite(value) for value in record.measures.values())
        assert record.settings["gradient_checkpointing"] and record.settings["guidance"] == 7.0
    lora, serial = (record.sizes["parameters"] for record in records)
    assert lora == 4 * serial


REFUSED = [
    ({"datasets": []}, "empty"),
    ({"methods": ["no such method"]}, "no method"),
    ({"percent": [101]}, "between 1 and 100"),
    ({"seeds": [0]}, "seeds must be 1 or more"),
    ({"scale": "huge"}, "scale"),
    ({"rank": 17}, "rank 17 is above"),
    ({"rank": 6, "methods": ["lora_equal_budget"]}, "four divides"),
    ({"lr": 0.0}, "[Ll]earning rate"),
    ({"accumulation": 3}, "shared evenly"),
    ({"stream": "sound"}, "image, text, both"),
    ({"weighting": "cosine"}, "plain, sigma_squared"),
    ({"text_dropout": 1.0}, "text_dropout"),
    ({"guidance": -1.0}, "guidance"),
    ({"guidance": math.nan}, "guidance"),
    ({"drawing_steps": 0}, "drawing_steps"),
    ({"resolution": 24}, "divisible by 16"),
    ({"resolution": 0}, "resolution"),
    ({"schedule": "sine"}, "schedule"),
    ({"clip_norm": -1.0}, "gradient norm"),
    ({"shots": [4]}, "no setting 'shots'"),
    ({"weights": "no-such-folder"}, "no folder"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_bad_input_is_refused_before_anything_runs(shipped, tmp_path, monkeypatch, change, message):
    def must_not_run(*_, **__):
        raise AssertionError("something was run before the refusal")

    for module, name in ((lab, "base_measures"), (lab, "run_one"), (runs, "append_record")):
        monkeypatch.setattr(module, name, must_not_run)
    out = tmp_path / "folder" / "records.jsonl"
    with pytest.raises(SerialLoRAError, match=message) as caught:
        lab.run_lab(**{"datasets": ["colours"]} | QUICK | change, out=out)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists()
