"""The CLIP lab: what it measures, what it keeps, what it refuses, at both scales."""

import json
from dataclasses import replace
from functools import partial
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

from serial_lora import adapters
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.classification_files import CLASSIFICATION_RELEASES
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs import clip as lab
from serial_lora_course.labs import runs
from serial_lora_course.labs.methods import METHODS, get_method
from serial_lora_course.labs.records import read_records
from serial_lora_course.labs.training import TrainingConfig
from serial_lora_course.models.clip import load_clip
from tests.data_scripts.official_archives import ARCHIVES
from tests.labs.lab_models import (
    VISION,
    calls,
    power_cut,
    register_small,
    state_of,
    unchanged,
    weights_file,
)

QUICK = {"min_steps": 2, "epochs": 1, "batch_size": 8}


class Coloured:
    """Plain pictures whose colour is their class; some classes may have few of them."""

    COLOURS = ((220, 30, 30), (30, 200, 30), (40, 40, 230))

    def __init__(self, counts: list[int], part: str) -> None:
        self.labels = [label for label, count in enumerate(counts) for _ in range(count)]
        self.picture_ids = [f"{part}-{number}" for number in range(len(self.labels))]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        label = self.labels[index]
        shade = tuple(max(0, min(255, c + 7 * (index % 5) - 14)) for c in self.COLOURS[label])
        return Image.new("RGB", (20, 20), shade), label


def coloured(counts=(5, 4, 4)) -> ClassificationData:
    return ClassificationData(
        name="coloured",
        class_names=["red", "green", "blue"],
        template="a {} thing.",
        train=Coloured(list(counts), "train"),
        test=Coloured([4, 4, 4], "test"),
        scale="folder",
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small registered model: its name, and a file of random weights."""
    folder = tmp_path_factory.mktemp("small")
    name = register_small(folder / "configs", "small-lab-clip")
    return name, weights_file(folder / "weights.safetensors", name)


@pytest.fixture
def backbone(small):
    return load_clip("tiny", *small)


@pytest.fixture
def config():
    return lab.lab_config("tiny", rank=4, **QUICK)


@pytest.fixture
def class_folders(tmp_path):
    """Pictures of one's own: a folder of class folders."""
    folder = tmp_path / "my pictures"
    pictures = Coloured([6, 6, 6], "own")
    for index, label in enumerate(pictures.labels):
        place = folder / ("Red_things", "green", "blue")[label]
        place.mkdir(parents=True, exist_ok=True)
        pictures[index][0].save(place / f"{index}.png")
    return folder


# --- measuring -----------------------------------------------------------------------------------


@torch.no_grad()
def test_zero_shot_is_the_nearest_prompt_under_both_styles(backbone):
    data = coloured()
    found = lab.zero_shot(backbone, data)
    for style, form in (("dataset", "a {} thing."), ("generic", "a photo of a {}.")):
        tokens = backbone.tokenizer([form.format(name) for name in data.class_names])
        texts = backbone.model.encode_text(tokens, normalize=True).numpy()
        right = 0
        for picture, label in (data.test[i] for i in range(len(data.test))):
            image = backbone.model.encode_image(backbone.test_transform(picture)[None])[0].numpy()
            cosines = [image @ text / np.linalg.norm(image) for text in texts]
            right += int(np.argmax(cosines) == label)
        assert found[f"zero_shot_{style}"] == pytest.approx(right / len(data.test))


@torch.no_grad()
def test_the_objective_is_cross_entropy_of_scaled_cosines(backbone):
    data, model = coloured(), backbone.model
    pictures = torch.stack([backbone.test_transform(data.test[i][0]) for i in range(5)])
    labels = torch.tensor([0, 1, 2, 1, 0])
    tokens = backbone.tokenizer(data.prompts())
    loss = lab.CLIPObjective(model, tokens)((pictures, labels))
    images = torch.nn.functional.normalize(model.encode_image(pictures), dim=-1).double()
    texts = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1).double()
    scores = model.logit_scale.exp().double() * images @ texts.T
    expected = -sum(scores[i].softmax(0)[labels[i]].log() for i in range(5)) / 5
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_tiny_models_zero_shot_is_clearly_above_chance():
    backbone = load_clip("tiny")
    accuracies, chances = [], []
    for name in ("nature", "food", "objects"):
        data = load_classification(name)
        accuracies.append(lab.evaluate(backbone, data, data.template))
        chances.append(1 / len(data.class_names))
    assert np.mean(accuracies) > 1.5 * np.mean(chances)


