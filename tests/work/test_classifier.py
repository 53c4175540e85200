"""Pictures, features and merged classifiers, compared with what a model's own library makes of them alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from serial_lora import SerialLoRAConfig, SerialLoRAError, inject, save_adapter
from serial_lora_course.work import commands
from serial_lora_course.work.classifier import (
    Timm,
    load_vision,
    open_classifier,
    predict,
)
from serial_lora_course.work.fit import fit_folder
from tests.labs.lab_models import register_small, small_clip, weights_file

SIDE = 32
WIDTHS = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
SMALL = WIDTHS | dict(image_size=SIDE, patch_size=8)
SWIN = dict(image_size=SIDE, window_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2])
SQUARE = {"height": SIDE, "width": SIDE}
CUT = dict(size={"shortest_edge": 40}, crop_size=SQUARE, do_center_crop=True)


def vector(taken, model, pixels):
    if taken == "compared with text":
        return model.visual_projection(model.vision_model(pixels)[1])
    output = model(pixel_values=pixels)
    if taken == "pooled":
        return output.pooler_output
    tokens = output.last_hidden_state
    return tokens[:, 0] if taken == "class token" else tokens.mean(1)


TEXT = WIDTHS | dict(vocab_size=40, max_position_embeddings=6, bos_token_id=1, eos_token_id=2)
BOTH = dict(text_config=TEXT, vision_config=SMALL, projection_dim=8)
#: model, its configuration, its processor, and the vector that its documentation takes.
TRANSFORMERS = {
    "ViT": ("ViT", SMALL, "ViT", dict(size=SQUARE), "class token"),
    "DINOv2": (
        "Dinov2",
        SMALL | {"mlp_ratio": 1},
        "Bit",
        CUT | {"image_mean": [0.4] * 3},
        "pooled",
    ),
    "SigLIP's image tower": ("SiglipVision", SMALL, "Siglip", dict(size=SQUARE), "pooled"),
    "CLIP's image tower": ("CLIPVision", SMALL, "CLIP", CUT, "pooled"),
    "BEiT": ("Beit", SMALL, "Beit", dict(size=SQUARE, do_center_crop=False), "pooled"),
    "Swin": ("Swin", SWIN, "ViT", dict(size=SQUARE), "mean of tokens"),
    "CLIP": ("CLIP", BOTH, "CLIP", CUT, "compared with text"),
}


def save(folder, kind, sizes, processor, options, _=None):
    """A random model in a folder as the hub has them: its weights beside its processor."""
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes))
    model.save_pretrained(folder)
    getattr(transformers, f"{processor}ImageProcessor")(**options).save_pretrained(folder)
    return model.eval()


def noise(width=90, height=60):
    """Smooth, so that two ways of resizing differ by roundings alone."""
    coarse = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_models_of_transformers_see_and_give_what_their_library_does(name, tmp_path):
    theirs, (*_, taken) = save(tmp_path, *TRANSFORMERS[name]), TRANSFORMERS[name]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = processor(noise(), return_tensors="pt")["pixel_values"]
    ours = load_vision(str(tmp_path))
    torch.testing.assert_close(ours.prepare(noise())[None], expected)
    normal = torch.tensor([processor.image_mean, processor.image_std])
    torch.testing.assert_close(torch.tensor([ours.mean, ours.std]), normal)
    with torch.no_grad():
        torch.testing.assert_close(ours.features(expected), vector(taken, theirs, expected))


def test_models_of_open_clip_see_and_give_what_their_library_does(tmp_path, monkeypatch):
    name = register_small(tmp_path / "configs", "small-clip-at-work")
    file = weights_file(tmp_path / "weights.safetensors", name)
    theirs, _, prepare = open_clip.create_model_and_transforms(name)
    theirs.load_state_dict(load_file(file))
    monkeypatch.chdir(tmp_path)
    ours = load_vision(f"open_clip/{name}:{file.name}")
    assert ours.source[0] == f"open_clip/{name}:{file}"  # found from any folder
    expected = prepare(noise())
    torch.testing.assert_close(ours.prepare(noise()), expected)
    with torch.no_grad():
        found = ours.features(expected[None])
        torch.testing.assert_close(found, theirs.eval().visual(expected[None]))


TIMM = {
    "class token": ("test_vit", {}),
    "attention pooling": ("vit_tiny_patch16_224", dict(img_size=64, global_pool="map", depth=1)),
    "mean of tokens": ("beit_base_patch16_224", dict(embed_dim=24, num_heads=2, depth=1)),
    "windows": ("swin_tiny_patch4_window7_224", dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2))),
    "attention and convolutions": ("test_maxvit", {}),
}


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm_see_and_give_what_their_library_does(name):
    architecture, options = TIMM[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False, num_classes=5, **options).eval()
    said = timm.data.resolve_model_data_config(model)
    said["input_size"] = (3, *[options.get("img_size", said["input_size"][1])] * 2)
    expected = timm.data.create_transform(**said, is_training=False)(noise())
    with torch.no_grad():
        vector = model.forward_head(model.forward_features(expected[None]), pre_logits=True)
        model.reset_classifier(0)
        ours = Timm(model, options.get("img_size"))
        torch.testing.assert_close(ours.prepare(noise()), expected)
        torch.testing.assert_close(ours.features(expected[None]), vector)


@pytest.mark.parametrize(
    "name", ["timm/no_such_model", "open_clip/nothing", "open_clip/ViT-B-32", "no/such-model", ""]
)
def test_an_unknown_model_is_one_sentence(name):
    with pytest.raises(SerialLoRAError, match="cannot be used"):
        load_vision(name)


def test_what_a_library_does_not_serve_is_refused(tmp_path):
    save(tmp_path, *TRANSFORMERS["ViT"])
    for name in (str(tmp_path), "tiny-clip"):
        with pytest.raises(SerialLoRAError, match="no other size"):
            load_vision(name, image_size=64)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(SerialLoRAError, match="cannot be used"):  # how are pictures normalised?
        load_vision(str(tmp_path))
    save(tmp_path, "ViTMAE", SMALL, "ViT", dict(size=SQUARE))
    with pytest.raises(SerialLoRAError, match="each time"):  # it draws lots
        load_vision(str(tmp_path))


@pytest.fixture
def fitted(job, pictures):
    """A classifier's folder, files to ask it about, and its answers."""

    def fit(**changes):
        fit_folder(replace(job, lr=1e-2, dropout=0.0, epochs=2, **changes))
        asked = sorted(pictures.glob("*/3.png"))
        classifier = open_classifier(job.out)
        answers = predict(classifier, asked)
        assert classifier.head.weight.abs().max() > 1e-3 and answers.std() > 1e-3  # it has learnt
        return Path(job.out), asked, answers

    return fit


