"""Heads on cached features: their formulas, what learns, and that CLIP is as it was afterwards."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.methods import CACHED_METHODS, get_method
from serial_lora_course.study.cached import ALPHA, BETA, HEADS, pooled_tokens, train_head
from serial_lora_course.study.labs import ClipStudy
from tests.labs.small_labs import coloured, small_lab

LABELS = torch.tensor([0, 1, 2, 0, 1])


@pytest.fixture
def parts():
    made = torch.Generator().manual_seed(1)
    projection, classes = (torch.randn(n, 4, generator=made) for n in (6, 3))
    pooled = torch.randn(5, 6, generator=made)
    return projection, normalize(classes, dim=-1), torch.tensor(10.0), pooled


def test_heads_are_their_papers_formulas_before_they_learn(parts):
    projection, classes, scale, pooled = parts
    asked = torch.randn(2, 6)
    assert HEADS.keys() == CACHED_METHODS.keys()
    scores = {name: kind(*parts, LABELS)(asked).detach() for name, kind in HEADS.items()}

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    shots = [row @ projection for row in pooled]
    for n, row in enumerate(asked):
        feature = row @ projection
        for k in range(3):
            plain = 10 * cosine(feature, classes[k])
            assert float(scores["prolip"][n, k]) == pytest.approx(plain, abs=1e-4)
            mine = [shot for shot, label in zip(shots, LABELS, strict=True) if label == k]
            near = sum(math.exp(-BETA * (1 - cosine(feature, shot))) for shot in mine)
            assert float(scores["tip_adapter_f"][n, k]) == pytest.approx(
                plain + ALPHA * near, abs=1e-4
            )
            probe = sum(10 * cosine(feature, shot) for shot in mine) / len(mine)
            assert float(scores["lp_plus_plus"][n, k]) == pytest.approx(plain + probe, abs=1e-4)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_learns_the_shots_and_the_model_stays(name, monkeypatch, tmp_path):
    small = small_lab("clip", monkeypatch, tmp_path / "models")
    lab = small.lab(lr=3e-2, min_steps=30)
    model = lab.backbone.model
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    matrix = model.visual.proj
    pooled, labels = pooled_tokens(lab.backbone, lab.data)
    assert pooled.shape == (12, small.width) and model.visual.proj is matrix
    expected = normalize(model.encode_image(_pictures(lab)), dim=-1)
    assert torch.allclose(normalize(pooled @ matrix, dim=-1), expected, atol=1e-5)
    head, history = train_head(lab, name, pooled, labels, seed=1, steps=30)
    assert history.losses[-1] < history.losses[0] and len(history.losses) == 30
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not head.classes.requires_grad


def _pictures(lab):
    return torch.stack(
        [lab.backbone.test_transform(lab.data.test[i][0]) for i in range(len(lab.data.test))]
    )


def test_the_study_measures_a_head_as_it_measures_an_adapter(monkeypatch, tmp_path):
    small = small_lab("clip", monkeypatch, tmp_path / "models")
    plain = small.lab(min_steps=2)
    monkeypatch.setattr(ClipStudy, "kept", coloured(name="known"))
    lab = ClipStudy(plain.backbone, plain.data, plain.config)
    reached, seen, head, history = lab.measure_head("tip_adapter_f", 2, 1)
    base = lab.measure()[0]
    assert reached.keys() == base.keys() and reached["kept_accuracy"] == base["kept_accuracy"]
    assert seen["accuracy"].mean() == pytest.approx(reached["accuracy"])
    assert head.keys.shape[0] == 2 * 3 and len(history.losses) == 60


def test_a_lab_says_that_such_a_method_is_the_studys():
    with pytest.raises(SerialLoRAError, match="head"):
        get_method("prolip").config(4)
