"""From a folder to a classifier: the best state, interruptions, other people's folders, what is told."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch.nn import functional as F

from serial_lora import adapters
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folder import load_folder
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.work import fit
from serial_lora_course.work.classifier import encode, open_classifier, predict
from serial_lora_course.work.fit import Objective, divide, fit_folder
from serial_lora_course.work.job import Job
from tests.labs.lab_models import same_tensors
from tests.work.conftest import job_of

ADAPTER = "adapter.safetensors"


def files_of(out):
    return {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}


def tensors_of(out):
    return load_file(Path(out) / ADAPTER)


def stop(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted(pictures, weights, tmp_path_factory):
    """What the job of these tests reaches, the tensors that it keeps, and the names of its files."""
    job = job_of(pictures, weights, tmp_path_factory.mktemp("whole") / "classifier")
    return fit_folder(job), tensors_of(job.out), files_of(job.out).keys()


def test_training_stops_and_the_state_with_the_lowest_validation_loss_is_kept(job, rounds):
    reached = fit_folder(replace(job, patience=1, lr=0.5, epochs=40))
    best, loss = min(rounds, key=lambda each: each[1])
    assert reached["best step"] == best
    assert rounds[-1][0] == reached["steps"] == best + 3 < 80
    data, classifier = load_folder(job.pictures), open_classifier(job.out)
    assert classifier.class_names == ["blue", "green", "red"]
    parts = divide(data.train, 0.2) | {"test": data.test}
    _, scores, labels = encode(classifier, parts["validation"])
    assert F.cross_entropy(scores, labels).item() == pytest.approx(loss, abs=6e-4)
    assert accuracy(*encode(classifier, parts["test"])[1:]) == reached["test accuracy"]
    assert {name: reached[f"{name} pictures"] for name in parts} == {
        name: len(part) for name, part in parts.items()
    }


def test_statistics_of_a_batch_norm_stay_those_of_the_base(job, rounds, tmp_path, recwarn):
    """No file has others: the classifier that is opened answers as the one that was measured."""
    torch.manual_seed(0)
    state = timm.create_model("test_maxvit", num_classes=0).state_dict()
    save_file(state, tmp_path / "maxvit.safetensors")
    job = replace(job, model="timm/test_maxvit", weights=str(tmp_path / "maxvit.safetensors"))
    fit_folder(replace(job, lr=1e-2, epochs=2))
    classifier = open_classifier(job.out)
    _, scores, labels = encode(
        classifier, divide(load_folder(job.pictures).train, 0.2)["validation"]
    )
    loss = min(loss for _, loss in rounds)
    assert F.cross_entropy(scores, labels).item() == pytest.approx(loss, abs=6e-4)
    assert not any("running statistics" in str(told.message) for told in recwarn)


def test_an_interrupted_training_ends_as_one_that_was_not(job, rounds, uninterrupted):
    expected, tensors, names = uninterrupted
    job = replace(job, save_every=30.0)
    rounds.then = lambda: len(rounds) == 2 and stop()
    with pytest.raises(KeyboardInterrupt):
        fit_folder(job)
    assert fit_folder(job) == expected
    assert rounds[2][0] == rounds[0][0]  # that of the second round was not saved
    assert same_tensors(tensors_of(job.out), tensors) and files_of(job.out).keys() == names


#: What is called -> at which of its calls the process is stopped; there are three rounds.
PLACES = {
    "encode": 3 + 3,  # the last validation; the probe looks at three parts
    "save_classifier": 2,
    "load_adapter": 1,
    "write_reports": 1,
    "write_json": 2,  # the result
    "write_card": 1,
}


@pytest.mark.parametrize("place", PLACES)
def test_an_end_anywhere_loses_nothing(job, rounds, uninterrupted, monkeypatch, place):
    real, calls = getattr(fit, place), []

    def ended(*arguments, **options):
        calls.append(place)
        if len(calls) == PLACES[place]:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, place, ended)
        fit_folder(job)
    rounds.clear()
    expected, tensors, names = uninterrupted
    assert fit_folder(job) == expected and same_tensors(tensors_of(job.out), tensors)
    assert len(rounds) <= (2 if place == "save_classifier" else 1)
    assert files_of(job.out).keys() == names


def exchange(pictures, weights):
    """Two mislabelled pictures put right."""
    one, other = pictures / "red" / "0.png", pictures / "blue" / "0.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def rename(pictures, weights):
    (pictures / "red").rename(pictures / "azure")


def reweigh(pictures, weights):
    state = load_file(weights)
    save_file({name: tensor * 1.01 for name, tensor in state.items()}, weights)


@pytest.fixture
def own(pictures, weights, tmp_path):
    """Pictures and weights that may be changed, and a job on them that takes no training."""
    own = shutil.copytree(pictures, tmp_path / "colours")
    file = Path(shutil.copy(weights, tmp_path / "own.safetensors"))
    return own, file, job_of(own, file, tmp_path / "classifier", linear_probe=True)


CHANGES = {exchange: "pictures", rename: "class folders", reweigh: "weights"}


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(("change", "what"), CHANGES.items())
def test_nothing_goes_on_over_other_pictures_classes_or_weights(
    own, monkeypatch, change, what, finished
):
    pictures, weights, job = own
    if finished:
        fit_folder(job)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(fit, "write_reports", stop)
            fit_folder(job)
    before = files_of(job.out)
    change(pictures, weights)
    with pytest.raises(SerialLoRAError, match=f"{what}.* have changed"):
        fit_folder(job)
    assert files_of(job.out) == before


def test_one_process_at_a_time_trains_into_a_folder(job, rounds, uninterrupted):
    def begin_another():
        with pytest.raises(SerialLoRAError, match="another process"):
            fit_folder(job)

    rounds.then = begin_another
    assert fit_folder(job) == uninterrupted[0] and rounds


def test_what_is_finished_is_not_run_again_and_nothing_else_is_overwritten(own, tmp_path):
    _, _, job = own
    first, before = fit_folder(job), files_of(job.out)
    assert fit_folder(job) == first
    with pytest.raises(SerialLoRAError, match="options have changed"):
        fit_folder(replace(job, seed=2))
    assert files_of(job.out) == before
    for name in ("thesis.txt", "run.yaml"):
        folder = tmp_path / name / "mine"
        folder.mkdir(parents=True)
        (folder / name).write_text("all of it")
        with pytest.raises(SerialLoRAError, match="other files"):
            fit_folder(replace(job, out=str(folder)))
        assert files_of(folder) == {name: b"all of it", ".lock": b""}


def test_a_run_that_never_began_leaves_its_folder_to_another(own):
    *_, job = own
    with pytest.raises(SerialLoRAError, match="cannot be used"):
        fit_folder(replace(job, model="timm/no_such_model"))
    with pytest.raises(SerialLoRAError, match="rank"):
        fit_folder(replace(job, rank=1000))
    assert fit_folder(job)["steps"] == 0


def test_a_training_that_diverges_is_told(job):
    with pytest.raises(SerialLoRAError, match="smaller --lr"):
        fit_folder(replace(job, lr=1e10))


def test_a_long_training_is_told_of_before_it_begins(job, monkeypatch):
    monkeypatch.setattr(fit, "LONG", 0)
    monkeypatch.setattr(fit, "encode", stop)
    with pytest.warns(UserWarning, match="a step of 7 pictures of 64 x 64 takes about"):
        with pytest.raises(KeyboardInterrupt):
            fit_folder(job)


def test_each_class_is_divided_by_itself(pictures):
    train = load_folder(pictures).train
    parts = divide(train, 0.2)
    ids = [set(part.picture_ids) for part in parts.values()]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == set(train.picture_ids)
    for part in parts.values():
        assert set(part.labels) == {0, 1, 2}
        places = map(train.picture_ids.index, part.picture_ids)
        assert [train.labels[place] for place in places] == part.labels


# ------------------------------------------------------------------------- what is said of classes


def test_classes_are_called_as_their_folders_and_each_has_its_line(own, tmp_path):
    pictures, _, job = own
    (pictures / "red").rename(pictures / "Katzen & Kätzchen_2")
    (pictures / "green").rename(pictures / "=1+1")
    fit_folder(job)
    names = ["=1+1", "Katzen & Kätzchen_2", "blue"]
    classifier = open_classifier(job.out)
    assert classifier.class_names == names

    test = load_folder(pictures).test
    found = predict(classifier, [pictures / name for name in test.picture_ids]).argmax(-1)
    table = pd.read_csv(Path(job.out) / "confusion.csv", index_col=0)
    names[0] = "'=1+1"  # no formula for a spreadsheet
    assert [*table.columns] == [*table.index] == names
    assert np.array_equal(table, confusion_matrix(test.labels, found, labels=range(3)))
    classes = pd.read_csv(Path(job.out) / "classes.csv", index_col=0).loc[names]
    expected = precision_recall_fscore_support(test.labels, found, zero_division=0)
    for name, values in zip(("precision", "recall"), expected, strict=False):
        np.testing.assert_allclose(classes[name], values, atol=1e-4)
    assert (Path(job.out) / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("to", ["green", "red"])
def test_a_picture_that_is_there_twice_is_named_first(own, monkeypatch, to):
    """Under two classes; in training and in test."""
    pictures, _, job = own
    data = load_folder(pictures)
    trained = next(name for name in data.train.picture_ids if name.startswith("red"))
    tested = next(name for name in data.test.picture_ids if name.startswith(to))
    shutil.copy(pictures / trained, pictures / tested)
    monkeypatch.setattr(fit, "encode", stop)
    with pytest.warns(UserWarning, match="the same picture as") as told:
        with pytest.raises(KeyboardInterrupt):
            fit_folder(job)
    assert {trained, tested} <= set(str(told[0].message).replace(":", "").split())


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_can_be_the_classifier(own, classes):
    pictures, _, job = own
    if classes == 2:
        shutil.rmtree(pictures / "red")
    reached = fit_folder(job)
    classifier = open_classifier(job.out)
    assert reached["test accuracy"] == reached["logistic regression"]
    assert accuracy(*encode(classifier, load_folder(pictures).test)[1:]) == reached["test accuracy"]
    pairs = adapters(classifier).values()
    assert pairs and not any(pair.lora_B.any() for pair in pairs)
    assert classifier.head.weight.any()


def test_with_balanced_weights_small_classes_count_as_much(own, monkeypatch):
    pictures, _, job = own
    for number in range(4):
        (pictures / "red" / f"{number}.png").unlink()
    asked = []
    monkeypatch.setattr(fit, "Objective", lambda classifier, weights: asked.append(weights))
    monkeypatch.setattr(fit, "_trained", stop)
    with pytest.raises(KeyboardInterrupt):
        fit_folder(replace(job, linear_probe=False, balanced=True))
    parts = divide(load_folder(pictures).train, job.validation_fraction)
    labels = torch.tensor(parts["train"].labels)
    scores = torch.randn(len(labels), 3)
    each = -scores.log_softmax(-1)[range(len(labels)), labels]
    expected = torch.stack([each[labels == label].mean() for label in range(3)]).mean()
    found = Objective(lambda pictures: pictures, *asked)((scores, labels))
    assert labels.bincount().unique().numel() == 2
    torch.testing.assert_close(found, expected)


def test_options_are_checked():
    for name, value in {"test_fraction": 1, "patience": 0, "image_size": 0, "crop": 2}.items():
        with pytest.raises(SerialLoRAError, match=name):
            Job(**{name: value})
