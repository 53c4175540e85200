"""From a folder to a classifier: the best state, interruptions, other people's folders, what is told."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import confusion_matrix
from torch.nn import functional as F

from serial_lora import adapters
from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.folder import load_folder
from serial_lora_course.data.subsets import divided
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.work import fit, reports
from serial_lora_course.work.classifier import encode, open_classifier, predict, save_classifier
from serial_lora_course.work.fit import fit_folder
from tests.work.conftest import job_of, saved_model

ADAPTER = "adapter.safetensors"


def files_of(out):
    return {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}


def kept(out):
    """What is to be the same however often a training was interrupted."""
    tensors = load_file(Path(out) / ADAPTER).items()
    return files_of(out).keys(), {name: tensor.tolist() for name, tensor in tensors}


def stop(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted(pictures, weights, tmp_path_factory):
    """What the job of these tests reaches, and what it leaves in files."""
    job = job_of(pictures, weights, tmp_path_factory.mktemp("whole") / "classifier")
    return fit_folder(job), kept(job.out)


@pytest.mark.parametrize("model", ["test_vit", "test_maxvit"])
def test_the_state_with_the_lowest_validation_loss_is_kept(job, rounds, tmp_path, recwarn, model):
    """A MaxViT has BatchNorms, whose statistics stay those of the base, as no file has others."""
    job = replace(job, model=f"timm/local-dir:{saved_model(tmp_path / model)}")
    long = model == "test_vit"
    limits = dict(patience=1, lr=0.5, epochs=40) if long else dict(lr=1e-2, epochs=2)
    reached = fit_folder(replace(job, **limits))
    best, loss = min(rounds, key=lambda each: each[1])
    assert reached["best step"] == best
    assert not long or rounds[-1][0] == reached["steps"] == best + 3 < 80
    assert not any("running statistics" in str(told.message) for told in recwarn)
    data, classifier = load_folder(job.pictures), open_classifier(job.out)
    assert classifier.class_names == ["blue", "green", "red"]
    train, validation = divided(data.train, 0.2, "validation")
    _, scores, labels = encode(classifier, validation)
    assert F.cross_entropy(scores, labels).item() == pytest.approx(loss, abs=6e-4)
    assert accuracy(*encode(classifier, data.test)[1:]) == reached["test accuracy"]
    parts = {"train": train, "validation": validation, "test": data.test}
    assert all(reached[f"{name} pictures"] == len(part) for name, part in parts.items())


def test_a_training_without_a_saved_state_begins_anew(job, rounds, uninterrupted):
    """Whatever the classifier that is there already says that it has reached."""
    job = replace(job, save_every=30.0)
    rounds.then = lambda: len(rounds) == 2 and stop()
    with pytest.raises(KeyboardInterrupt):
        fit_folder(job)
    best = {"step": 99, "loss": 0.0, "accuracy": 1.0}
    save_classifier(open_classifier(job.out), Path(job.out), best=best)
    assert (fit_folder(job), kept(job.out)) == uninterrupted and rounds[2][0] == rounds[0][0]


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
    Path(job.out, ".0123456789abcdef.partial").touch()  # as after a kill, while it wrote
    rounds.clear()
    assert (fit_folder(job), kept(job.out)) == uninterrupted
    assert len(rounds) <= (2 if place == "save_classifier" else 1)


def double(file):
    tensors = {name: 2 * tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


CHANGES = {
    "pictures": lambda own, _: shutil.copy(own / "red" / "0.png", own / "blue" / "0.png"),
    "class folders": lambda own, _: (own / "red").rename(own / "azure"),
    "weights": lambda _, folder: double(folder / "model.safetensors"),
}


@pytest.fixture
def own(pictures, weights, tmp_path):
    """Pictures and weights that may be changed, and a job on them that takes no training."""
    own = shutil.copytree(pictures, tmp_path / "colours")
    copied = shutil.copytree(weights, tmp_path / "own")
    return own, copied, job_of(own, copied, tmp_path / "classifier", linear_probe=True)


@pytest.mark.parametrize("what", CHANGES)
def test_nothing_goes_on_over_other_pictures_classes_or_weights(own, monkeypatch, what):
    pictures, weights, job = own
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "write_reports", stop)
        fit_folder(job)
    before = files_of(job.out)
    CHANGES[what](pictures, weights)
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
    (Path(job.out) / ADAPTER).unlink()
    with pytest.raises(SerialLoRAError, match="there is no adapter file"):
        fit_folder(job)
    for name in ("thesis.txt", "run.txt", "record.json"):
        folder = tmp_path / name / "mine"
        folder.mkdir(parents=True)
        (folder / name).write_text("[]")
        with pytest.raises(SerialLoRAError, match="other files"):
            fit_folder(replace(job, out=str(folder)))
        assert files_of(folder) == {name: b"[]"}
    with pytest.raises(SerialLoRAError, match="among the pictures"):
        fit_folder(replace(job, out=str(Path(job.pictures, "out"))))


REFUSED = [
    ("test_fraction", 1, "test_fraction"),
    ("patience", 0, "patience"),
    ("image_size", 0, "image_size"),
    ("crop", 2, "crop"),
    ("rank", 1000, "rank"),
    ("blocks", (99,), "block"),
    ("pictures", "nowhere", "nowhere"),
    ("model", "timm/no_such_model", "cannot be used"),
    ("groups", "(", "no regular expression"),
    ("groups", "x", "finds no group"),
    ("groups", r"\w+", "has one picture or group"),
]


def test_a_refused_run_leaves_no_folder_and_one_that_never_began_leaves_its_to_another(own):
    *_, job = own
    out = Path(job.out)
    for name, value, said in REFUSED:
        with pytest.raises(SerialLoRAError, match=said):
            fit_folder(replace(job, **{name: value, "out": str(out / "new")}))
        assert not out.exists()
    out.mkdir()
    (out / ".DS_Store").touch()
    (out / "record.json").write_text('{"made_from": {}, "reached": null}')
    assert fit_folder(job)["steps"] == 0


def test_a_training_that_diverges_is_told(job):
    with pytest.raises(SerialLoRAError, match="smaller --lr"):
        fit_folder(replace(job, lr=1e10))


@pytest.mark.parametrize("groups", [".*", r"/(\d)", r"\w+/[0-3]?"])
def test_each_class_is_divided_by_itself_and_no_group_is(pictures, groups):
    """Groups of one picture, of three classes, and of four pictures."""
    data = load_folder(pictures, groups=None if groups == ".*" else groups)
    parts = [*divided(data.train, 0.2, "validation", groups), data.test]
    names = [part.picture_ids for part in parts]
    assert len(set().union(*names)) == sum(map(len, names)) == 24
    found = [{re.findall(groups, name)[0] for name in part} for part in names]
    assert len(set().union(*found)) == sum(map(len, found))
    for part in parts:
        classes = [name.split("/")[0] for name in part.picture_ids]
        assert classes == [data.class_names[label] for label in part.labels]
        assert set(classes) == set(data.class_names)


def test_a_division_that_exists_is_refused_where_it_divides_groups(own):
    pictures, _, job = own
    for part in ("train", "test"):
        shutil.copytree(pictures, pictures.parent / "both" / part)
    with pytest.raises(SerialLoRAError, match="both parts"):
        fit_folder(replace(job, pictures=str(pictures.parent / "both"), groups=r"/(\d)"))


def test_classes_are_called_as_their_folders_and_each_has_its_line(own, tmp_path):
    pictures, _, job = own
    (pictures / "red").rename(pictures / "Katzen & Kätzchen_2")
    (pictures / "green").rename(pictures / "=1+1")
    (pictures / "blue").rename(pictures / "accuracy")
    fit_folder(job)
    names = ["=1+1", "Katzen & Kätzchen_2", "accuracy"]
    classifier = open_classifier(job.out)
    assert classifier.class_names == names

    test = load_folder(pictures).test
    found = predict(classifier, [pictures / name for name in test.picture_ids]).argmax(-1)
    table = pd.read_csv(Path(job.out) / "confusion.csv", index_col=0)
    names[0] = "'=1+1"  # no formula for a spreadsheet
    assert [*table.columns] == [*table.index] == names
    assert np.array_equal(table, confusion_matrix(test.labels, found, labels=range(3)))
    classes = pd.read_csv(Path(job.out) / "classes.csv", index_col=0).loc[names]
    for name, sums in {"precision": table.sum(0), "recall": table.sum(1)}.items():
        expected = np.diag(table) / sums.clip(lower=1)
        np.testing.assert_allclose(classes[name], expected, atol=1e-4)
    assert (Path(job.out) / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_of_classes_has_no_empty_boxes(tmp_path, recwarn):
    labels = torch.tensor([0, 1, 1])
    reports.write_reports(tmp_path, ["猫", "dog"], labels, labels)
    assert not recwarn.list and (tmp_path / "confusion.png").exists()
    assert (tmp_path / "classes.csv").read_text("utf-8").splitlines()[1].startswith("猫,")


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_can_be_the_classifier(own, classes, monkeypatch):
    pictures, weights, job = own
    monkeypatch.chdir(weights.parent)
    job = replace(job, model=f"timm/local-dir:{weights.name}")
    if classes == 2:
        shutil.rmtree(pictures / "red")
    reached = fit_folder(job)
    monkeypatch.chdir("/")  # where no such folder is
    classifier = open_classifier(job.out)
    assert reached["test accuracy"] == reached["logistic regression"]
    assert accuracy(*encode(classifier, load_folder(pictures).test)[1:]) == reached["test accuracy"]
    pairs = adapters(classifier).values()
    assert pairs and not any(pair.lora_B.any() for pair in pairs)


def test_with_balanced_weights_small_classes_count_as_much(own, monkeypatch):
    pictures, _, job = own
    for number in range(4):
        (pictures / "red" / f"{number}.png").unlink()
    asked = []
    monkeypatch.setattr(fit, "train", lambda objective, *_, **__: asked.append(objective) or stop())
    with pytest.raises(KeyboardInterrupt):
        fit_folder(replace(job, linear_probe=False, balanced=True))
    train, _ = divided(load_folder(pictures).train, job.validation_fraction, "validation")
    counts = torch.tensor(train.labels).bincount()
    assert counts.unique().numel() == 2
    assert (asked[0].loss.weight * counts).allclose(counts.float().mean())
