"""The lesson's split by a hash is the lab's, so its probes saw the pictures that the records' runs saw."""

import ast
from hashlib import sha256

import pytest

from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split
from tools import ROOT


@pytest.mark.parametrize(("name", "shots", "seed"), [("symbols", 16, 1), ("food", 4, 3)])
def test_the_lesson_takes_the_pictures_that_the_lab_takes(name, shots, seed):
    tree = ast.parse((ROOT / "solutions/04_clip_few_shot.py").read_text(encoding="utf-8"))
    (split,) = (node for node in tree.body if getattr(node, "name", "") == "first_shots")
    names = {"sha256": sha256}
    exec(compile(ast.Module([split], []), "lesson 04", "exec"), names)
    data = load_classification(name)
    found = names["first_shots"](data.train, shots, seed)
    assert found == few_shot_split(data, shots, seed).indices
    assert not {data.train.picture_ids[i] for i in found} & set(data.test.picture_ids)
