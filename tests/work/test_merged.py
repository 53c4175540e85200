"""A merged classifier, opened by its model's own library alone, answers as `predict` does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from serial_lora import SerialLoRAError
from serial_lora_course.work.folder import fit_folder, open_classifier, predict
from serial_lora_course.work.merged import merge_into_folder
from tests.work.test_vision import save


@pytest.fixture
def fitted(job, pictures):
    """A classifier's folder, files to ask it about, and its answers."""
    quick = replace(job, config=replace(job.config, lr=1e-2, dropout=0.0, epochs=2))

    def fit(**changes):
        changed = replace(quick, **changes)
        fit_folder(changed, progress=False)
        classifier, _ = open_classifier(changed.out)
        asked = sorted(pictures.glob("*/3.png"))
        answers = predict(classifier, asked)
        head = classifier.head.weight
        assert head.abs().max() > 1e-3 and answers.std() > 1e-3  # it has learnt something
        return Path(changed.out), asked, answers

    return fit


def scorer(width, classes):
    norm = nn.LayerNorm(width, elementwise_affine=False)
    return nn.Sequential(norm, nn.Linear(width, classes))


@pytest.mark.parametrize("image_size", [None, 96])
def test_timm_alone_answers_as_predict_does(fitted, tmp_path, image_size):
    folder, asked, expected = fitted(image_size=image_size)
    out = merge_into_folder(folder, tmp_path / "merged")

    model = timm.create_model(f"local-dir:{out}", pretrained=False).eval()
    facts = json.loads((out / "classifier.json").read_text())
    model.set_submodule(facts["head"], scorer(model.num_features, model.num_classes))
    model.load_state_dict(load_file(out / "model.safetensors"))
    said = timm.data.resolve_data_config({}, model=model)
    prepare = timm.data.create_transform(**said)
    pictures = torch.stack([prepare(Image.open(path).convert("RGB")) for path in asked])
    found = model(pictures).detach()
    torch.testing.assert_close(found.softmax(-1), expected, rtol=1e-3, atol=1e-4)
    config = json.loads((out / "config.json").read_text())
    assert facts["class_names"] == config["label_names"] == ["blue", "green", "red"]


def test_transformers_alone_answers_as_predict_does(fitted, tmp_path):
    save("ViT", tmp_path / "vit")
    folder, asked, expected = fitted(model=str(tmp_path / "vit"), weights=None)
    out = merge_into_folder(folder, tmp_path / "merged")

    model = transformers.AutoModel.from_pretrained(out).eval()
    head, state = scorer(16, 3), load_file(out / "model.safetensors")
    head.load_state_dict({name: state[f"classifier.{name}"] for name in head.state_dict()})
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    pixels = processor([Image.open(path) for path in asked], return_tensors="pt")
    found = head(model(**pixels).last_hidden_state[:, 0]).softmax(-1).detach()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=5e-3)  # another resizing
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}


def test_onnx_answers_as_predict_does(fitted, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, asked, expected = fitted()
    out = merge_into_folder(folder, tmp_path / "merged", onnx=True)
    prepare = open_classifier(folder)[0].preprocessing.for_test()
    pictures = torch.stack([prepare(Image.open(path).convert("RGB")) for path in asked])
    session = runtime.InferenceSession(out / "model.onnx")
    for few in (pictures, pictures[:1]):
        found = torch.from_numpy(session.run(None, {"pictures": few.numpy()})[0])
        torch.testing.assert_close(found, expected[: len(few)], rtol=1e-3, atol=1e-4)


def test_what_cannot_be_written_is_told_first(fitted, tmp_path, monkeypatch):
    folder, *_ = fitted()
    with pytest.raises(SerialLoRAError, match="a folder"):
        merge_into_folder(folder, tmp_path / "merged.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SerialLoRAError, match="pip install onnx"):
        merge_into_folder(folder, tmp_path / "merged", onnx=True)
    assert not (tmp_path / "merged").exists()