def scorer(width, classes):
    norm = nn.LayerNorm(width, elementwise_affine=False)
    return nn.Sequential(norm, nn.Linear(width, classes))


@pytest.mark.parametrize("image_size", [None, 96])
def test_timm_alone_answers_as_predict_does(fitted, tmp_path, image_size):
    folder, asked, expected = fitted(image_size=image_size)
    out = tmp_path / "merged"
    commands.merge(folder, out)
    model = timm.create_model(f"local-dir:{out}", pretrained=False).eval()
    facts = json.loads((out / "classifier.json").read_text())
    model.set_submodule(facts["head"], scorer(model.num_features, model.num_classes))
    model.load_state_dict(load_file(out / "model.safetensors"))
    said = timm.data.resolve_data_config({}, model=model)
    prepare = timm.data.create_transform(**said)
    pictures = torch.stack([prepare(Image.open(path).convert("RGB")) for path in asked])
    torch.testing.assert_close(model(pictures).softmax(-1), expected, rtol=1e-3, atol=1e-4)
    config = json.loads((out / "config.json").read_text())
    assert facts["class_names"] == config["label_names"] == ["blue", "green", "red"]
    assert facts["pictures"]["size"] == said["input_size"][1] == pictures.shape[-1]


def test_transformers_alone_answers_as_predict_does(fitted, tmp_path):
    save(tmp_path / "vit", *TRANSFORMERS["ViT"])
    folder, asked, expected = fitted(model=str(tmp_path / "vit"), image_size=None)
    out = tmp_path / "merged"
    commands.merge(folder, out)
    model = transformers.AutoModel.from_pretrained(out).eval()
    head, state = scorer(16, 3), load_file(out / "model.safetensors")
    head.load_state_dict({name: state[f"classifier.{name}"] for name in head.state_dict()})
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    pixels = processor([Image.open(path) for path in asked], return_tensors="pt")
    found = head(model(**pixels).last_hidden_state[:, 0]).softmax(-1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}


@pytest.mark.parametrize("what", ["weights", "preparation"])
def test_a_model_that_has_changed_since_is_refused(fitted, job, tmp_path, what):
    """Though the adapted weights, of which the adapter's file keeps a sample, are the same."""
    model = save(tmp_path / "vit", *TRANSFORMERS["ViT"])
    changes = dict(model=str(tmp_path / "vit"), image_size=None)
    folder, *_ = fitted(**changes)
    if what == "weights":
        nn.init.normal_(model.get_parameter("layernorm.weight"))
        model.save_pretrained(tmp_path / "vit")
    else:
        processor = transformers.ViTImageProcessor(size=SQUARE, image_mean=[0.2] * 3)
        processor.save_pretrained(tmp_path / "vit")
    with pytest.raises(SerialLoRAError, match="gives other features than when"):
        open_classifier(folder)
    with pytest.raises(SerialLoRAError, match=f"{what} have changed"):
        fit_folder(replace(job, lr=1e-2, dropout=0.0, epochs=2, **changes))


def test_a_file_without_classes_is_refused(tmp_path):
    save_adapter(inject(small_clip(), SerialLoRAConfig(rank=2)), tmp_path / "adapter.safetensors")
    with pytest.raises(SerialLoRAError, match="fit the pictures again"):
        open_classifier(tmp_path)
