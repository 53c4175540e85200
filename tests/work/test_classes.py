"""What is said of classes: names, copies, tables, weights, and a probe in place of an adapter."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from serial_lora import adapters
from serial_lora_course.data.folder import load_folder
from serial_lora_course.labs.own import encode
from serial_lora_course.measures.metrics import accuracy
from serial_lora_course.work.folder import Objective, fit_folder, open_classifier, predict
from tests.work.conftest import job_of


@pytest.fixture
def own(pictures, tmp_path):
    return shutil.copytree(pictures, tmp_path / "colours")


def short(folder, weights, out):
    job = job_of(folder, weights, out)
    return replace(job, config=replace(job.config, epochs=1))


def test_classes_are_called_as_their_folders_and_each_has_its_line(own, weights, tmp_path):
    (own / "red").rename(own / "Katzen & Kätzchen_2")
    job = short(own, weights, tmp_path / "out")
    reached = fit_folder(job, progress=False)
    names = ["Katzen & Kätzchen_2", "blue", "green"]
    classifier, _ = open_classifier(job.out)
    assert reached.class_names == classifier.class_names == names

    test = load_folder(own).test
    found = predict(classifier, [own / name for name in test.picture_ids]).argmax(-1).numpy()
    true, known = np.array(test.labels), np.arange(3)
    matrix = [[int(((true == t) & (found == f)).sum()) for f in known] for t in known]
    table = pd.read_csv(tmp_path / "out" / "confusion.csv", index_col=0)
    assert table.values.tolist() == matrix and [*table.columns] == [*table.index] == names
    classes = pd.read_csv(tmp_path / "out" / "classes.csv", index_col=0)
    for label, name in enumerate(names):
        right = matrix[label][label]
        assert classes.loc[name, "recall"] == pytest.approx(right / sum(matrix[label]), abs=1e-4)
        given = sum(row[label] for row in matrix)
        assert classes.loc[name, "precision"] == pytest.approx(right / max(given, 1), abs=1e-4)
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("to", "where"), [("green", "two classes"), ("red", "in test")])
def test_a_picture_that_is_there_twice_is_named_first(own, weights, tmp_path, to, where):
    data = load_folder(own)
    trained = next(name for name in data.train.picture_ids if name.startswith("red"))
    tested = next(name for name in data.test.picture_ids if name.startswith(to))
    shutil.copy(own / trained, own / tested)
    with pytest.warns(UserWarning, match=f"{trained} and {tested} are the same.*{where}"):
        fit_folder(short(own, weights, tmp_path / "out"), progress=False)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_can_be_the_classifier(own, weights, tmp_path, classes):
    if classes == 2:
        shutil.rmtree(own / "red")
    job = replace(short(own, weights, tmp_path / "out"), linear_probe=True)
    reached = fit_folder(job, progress=False, tell=lambda step, measured: None)
    classifier, _ = open_classifier(job.out)
    assert reached.steps == 0 and reached.test == reached.probe
    assert accuracy(*encode(classifier, load_folder(own).test)[1:]) == reached.probe
    pairs = adapters(classifier.model).values()
    assert pairs and not any(pair.lora_B.any() for pair in pairs)
    assert classifier.head.weight.any() and fit_folder(job, progress=False) == reached


def test_with_balanced_weights_small_classes_count_as_much(job):
    labels = [0] * 6 + [1] * 2
    assert job.config.class_weights(labels, 2) is None
    weights = replace(job.config, balanced=True).class_weights(labels, 2)
    assert (weights * torch.tensor([6, 2])).tolist() == pytest.approx([4, 4])
    scores = torch.randn(8, 2)
    objective = Objective(lambda pictures: pictures, weights)
    each = -scores.log_softmax(-1)[range(8), labels]
    expected = (each[:6].mean() + each[6:].mean()) / 2
    torch.testing.assert_close(objective((scores, torch.tensor(labels))), expected)
    balanced = replace(job, config=replace(job.config, balanced=True, epochs=1))
    assert fit_folder(balanced, progress=False).steps == 3


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_answered(
    pictures, weights, tmp_path, run
):
    fit_folder(short(pictures, weights, tmp_path / "out"), progress=False)
    asked = shutil.copytree(pictures / "red", tmp_path / "asked")
    whole = (asked / "3.png").read_bytes()
    (asked / "3.png").write_bytes(whole[: len(whole) // 2])
    code, said, told = run("predict", tmp_path / "out", asked, "--out", tmp_path / "rows.csv")
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert code == 2 and "3.png" in told and len(said.splitlines()) == 7 and len(rows) == 8
    empty = rows[rows.isna().any(axis=1)]
    assert [Path(name).name for name in empty["picture"]] == ["3.png"]