# --- one run -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(METHODS))
def test_a_run_leaves_the_backbone_as_it_was(backbone, config, method):
    before = state_of(backbone.model)
    record = lab.run_one(backbone, coloured(), get_method(method), 2, 1, config)
    assert unchanged(backbone.model, before)
    assert record.method == method and record.sizes["steps"] == 2
    assert 0 <= record.measures["accuracy"] <= 1 and record.measures["loss"] > 0


@pytest.mark.parametrize("keep_adapter", [False, True])
def test_a_failed_run_leaves_the_backbone_as_it_was(backbone, config, monkeypatch, keep_adapter):
    def fails(*_, **__):
        raise SerialLoRAError("The loss became nan at step 1; use a smaller learning rate.")

    before = state_of(backbone.model)
    monkeypatch.setattr(lab, "train", fails)
    with pytest.raises(SerialLoRAError, match="nan"):
        lab.run_one(backbone, coloured(), METHODS["lora"], 2, 1, config, keep_adapter=keep_adapter)
    assert unchanged(backbone.model, before)


def test_a_loss_that_explodes_is_one_sentence_and_the_next_run_works(backbone, config):
    with pytest.raises(SerialLoRAError, match="smaller learning rate"):
        wild = replace(config, lr=1e30, min_steps=6)
        lab.run_one(backbone, coloured(), METHODS["serial_lora"], 2, 1, wild)
    record = lab.run_one(backbone, coloured(), METHODS["serial_lora"], 2, 1, config)
    assert np.isfinite(record.measures["loss"])


def test_the_adapter_stays_when_that_is_asked_for(backbone, config):
    record = lab.run_one(
        backbone, coloured(), METHODS["serial_lora"], 2, 1, config, keep_adapter=True
    )
    assert len(adapters(backbone.model)) == 2
    accuracy = lab.evaluate(backbone, coloured(), "a {} thing.")
    assert accuracy == record.measures["accuracy"]


def test_equal_budget_has_exactly_serial_loras_parameters(backbone, config):
    counts = {
        name: lab.run_one(backbone, coloured(), METHODS[name], 1, 1, config).sizes
        for name in ("lora", "serial_lora", "lora_equal_budget")
    }
    budget = counts["serial_lora"]["parameters"]
    assert budget == 2 * (2 * 4 * 16)  # two towers of one block; A and B of rank 4, width 16
    assert counts["lora_equal_budget"]["parameters"] == budget
    assert counts["lora"]["parameters"] == 4 * budget
    assert counts["serial_lora"]["bytes"] == 4 * budget


def test_the_same_run_twice_gives_the_same_record(backbone, config):
    one, two = (
        lab.run_one(backbone, coloured(), METHODS["serial_lora_plus"], 2, 1, config)
        for _ in range(2)
    )
    assert one.measures == two.measures and one.key == two.key
    other = lab.run_one(backbone, coloured(), METHODS["serial_lora_plus"], 2, 2, config)
    assert other.measures["loss"] != one.measures["loss"]


def test_a_class_with_too_few_pictures_is_reported(backbone, config):
    sizes = lab.run_one(backbone, coloured((6, 2, 3)), METHODS["lora"], 4, 1, config).sizes
    assert sizes["short_classes"] == 2 and sizes["training_pictures"] == 4 + 2 + 3


@pytest.mark.parametrize("method", ["lora", "serial_lora", "serial_lora_plus"])
def test_a_short_run_learns(backbone, config, method):
    longer = replace(config, min_steps=40, lr=1e-2, plus_lr=2e-3, dropout=0.0)
    data = coloured()
    untrained = lab.zero_shot(backbone, data)
    short = lab.run_one(backbone, data, METHODS[method], 4, 1, config)
    record = lab.run_one(backbone, data, METHODS[method], 4, 1, longer)
    assert record.measures["loss"] < 0.9 * short.measures["loss"]
    assert record.measures["accuracy"] >= untrained["zero_shot_dataset"]


def test_lora_plus_may_start_from_a_rate_of_its_own():
    config = lab.CLIPLabConfig(lr=1e-2, plus_lr=1e-3)
    assert config.training(steps=1).lr == 1e-2
    assert config.training(steps=1, ratio=20.0).lr == 1e-3
    assert lab.PAPER.training(steps=1, ratio=20.0).lr == lab.PAPER.lr == 2e-4  # as in the paper


# --- many runs -----------------------------------------------------------------------------------


