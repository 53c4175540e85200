"""From a folder to a classifier: the best state, interruptions, and what is done with it."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.pictures import read_picture
from serial_lora_course.work import folder
from serial_lora_course.work.folder import (
    divide,
    fit_folder,
    open_classifier,
    predict,
)
from serial_lora_course.work.job import ClassifyConfig
from serial_lora_course.work.vision import load_vision
from tests.work.conftest import job_of


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
    assert gone_on[0] == steps[-1] + steps[0]
    for name in ("adapter.safetensors", "head.safetensors"):
        ours, theirs = (load_file(Path(each.out) / name) for each in (job, whole))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours.keys() | theirs.keys())
    assert files_of(job.out).keys() == files_of(whole.out).keys()


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def stop(*_):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted(pictures, weights, tmp_path_factory):
    """What the job of these tests reaches, and the tensors that it keeps."""
    job = job_of(pictures, weights, tmp_path_factory.mktemp("whole") / "classifier")
    return fit_folder(job, progress=False), tensors_of(job.out)


def tensors_of(out):
    names = ("adapter.safetensors", "head.safetensors")
    return {(name, key): t for name in names for key, t in load_file(Path(out) / name).items()}


#: What is called -> at which of its calls the process is killed; there are five rounds.
PLACES = {
    "encode": 3 + 5,  # the last validation; the probe looks at three parts
    "save_classifier": 2,
    "eject": 1,
    "write_reports": 1,
    "write_json": 5 + 1,  # the result
}


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_near_the_end_loses_nothing(job, uninterrupted, monkeypatch, place):
    real, calls = getattr(folder, place), []

    def killed(*arguments, **options):
        calls.append(place)
        if len(calls) == PLACES[place]:
            raise Killed
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folder, place, killed)
        with pytest.raises(Killed):
            fit_folder(job, progress=False)
    rounds = []
    reached = fit_folder(job, progress=False, tell=lambda step, measured: rounds.append(step))
    expected, tensors = uninterrupted
    assert replace(reached, seconds=0) == replace(expected, seconds=0)
    kept = tensors_of(job.out)
    assert kept.keys() == tensors.keys()
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)
    assert len(rounds) <= (4 if place == "save_classifier" else 1)
    assert not (Path(job.out) / "unfinished.pt").exists()


def test_a_process_that_the_system_kills_goes_on(job, uninterrupted):
    program = (
        "import os, signal, sys\n"
        "from serial_lora_course.work import folder\n"
        "folder.eject = lambda model: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from serial_lora_course.cli import main\n"
        "main(['fit', '--config', sys.argv[1]])\n"
    )
    asked = Path(job.out).with_name("asked.yaml")
    asked.write_bytes(job.as_yaml())
    done = subprocess.run([sys.executable, "-c", program, str(asked)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    reached = fit_folder(job, progress=False, tell=pytest.fail)
    assert replace(reached, seconds=0) == replace(uninterrupted[0], seconds=0)


def exchange(pictures, weights):
    """Two mislabelled pictures put right."""
    one, other = pictures / "red" / "0.png", pictures / "blue" / "0.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def rename(pictures, weights):
    (pictures / "red").rename(pictures / "azure")


def repaint(pictures, weights):
    Image.new("RGB", (40, 40), "black").save(pictures / "red" / "0.png")


def reweigh(pictures, weights):
    state = load_file(weights)
    save_file({name: tensor * 1.01 for name, tensor in state.items()}, weights)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (exchange, "pictures"),
        (rename, "class folders"),
        (repaint, "pictures"),
        (reweigh, "weights"),
    ],
)
def test_nothing_goes_on_over_other_pictures_classes_or_weights(
    pictures, weights, tmp_path, change, what, finished
):
    own = shutil.copytree(pictures, tmp_path / "colours")
    file = shutil.copy(weights, tmp_path / "own.safetensors")
    job = job_of(own, file, tmp_path / "classifier")
    if finished:
        fit_folder(job, progress=False)
    else:
        with pytest.raises(KeyboardInterrupt):
            fit_folder(job, progress=False, tell=stop)
    before = files_of(job.out)
    change(own, file)
    with pytest.raises(SerialLoRAError, match=f"{what}.* have changed"):
        fit_folder(job, progress=False)
    assert files_of(job.out) == before


def test_one_process_at_a_time_trains_into_a_folder(job, uninterrupted):
    refused = []

    def begin_another(step, measured):
        with pytest.raises(SerialLoRAError, match="another process"):
            fit_folder(job, progress=False)
        refused.append(step)

    reached = fit_folder(job, progress=False, tell=begin_another)
    assert refused and replace(reached, seconds=0) == replace(uninterrupted[0], seconds=0)
    assert [path.name for path in Path(job.out).parent.iterdir()] == [Path(job.out).name]


def test_a_run_yaml_of_somebody_is_not_written_over(job):
    Path(job.out).mkdir()
    mine = Path(job.out) / "run.yaml"
    mine.write_bytes(b"# mine\n" + job.as_yaml())
    with pytest.raises(SerialLoRAError, match="other files"):
        fit_folder(job, progress=False)
    assert mine.read_bytes().startswith(b"# mine")


def test_training_stops_when_the_validation_loss_no_longer_falls(job):
    runaway = replace(job, patience=1, config=replace(job.config, lr=0.5, epochs=40))
    steps = []
    reached = fit_folder(runaway, progress=False, tell=lambda step, measured: steps.append(step))
    assert reached.steps == steps[-1] < 80


def test_what_is_finished_is_not_run_again_and_nothing_else_is_overwritten(job, tmp_path):
    first = fit_folder(job, progress=False)
    before = files_of(job.out)
    assert fit_folder(job, progress=False, tell=pytest.fail) == first
    with pytest.raises(SerialLoRAError, match="another run"):
        fit_folder(replace(job, seed=2), progress=False)
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


def test_predictions_are_the_models_own(job, pictures):
    fit_folder(job, progress=False)
    classifier, _ = open_classifier(job.out)
    paths = sorted(pictures.glob("*/3.png"))
    found = predict(classifier, paths, batch_size=2)
    prepare = classifier.preprocessing.for_test()
    with torch.no_grad():
        rows = [classifier(prepare(read_picture(path))[None]).exp() for path in paths]
        expected = torch.cat([row / row.sum() for row in rows])
    torch.testing.assert_close(found, expected)


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
    with pytest.raises(KeyboardInterrupt):
        fit_folder(job, progress=False, tell=stop)
    (Path(job.out) / name).write_text(content)
    if (name, content) == ("validation.json", "{}"):
        return  # nothing was measured yet
    with pytest.raises(SerialLoRAError, match=name):
        fit_folder(job, progress=False)


def test_a_training_that_diverges_is_told(job):
    with pytest.raises(SerialLoRAError, match="smaller --lr"):
        fit_folder(replace(job, config=replace(job.config, lr=1e10)), progress=False)


def test_a_long_training_is_told_of_before_it_begins(job, monkeypatch):
    monkeypatch.setattr(folder, "LONG", 0)
    monkeypatch.setattr(folder, "fitted_probe", stop)
    with pytest.warns(UserWarning, match="a step of 7 pictures of 96 x 96 takes about"):
        with pytest.raises(KeyboardInterrupt):
            fit_folder(replace(job, image_size=96), progress=False)
