"""The SAM lab: what it measures, what it keeps, what it refuses, at both scales."""

import json
import math
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry

from serial_lora import adapters
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data import segmentation_sets
from serial_lora_course.data.subsets import training_subset
from serial_lora_course.labs import runs
from serial_lora_course.labs import sam as lab
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.training import TrainingConfig
from serial_lora_course.models.sam import SamBackbone, build_sam, load_sam
from tests.labs.lab_models import calls, power_cut, state_of, unchanged
from tests.models.sam_models import (
    SMALL_SAM,
    Examples,
    adapted_sam,
    example,
    make_small_sam_the_tiny_one,
    sam_weights_file,
    segmentation_data,
)

QUICK = {"rank": 4, "epochs": 1, "min_steps": 2, "batch_size": 4}
MEASURES = {"dice", "one_minus_dice", "dice_ce", "iou"}


@pytest.fixture
def weights(tmp_path_factory, monkeypatch):
    """Weights of the small SAM, which is the tiny one for a test."""
    make_small_sam_the_tiny_one(monkeypatch)
    return sam_weights_file(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture
def backbone(weights):
    return load_sam("tiny", weights)


@pytest.fixture
def ellipses(monkeypatch):
    """Two data sets of ellipses in the place of the tiny sets."""
    sets = {name: segmentation_data(name=name) for name in ("ellipses", "others")}
    monkeypatch.setattr(lab, "load_segmentation", lambda name, scale, root: sets[name])
    return sets


@pytest.fixture
def config():
    return lab.lab_config("tiny", **QUICK)


# --- measuring -----------------------------------------------------------------------------------


def by_hand(model, example) -> dict[str, float]:
    """One picture's scores with SAM's own predictor, object by object, pixel by pixel."""
    predictor = SamPredictor(model)
    predictor.set_image(np.asarray(example.picture))
    scores = {name: [] for name in ("dice", "iou", "dice_ce", "box_dice", "box_iou")}
    rows, columns = np.mgrid[: example.masks.shape[1], : example.masks.shape[2]]
    for truth, (x0, y0, x1, y1) in zip(example.masks, example.boxes, strict=True):
        box = np.asarray((x0, y0, x1, y1))
        (logits,), _, _ = predictor.predict(box=box, multimask_output=False, return_logits=True)
        filled = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
        for kind, found in (("", logits > 0), ("box_", filled)):
            both, areas = int((found & truth).sum()), int(found.sum() + truth.sum())
            scores[f"{kind}dice"].append(2 * both / areas)
            scores[f"{kind}iou"].append(both / (areas - both))
        inside = 1 / (1 + np.exp(-logits.astype(float)))
        entropy = -np.where(truth, np.log(inside), np.log(1 - inside)).mean()
        overlap = (2 * (inside * truth).sum() + 1e-5) / ((inside**2).sum() + truth.sum() + 1e-5)
        scores["dice_ce"].append(entropy + 1 - overlap)
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    return means | {"one_minus_dice": 1 - means["dice"]}


def test_scores_are_those_of_sams_predictor_pixel_by_pixel():
    model, data = adapted_sam(), segmentation_data(test=6)
    scores = lab.evaluate(SamBackbone(model, "small", "tiny"), data)
    expected = [by_hand(model, e) for e in data.test]
    assert [score.picture_id for score in scores] == data.test.picture_ids
    assert [score.objects for score in scores] == [len(e.masks) for e in data.test]
    for score, hand in zip(scores, expected, strict=True):
        for name, value in hand.items():
            assert getattr(score, name) == pytest.approx(value, abs=1e-5), name
    means = lab.mean_scores(scores)
    assert means == {
        name: pytest.approx(np.mean([hand[name] for hand in expected]), abs=1e-5)
        for name in MEASURES | {"box_dice", "box_iou"}
    }
    assert means["one_minus_dice"] == pytest.approx(1 - means["dice"])
    assert 0 < means["dice"] < 1 and 0.5 < means["box_dice"] < 1


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_scores_do_not_depend_on_the_batch(batch_size):
    backbone, data = SamBackbone(adapted_sam(), "small", "tiny"), segmentation_data(test=6)
    whole = [asdict(score) for score in lab.evaluate(backbone, data)]
    parts = [asdict(score) for score in lab.evaluate(backbone, data, batch_size)]
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_mean_over_pictures_is_not_one_over_objects():
    score = lab.PictureScore("a", 1.0, 0.0, 0.1, 1.0, 0.5, 0.4, objects=1)
    crowded = replace(score, picture_id="b", dice=0.0, objects=9)
    assert lab.mean_scores([score, crowded])["dice"] == 0.5


def test_a_filled_box_is_its_pixels():
    given = example((37, 29), objects=3)
    for filled, mask in zip(lab.fill_boxes(given), given.masks, strict=True):
        rows, columns = np.nonzero(mask)
        expected = np.zeros_like(mask)
        expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert np.array_equal(filled, expected)


def test_base_measures_are_the_unadapted_models(backbone):
    data = segmentation_data()
    base = lab.base_measures(backbone, data)
    means = lab.mean_scores(lab.evaluate(backbone, data))
    assert base == {f"base_{name}": means[name] for name in MEASURES} | {
        name: means[name] for name in ("box_dice", "box_iou")
    }


# --- one run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(METHODS))
def test_a_run_leaves_the_backbone_as_it_was(backbone, config, method):
    before = state_of(backbone.model)
    record = lab.run_one(backbone, segmentation_data(), METHODS[method], 50, 1, config)
    assert unchanged(backbone.model, before)
    assert (record.task, record.scale, record.method) == ("sam", "tiny", method)
    assert record.amount == 50 and record.sizes["training_pictures"] == 5
    assert record.sizes["steps"] == 2 and record.sizes["peak_memory"] == 0
    assert record.sizes["activation_bytes"] > 0
    assert record.measures.keys() == (
        MEASURES | {f"base_{name}" for name in MEASURES} | {"box_dice", "box_iou", "loss"}
    )
    assert all(math.isfinite(value) for value in record.measures.values())
    assert record.measures["one_minus_dice"] == pytest.approx(1 - record.measures["dice"])


@pytest.mark.parametrize("part", ["train", "activation_bytes", "evaluate"])
@pytest.mark.parametrize("keep_adapter", [False, True])
def test_a_failed_run_leaves_the_backbone_as_it_was(
    backbone, config, monkeypatch, part, keep_adapter
):
    def fails(*_, **__):
        raise SerialLoRAError("The loss became nan at step 1; use a smaller learning rate.")

    data = segmentation_data()
    base = lab.base_measures(backbone, data)
    before = state_of(backbone.model)
    monkeypatch.setattr(lab, part, fails)
    with pytest.raises(SerialLoRAError, match="nan"):
        lab.run_one(
            backbone, data, METHODS["lora"], 100, 1, config, base, keep_adapter=keep_adapter
        )
    assert unchanged(backbone.model, before)


def test_a_loss_that_explodes_is_one_sentence_and_the_next_run_works(backbone, config):
    data, wild = segmentation_data(), replace(config, lr=1e30, min_steps=6)
    before = state_of(backbone.model)
    with pytest.raises(SerialLoRAError, match="smaller learning rate"):
        lab.run_one(backbone, data, METHODS["serial_lora"], 100, 1, wild)
    assert unchanged(backbone.model, before)
    record = lab.run_one(backbone, data, METHODS["serial_lora"], 100, 1, config)
    assert np.isfinite(record.measures["loss"])


def test_the_adapter_stays_when_that_is_asked_for(backbone, config):
    data = segmentation_data()
    record = lab.run_one(backbone, data, METHODS["serial_lora"], 100, 1, config, keep_adapter=True)
    assert len(adapters(backbone.model)) == SMALL_SAM["blocks"]
    assert lab.mean_scores(lab.evaluate(backbone, data))["dice"] == record.measures["dice"]


def test_equal_budget_has_exactly_serial_loras_parameters(backbone, config):
    counts = {
        name: lab.run_one(backbone, segmentation_data(), METHODS[name], 20, 1, config).sizes
        for name in ("lora", "serial_lora", "lora_equal_budget")
    }
    budget = counts["serial_lora"]["parameters"]
    assert budget == SMALL_SAM["blocks"] * 2 * QUICK["rank"] * SMALL_SAM["width"]
    assert counts["lora_equal_budget"]["parameters"] == budget
    assert counts["lora"]["parameters"] == 4 * budget
    assert counts["serial_lora"]["bytes"] == 4 * budget
    assert counts["serial_lora"]["activation_bytes"] <= counts["lora"]["activation_bytes"]


def test_the_same_run_twice_gives_the_same_record(backbone, config):
    run = partial(lab.run_one, backbone, segmentation_data(), METHODS["serial_lora_plus"], 50)
    one, two = run(1, config), run(1, config)
    assert one.measures == two.measures and one.key == two.key
    assert run(2, config).measures["loss"] != one.measures["loss"]
    checkpointed = run(1, replace(config, gradient_checkpointing=True))
    assert checkpointed.measures == pytest.approx(one.measures, abs=1e-4)
    assert checkpointed.sizes["activation_bytes"] < one.sizes["activation_bytes"]


@pytest.mark.parametrize("method", ["lora", "serial_lora", "serial_lora_plus"])
def test_a_longer_run_learns(backbone, config, method):
    data = segmentation_data()
    longer = replace(config, min_steps=40, lr=3e-2, plus_lr=6e-3, batch_size=5)
    short = lab.run_one(backbone, data, METHODS[method], 100, 1, config)
    long = lab.run_one(backbone, data, METHODS[method], 100, 1, longer)
    assert long.measures["dice_ce"] < short.measures["dice_ce"] - 0.05
    assert long.measures["dice_ce"] < long.measures["base_dice_ce"]


def test_lora_plus_may_start_from_a_rate_of_its_own():
    for ratio, rate in ((1.0, lab.TINY.lr), (20.0, lab.TINY.plus_lr)):
        assert lab.TINY.training(steps=1, ratio=ratio).lr == rate
        assert lab.PAPER.training(steps=1, ratio=ratio).lr == 1e-4  # as in the paper


# --- subsets -------------------------------------------------------------------------------------


def test_subsets_are_nested_and_seeded():
    data = segmentation_data(train=30)
    for seed in (1, 2, 3):
        fifth, half, whole = (training_subset(data, p, seed) for p in (20, 50, 100))
        assert (len(fifth), len(half), len(whole)) == (6, 15, 30)
        assert half[:6] == fifth and whole[:15] == half and sorted(whole) == list(range(30))
        assert training_subset(data, 20, seed) == fifth
    assert len({tuple(training_subset(data, 20, seed)) for seed in range(1, 9)}) > 4


def test_a_subset_follows_the_pictures_names_and_not_their_places():
    data = segmentation_data(train=20)
    turned = replace(data, train=Examples(data.train.examples[::-1]))
    names = [
        [one.train.picture_ids[i] for i in training_subset(one, 50, 1)] for one in (data, turned)
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("percent", [0, -5, 101, 1000])
def test_shares_outside_1_to_100_are_refused(percent):
    with pytest.raises(SerialLoRAError, match="between 1 and 100"):
        training_subset(segmentation_data(), percent, 1)


def test_the_smallest_share_is_one_picture():
    assert len(training_subset(segmentation_data(), 1, 1)) == 1


# --- many runs -----------------------------------------------------------------------------------


def test_the_lab_runs_every_combination_once(weights, ellipses, tmp_path, monkeypatch):
    out = tmp_path / "new" / "records.jsonl"
    seen = []
    measured = calls(monkeypatch, lab, "base_measures")
    options = dict(methods=["lora", "serial_lora"], percent=[50, 100], seeds=[1], out=out)
    options |= dict(weights=weights, on_record=lambda record, is_new: seen.append(is_new)) | QUICK
    first = lab.run_lab(["ellipses", "others", "ellipses"], **options)
    assert seen == [True] * 8 and len(measured) == 2  # the unadapted model, once a set
    assert read_records(out) == first
    assert {(r.dataset, r.method, r.amount) for r in first} == {
        (name, method, percent)
        for name in ("ellipses", "others")
        for method in ("lora", "serial_lora")
        for percent in (50, 100)
    }
    assert [path.name for path in out.parent.glob("[!.]*")] == ["records.jsonl"]
    for name in ellipses:
        bases = [
            {k: v for k, v in r.measures.items() if k.startswith(("base_", "box_"))}
            for r in first
            if r.dataset == name
        ]
        assert all(base == bases[0] for base in bases)
    assert first[0].settings["model_name"] == "tiny-sam"
    assert first[0].settings["data"] == ellipses["ellipses"].fingerprint()[:16]
    assert first[0].environment["torch"] == torch.__version__

    def must_not_run(*_, **__):
        raise AssertionError("a finished record was run again")

    monkeypatch.setattr(lab, "run_one", must_not_run)
    monkeypatch.setattr(lab, "base_measures", must_not_run)
    seen.clear()
    again = lab.run_lab(["ellipses", "others"], **options)
    assert again == first and seen == [False] * 8


def test_other_settings_are_other_runs(weights, ellipses, tmp_path):
    out = tmp_path / "records.jsonl"
    run = partial(lab.run_lab, ["ellipses"], ["serial_lora"], [50], [1], weights=weights, out=out)
    changes = [{}, {"lr": 5e-4}, {"rank": 2}, {"jitter": 0.2}, {"gradient_checkpointing": True}]
    for change in changes:
        run(**QUICK | change)
    ellipses["ellipses"].train.examples.append(example((30, 31), name="one more"))
    run(**QUICK)
    assert len({record.key for record in read_records(out)}) == len(changes) + 1
    run(**QUICK)
    assert len(read_records(out)) == len(changes) + 1


def test_an_interrupted_lab_goes_on_and_ends_as_if_uninterrupted(
    weights, ellipses, tmp_path, monkeypatch
):
    options = dict(methods=["lora", "serial_lora"], seeds=[1], percent=[100], weights=weights)
    options |= QUICK | dict(min_steps=6, dropout=0.2)
    monkeypatch.setattr(runs, "TrainingConfig", partial(TrainingConfig, save_every=2))
    whole = lab.run_lab(["ellipses"], **options)

    out = tmp_path / "records.jsonl"
    # One batch of each run is for measuring the memory.
    with power_cut(lab.SamObjective, 1 + 6 + 1 + 5):
        lab.run_lab(["ellipses"], out=out, **options)
    assert len(read_records(out)) == 1
    assert len(list(tmp_path.glob("*unfinished*"))) == 1

    seen = calls(monkeypatch, lab.SamObjective, "forward")
    records = lab.run_lab(["ellipses"], out=out, **options)
    assert len(seen) == 1 + 2  # from the state saved at step 4
    assert [record.measures for record in records] == [record.measures for record in whole]
    assert not list(tmp_path.glob("*unfinished*"))


REFUSED = [
    ({"datasets": ["no such set"]}, "unknown segmentation data set"),
    ({"datasets": ["icecream"]}, "unknown segmentation data set"),
    ({"datasets": []}, "empty"),
    ({"methods": ["no such method"]}, "no method"),
    ({"methods": []}, "empty"),
    ({"percent": []}, "empty"),
    ({"seeds": []}, "empty"),
    ({"percent": [0]}, "percent must be 1 or more"),
    ({"percent": [101]}, "between 1 and 100"),
    ({"percent": [20, 50, 1000]}, "between 1 and 100"),
    ({"seeds": [0]}, "seeds must be 1 or more"),
    ({"scale": "huge"}, "scale"),
    ({"rank": 0}, "rank"),
    ({"rank": 193}, "rank 193 is above"),
    ({"rank": 6, "methods": ["lora_equal_budget"]}, "four divides"),
    ({"precision": "fp8"}, "precision"),
    ({"lr": 0.0}, "[Ll]earning rate"),
    ({"lr": math.nan}, "[Ll]earning rate"),
    ({"weight_decay": -1.0}, "weight decay"),
    ({"epochs": 0}, "epochs"),
    ({"min_steps": 0}, "min_steps"),
    ({"batch_size": 0}, "batch_size"),
    ({"accumulation": 0}, "batch per step"),
    ({"accumulation": 3}, "shared evenly"),
    ({"dropout": 1.0}, "dropout"),
    ({"jitter": 0.25}, "fraction of a box's sides"),
    ({"jitter": -0.1}, "fraction of a box's sides"),
    ({"jitter": math.nan}, "fraction of a box's sides"),
    ({"shots": [4]}, "no setting 'shots'"),
    ({"weights": "no-such-file.safetensors"}, "no weights file"),
    ({"weights": "."}, "no weights file"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_bad_input_is_refused_before_anything_runs(weights, tmp_path, monkeypatch, change, message):
    def must_not_run(*_, **__):
        raise AssertionError("something was run before the refusal")

    for module, name in ((lab, "base_measures"), (lab, "run_one"), (runs, "append_record")):
        monkeypatch.setattr(module, name, must_not_run)
    out = tmp_path / "folder" / "records.jsonl"
    options = {"datasets": ["food"], "weights": weights} | change
    with pytest.raises(SerialLoRAError, match=message) as caught:
        lab.run_lab(**options, out=out)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists()


def test_a_place_that_cannot_be_written_is_refused_first(weights, ellipses, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(lab, "base_measures", None)
    for out in (tmp_path / "file" / "records.jsonl", tmp_path, tmp_path / "file"):
        with pytest.raises(SerialLoRAError, match="cannot be written|cannot be read|not a record"):
            lab.run_lab(["ellipses"], out=out, weights=weights, **QUICK)
    assert (tmp_path / "file").read_text() == "in the way"


# --- end to end ----------------------------------------------------------------------------------


@pytest.fixture
def few_scenes(monkeypatch):
    """The tiny sets with a few scenes each, made anew and forgotten afterwards."""
    monkeypatch.setattr(segmentation_sets, "PICTURES", {"train": 5, "test": 2})
    segmentation_sets.load_scene_set.cache_clear()
    yield
    segmentation_sets.load_scene_set.cache_clear()


def test_tiny_scale_runs_end_to_end_on_its_own_scenes(weights, few_scenes, tmp_path):
    out = tmp_path / "tiny.jsonl"
    records = lab.run_lab(
        list(segmentation_sets.SCENE_SETS),
        ["serial_lora"],
        [50],
        [1],
        out=out,
        weights=weights,
        **QUICK,
    )
    assert [record.dataset for record in records] == list(segmentation_sets.SCENE_SETS)
    for record in records:
        assert record.sizes["training_pictures"] == 2
        assert 0.4 < record.measures["box_dice"] < 0.9
    assert [json.loads(line)["task"] for line in out.read_text().splitlines()] == ["sam"] * 5


@pytest.fixture
def paper_scale(monkeypatch, tmp_path):
    """Paper scale with the small model in ViT-B's place; pictures come through workers."""
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: build_sam(**SMALL_SAM))
    monkeypatch.setattr(runs.os, "cpu_count", lambda: 1)
    data = replace(segmentation_data(train=4, test=3), scale="paper")
    monkeypatch.setattr(lab, "load_segmentation", lambda name, scale, root: data)
    return data, sam_weights_file(tmp_path / "vit_b.safetensors")


def test_the_paper_scale_runs_end_to_end(paper_scale):
    _, weights = paper_scale
    records = lab.run_lab(
        ["icecream"],
        ["serial_lora", "lora_equal_budget"],
        [50],
        [1],
        scale="paper",
        weights=weights,
        rank=4,
    )
    for record in records:
        assert record.scale == "paper" and record.settings["model_name"] == "vit_b"
        assert record.settings["gradient_checkpointing"] and record.settings["batch_size"] == 1
        assert record.sizes["steps"] == 5 * 2  # epochs times pictures, one a step


class Broken(Examples):
    def __getitem__(self, index: int):
        raise SerialLoRAError(f"{self.picture_ids[index]} cannot be read; fetch the data again.")


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_corrupt_picture_at_paper_scale_is_one_sentence(paper_scale, monkeypatch, part):
    data, weights = paper_scale
    spoilt = replace(data, **{part: Broken(getattr(data, part).examples)})
    monkeypatch.setattr(lab, "load_segmentation", lambda name, scale, root: spoilt)
    with pytest.raises(SerialLoRAError) as caught:
        lab.run_lab(
            ["icecream"], ["lora"], [100], [1], scale="paper", weights=weights, rank=4, epochs=1
        )
    said = str(caught.value)
    assert said.startswith(f"{part}-") and said.endswith("fetch the data again.")
    assert "\n" not in said


def test_the_scales_own_settings():
    paper = lab.lab_config("paper")
    assert (paper.rank, paper.lr, paper.epochs) == (64, 1e-4, 5)  # what the paper states
    assert (paper.batch_size, paper.weight_decay, paper.dropout) == (1, 0, 0)  # Sam_LoRA's
    assert paper.steps(300) == 1500 and paper.steps(1) == 5
    assert lab.lab_config("tiny", rank=None, lr=5e-4) == replace(lab.TINY, lr=5e-4)
    assert lab.TINY.steps(120) == 90 and lab.TINY.steps(24) == 40