def test_the_lab_runs_every_combination_once(tmp_path, monkeypatch):
    out = tmp_path / "new" / "records.jsonl"
    seen = []
    options = dict(methods=["lora", "serial_lora"], seeds=[1, 2], shots=[1], out=out, **QUICK)
    first = lab.run_lab(
        ["food", "food"], on_record=lambda record, is_new: seen.append(is_new), **options
    )
    assert seen == [True] * 4
    assert read_records(out) == first
    assert {(r.method, r.seed) for r in first} == {
        (method, seed) for method in ("lora", "serial_lora") for seed in (1, 2)
    }
    assert [path.name for path in out.parent.glob("[!.]*")] == ["records.jsonl"]
    for record in first:
        assert {"zero_shot_dataset", "zero_shot_generic", "accuracy"} <= record.measures.keys()
        assert record.settings["lr"] == lab.TINY.lr and record.settings["model_name"] == "tiny-clip"
        assert record.environment["torch"] == torch.__version__

    def must_not_run(*_, **__):
        raise AssertionError("a finished record was run again")

    monkeypatch.setattr(lab, "run_one", must_not_run)
    monkeypatch.setattr(lab, "zero_shot", must_not_run)
    seen.clear()
    again = lab.run_lab(["food"], on_record=lambda record, is_new: seen.append(is_new), **options)
    assert again == first and seen == [False] * 4


def test_other_settings_are_other_runs(small, class_folders, tmp_path):
    name, weights = small
    out = tmp_path / "records.jsonl"
    options = dict(methods=["serial_lora"], seeds=[1], shots=[2], out=out, weights=weights)
    options |= dict(model_name=name, rank=4) | QUICK
    lab.run_lab([str(class_folders)], **options)
    lab.run_lab([str(class_folders)], **{**options, "lr": 5e-4})
    lab.run_lab([str(class_folders)], **{**options, "rank": 2})
    (class_folders / "green" / "6.png").unlink()  # other pictures, the same names of everything
    lab.run_lab([str(class_folders)], **options)
    assert len({record.key for record in read_records(out)}) == 4


def test_an_interrupted_lab_goes_on_and_ends_as_if_uninterrupted(
    small, class_folders, tmp_path, monkeypatch
):
    name, weights = small
    options = dict(methods=["lora", "serial_lora"], seeds=[1], shots=[2], weights=weights)
    options |= dict(model_name=name, rank=4, epochs=1, min_steps=6, batch_size=4)
    monkeypatch.setattr(runs, "TrainingConfig", partial(TrainingConfig, save_every=2))
    whole = lab.run_lab([str(class_folders)], **options)

    out = tmp_path / "records.jsonl"
    with power_cut(lab.CLIPObjective, 6 + 5):
        lab.run_lab([str(class_folders)], out=out, **options)
    assert len(read_records(out)) == 1
    assert len(list(tmp_path.glob("*unfinished*"))) == 1

    steps = calls(monkeypatch, lab.CLIPObjective, "forward")
    records = lab.run_lab([str(class_folders)], out=out, **options)
    assert len(steps) == 2  # from the state saved at step 4
    assert [record.measures for record in records] == [record.measures for record in whole]
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_folder_of_class_folders_is_a_data_set(small, class_folders):
    name, weights = small
    (record,) = lab.run_lab(
        [str(class_folders)],
        ["serial_lora"],
        shots=[3],
        seeds=[1],
        model_name=name,
        weights=weights,
        rank=4,
        **QUICK,
    )
    assert record.dataset == "my pictures" and record.sizes["training_pictures"] == 9


