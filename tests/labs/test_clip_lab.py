"""What is the CLIP lab's own: its loss, its measures, folders of pictures."""

import numpy as np
import pytest
import torch

from serial_lora_course.data.registry import load_classification
from serial_lora_course.labs import lab as labs
from serial_lora_course.labs.clip import CLIPLab, CLIPObjective, class_scores, zero_shot
from serial_lora_course.labs.lab import run_one
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.models.clip import load_clip
from tests.labs.lab_models import calls
from tests.labs.small_labs import QUICK, coloured


@pytest.fixture
def backbone(registered_clip):
    return load_clip("tiny", *registered_clip)


def config(**changes):
    return CLIPLab.configured("tiny", **QUICK | changes)


@torch.no_grad()
def test_zero_shot_is_the_nearest_prompt_under_both_styles(backbone):
    data = coloured()
    found = zero_shot(backbone, data)
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
    loss = CLIPObjective(model, tokens)((pictures, labels))
    images = torch.nn.functional.normalize(model.encode_image(pictures), dim=-1).double()
    texts = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1).double()
    scores = model.logit_scale.exp().double() * images @ texts.T
    expected = -sum(scores[i].softmax(0)[labels[i]].log() for i in range(5)) / 5
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


@torch.no_grad()
def test_under_autocast_scores_of_24_are_still_told_apart(backbone, monkeypatch):
    """The towers may round; the last product, scaled by up to a hundred, must not."""
    model, width = backbone.model, backbone.model.text_projection.shape[1]
    features = torch.nn.functional.normalize(torch.randn(6, width), dim=-1)
    monkeypatch.setattr(model, "encode_image", lambda pictures: 7 * features.bfloat16())
    rounded = torch.nn.functional.normalize((7 * features.bfloat16()).double(), dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        scores = class_scores(model, torch.zeros(6), features)
    expected = model.logit_scale.exp().double() * rounded @ features.double().T
    torch.testing.assert_close(scores.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("method, dataset", [("serial_lora", "travel"), ("lora", "photographs")])
def test_a_shipped_record_is_what_its_command_makes(method, dataset):
    """Digit by digit on the machine that made it; another one rounds otherwise, by a picture or two."""
    (told,) = (
        record
        for record in shipped_records("clip")
        if (record.method, record.dataset, record.amount, record.seed) == (method, dataset, 1, 1)
    )
    data = load_classification(dataset)
    lab = CLIPLab(load_clip(), data, CLIPLab.configured("tiny", lr=told.settings["lr"]))
    lab.base = {}  # which is not what is compared
    found = run_one(lab, METHODS[method], 1, 1)
    assert found.key == told.key
    apart = abs(found.measures["accuracy"] - told.measures["accuracy"]) * len(data.test)
    assert apart < 2.5
    assert found.measures["loss"] == pytest.approx(told.measures["loss"], rel=0.05)


def test_the_rates_are_the_ones_that_train(backbone, monkeypatch):
    trained = calls(monkeypatch, labs, "train")
    lab = CLIPLab(backbone, coloured(), config(lr=0.1, plus_lr=0.01))
    for method in (METHODS["lora"], *(METHODS["lora_plus"].with_ratio(n) for n in (1, 5))):
        run_one(lab, method, 1, 1)
    rates = [(training.lr, training.ratio) for (_, _, training, *_), _ in trained]
    assert rates == [(0.1, 1), (0.01, 1), (0.01, 5)]
