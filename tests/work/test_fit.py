"""From a folder to a classifier: the best state, interruptions, and what is done with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.labs.own import ClassifyConfig
from serial_lora_course.work.folder import (
    divide,
    fit_folder,
    merge_into_file,
    open_classifier,
    predict,
)
from serial_lora_course.work.vision import load_vision


def files_of(out):
    return {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}


def test_the_state_with_the_lowest_validation_loss_is_what_is_kept_and_tested(job):
    reached = fit_folder(job, progress=False)
    losses = {
        int(k): v["loss"] for k, v in json.loads(files_of(job.out)["validation.json"]).items()
    }
    assert len(losses) > 2 and reached.best_step == min(losses, key=losses.get)
    classifier, run = open_classifier(job.out)
    data = classifier.class_names
    assert (data, run.model) == (["blue", "green", "red"], job.model)
    assert reached.pictures == {"train": 15, "validation": 3, "test": 6}
    assert 0 <= reached.test <= 1 and 0 <= reached.probe <= 1


@pytest.mark.parametrize("save_every", [0.0, 30.0])
def test_an_interrupted_training_ends_as_one_that_was_not(job, tmp_path, monkeypatch, save_every):
    training, steps = ClassifyConfig.training, []

    def saving(self, *arguments, **options):
        return replace(training(self, *arguments, **options), save_every=save_every)

    def stop_at_the_third(step, measured):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ClassifyConfig, "training", saving)
    whole = replace(job, out=str(tmp_path / "whole"))
    expected = fit_folder(whole, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit_folder(job, progress=False, tell=stop_at_the_third)
    gone_on = []
    reached = fit_folder(job, progress=False, tell=lambda step, measured: gone_on.append(step))
    assert replace(reached, seconds=0) == replace(expected, seconds=0)
    assert gone_on[0] == (steps[-1] + steps[0] if save_every == 0 else steps[0])
    for name in ("adapter.safetensors", "head.safetensors"):
        ours, theirs = (load_file(Path(each.out) / name) for each in (job, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())
    assert files_of(job.out).keys() == files_of(whole.out).keys()


def test_training_stops_when_the_validation_loss_no_longer_falls(job):
    runaway = replace(job, patience=1, config=replace(job.config, lr=0.5, epochs=40))
    steps = []
    reached = fit_folder(runaway, progress=False, tell=lambda step, measured: steps.append(step))
    assert reached.steps == steps[-1] < 80


def test_what_is_finished_is_not_run_again_and_nothing_else_is_overwritten(job, pictures, tmp_path):
    first = fit_folder(job, progress=False)
    before = files_of(job.out)
    assert fit_folder(job, progress=False, tell=pytest.fail) == first
    with pytest.raises(SerialLoRAError, match="another run"):
        fit_folder(replace(job, seed=2), progress=False)
    changed = pictures / "red" / "0.png"
    kept = changed.read_bytes()
    Image.new("RGB", (40, 40), "black").save(changed)
    try:
        with pytest.raises(SerialLoRAError, match="pictures have changed"):
            fit_folder(job, progress=False)
    finally:
        changed.write_bytes(kept)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(SerialLoRAError, match="other files"):
        fit_folder(replace(job, out=str(tmp_path / "mine")), progress=False)
    assert files_of(job.out) == before
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_that_never_began_leaves_its_folder_to_another(job):
    with pytest.raises(SerialLoRAError, match="cannot be loaded"):
        fit_folder(replace(job, model="timm/no_such_model"), progress=False)
    short = replace(job, config=replace(job.config, epochs=1))
    assert fit_folder(short, progress=False).steps == 3
    with pytest.raises(SerialLoRAError, match="another run"):
        fit_folder(job, progress=False)


def test_predictions_are_the_models_own_also_after_the_merge(job, pictures, weights, tmp_path):
    fit_folder(job, progress=False)
    classifier, _ = open_classifier(job.out)
    paths = sorted(pictures.glob("*/3.png"))
    found = predict(classifier, paths, batch_size=2)
    prepare = classifier.preprocessing.for_test()
    with torch.no_grad():
        rows = [classifier(prepare(read_picture(path))[None]).exp() for path in paths]
        expected = torch.cat([row / row.sum() for row in rows])
    torch.testing.assert_close(found, expected)

    merged = load_vision("timm/test_vit", merge_into_file(job.out, tmp_path / "merged.safetensors"))
    base = load_file(weights)
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(merged(x), classifier.model(x), rtol=1e-4, atol=1e-4)
    changed = {k for k, v in merged.state_dict().items() if not torch.equal(v, base[k])}
    assert changed and all("attn.qkv.weight" in name or "bias" in name for name in changed)


def test_each_class_is_divided_by_itself(pictures):
    from serial_lora_course.data.folder import load_folder

    train = load_folder(pictures).train
    parts = divide(train, 0.2)
    ids = [set(part.picture_ids) for part in parts.values()]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == set(train.picture_ids)
    assert all(set(part.labels) == {0, 1, 2} for part in parts.values())
    for part in parts.values():
        assert all(
            train.labels[train.picture_ids.index(i)] == label
            for i, label in zip(part.picture_ids, part.labels, strict=True)
        )


@pytest.mark.parametrize("name", ["timm/no_such_model", "open_clip/nothing", "no/such-model", ""])
def test_an_unknown_model_is_one_sentence(name):
    with pytest.raises(SerialLoRAError, match="cannot be loaded"):
        load_vision(name)


@pytest.mark.parametrize("name", ["reached.json", "validation.json"])
@pytest.mark.parametrize("content", ["[" * 50_000, "[]", "{}", '{"1": {"loss": "high"}}', "no"])
def test_a_file_that_somebody_changed_is_one_sentence(job, name, content):
    Path(job.out).mkdir()
    (Path(job.out) / "run.yaml").write_bytes(job.as_yaml())
    (Path(job.out) / name).write_text(content)
    if (name, content) == ("validation.json", "{}"):
        return  # nothing was measured yet
    with pytest.raises(SerialLoRAError, match=name):
        fit_folder(job, progress=False)


def test_a_training_that_diverges_is_told(job):
    with pytest.raises(SerialLoRAError, match="smaller --lr"):
        fit_folder(replace(job, config=replace(job.config, lr=1e10)), progress=False)