REFUSED = [
    ({"datasets": ["no such set"]}, "unknown data set"),
    ({"datasets": ["eurosat"]}, 'scale "paper"'),
    ({"datasets": []}, "empty"),
    ({"methods": ["no such method"]}, "no method"),
    ({"methods": []}, "empty"),
    ({"shots": []}, "empty"),
    ({"seeds": []}, "empty"),
    ({"shots": [0]}, "shots must be 1 or more"),
    ({"shots": [1, -4]}, "shots must be 1 or more"),
    ({"seeds": [0]}, "seeds must be 1 or more"),
    ({"scale": "huge"}, "scale"),
    ({"rank": 0}, "rank"),
    ({"rank": 193}, "rank 193 is above 192"),
    ({"rank": 6, "methods": ["lora_equal_budget"]}, "four divides"),
    ({"rank": 2, "methods": ["serial_lora", "lora_equal_budget"]}, "four divides"),
    ({"prompt": "poetic"}, "prompt style"),
    ({"precision": "fp8"}, "precision"),
    ({"lr": 0.0}, "[Ll]earning rate"),
    ({"lr": -1.0}, "[Ll]earning rate"),
    ({"weight_decay": -1.0}, "weight decay"),
    ({"epochs": 0}, "epochs"),
    ({"batch_size": 0}, "batch_size"),
    ({"accumulation": 0}, "batch per step"),
    ({"accumulation": 3, "batch_size": 8}, "shared evenly"),
    ({"dropout": 1.0}, "dropout"),
    ({"crop": 0.0}, "crop"),
    ({"towers": ("audio",)}, "audio"),
    ({"model_name": "no-such-model"}, "no model"),
    ({"weights": "no-such-file.safetensors"}, "no weights file"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_bad_input_is_refused_before_anything_runs(tmp_path, monkeypatch, change, message):
    def must_not_run(*_, **__):
        raise AssertionError("something was run before the refusal")

    for module, name in ((lab, "zero_shot"), (lab, "run_one"), (runs, "append_record")):
        monkeypatch.setattr(module, name, must_not_run)
    options = {"datasets": ["food"], "methods": ["lora", "serial_lora"], "shots": [1], "seeds": [1]}
    with pytest.raises(SerialLoRAError, match=message) as caught:
        lab.run_lab(**{**options, "out": tmp_path / "records.jsonl"} | change)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_broken_records_are_refused_before_anything_runs(tmp_path, monkeypatch):
    out = tmp_path / "records.jsonl"
    out.write_text("no record\n")
    monkeypatch.setattr(lab, "run_one", None)
    with pytest.raises(SerialLoRAError, match="Line 1"):
        lab.run_lab(["food"], shots=[1], out=out)
    assert out.read_text() == "no record\n"


def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(lab, "run_one", None)
    monkeypatch.setattr(lab, "zero_shot", None)
    with pytest.raises(SerialLoRAError, match="cannot be written|cannot be read"):
        lab.run_lab(["food"], shots=[1], out=tmp_path / "file" / "records.jsonl")


# --- paper scale in miniature --------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_root(tmp_path_factory):
    """EuroSAT prepared from an archive laid out like the official one, with few pictures."""
    from data_scripts.fetching.sources import archive_folder, prepare

    root = tmp_path_factory.mktemp("paper")
    source = import_module("data_scripts.eurosat").SOURCE
    folder = archive_folder(source, root)
    folder.mkdir(parents=True)
    for name, content in ARCHIVES["eurosat"]().items():
        (folder / name).write_bytes(content)
    prepare(source, root, other_archives=True, progress=False)
    return root


def test_the_paper_scale_runs_end_to_end(small, paper_root, tmp_path):
    name, weights = small
    out = tmp_path / "paper.jsonl"
    records = lab.run_lab(
        ["eurosat"],
        ["serial_lora", "lora_equal_budget"],
        shots=[1],
        seeds=[1],
        scale="paper",
        out=out,
        root=paper_root,
        weights=weights,
        model_name=name,
        rank=4,
        min_steps=1,
        epochs=1,
    )
    assert [record.scale for record in records] == ["paper", "paper"]
    assert records[0].settings["precision"] == "bf16" and records[0].settings["crop"] == 0.08
    assert records[0].sizes["training_pictures"] == 3
    assert [json.loads(line)["dataset"] for line in out.read_text().splitlines()] == [
        "eurosat",
        "eurosat",
    ]


def test_a_corrupt_picture_at_paper_scale_is_one_sentence(small, paper_root, tmp_path):
    import shutil

    name, weights = small
    root = tmp_path / "root"
    shutil.copytree(paper_root, root)
    test = load_classification("eurosat", "paper", root).test
    broken = test.folder / test.picture_ids[0]
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(SerialLoRAError, match=test.picture_ids[0]) as caught:
        lab.run_lab(
            ["eurosat"],
            ["serial_lora"],
            [1],
            [1],
            scale="paper",
            root=root,
            weights=weights,
            model_name=name,
            rank=4,
        )
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_a_data_set_that_was_not_fetched_names_the_command(small, tmp_path):
    with pytest.raises(SerialLoRAError, match="data_scripts"):
        lab.run_lab(["dtd"], scale="paper", root=tmp_path, model_name=small[0], weights=small[1])


def test_the_scales_own_settings():
    assert lab.lab_config("paper").rank == 32 and lab.lab_config("paper").epochs == 50
    assert lab.lab_config("tiny", rank=None, lr=5e-4) == replace(lab.TINY, lr=5e-4)
    assert lab.PAPER.steps(16 * 37) == 925 and lab.PAPER.steps(3) == 50
    assert VISION["width"] == 16 and set(CLASSIFICATION_RELEASES) > {"eurosat", "dtd"}


def test_methods_are_the_papers_four_and_one_at_equal_budget():
    assert list(METHODS) == [
        "lora",
        "serial_lora",
        "lora_plus",
        "serial_lora_plus",
        "lora_equal_budget",
    ]
    assert METHODS["lora_plus"].ratio == METHODS["serial_lora_plus"].ratio == 20
    assert METHODS["lora"].ratio == METHODS["serial_lora"].ratio == 1
    assert METHODS["lora_equal_budget"].rank(32) == 8
