"""The SAM backbones: segment-anything's own classes, and no foreign or broken weights."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.sam import (
    PAPER_FILE,
    PAPER_MODEL,
    TINY_MODEL,
    build_sam,
    load_sam,
    load_weights,
    paper_file,
    tiny_architecture,
    tiny_file,
)
from tests.labs.lab_models import same_tensors
from tests.models.sam_models import (
    SMALL_SAM,
    make_small_sam_the_tiny_one,
    sam_weights_file,
    small_sam,
)

VIT_B = {
    "image_size": 1024,
    "patch_size": 16,
    "width": 768,
    "blocks": 12,
    "heads": 12,
    "window": 14,
    "global_blocks": [2, 5, 8, 11],
    "prompt_width": 256,
    "decoder_heads": 8,
    "decoder_mlp": 2048,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The small model's weights, as safetensors and as Meta publishes SAM's."""
    folder = tmp_path_factory.mktemp("good")
    path = sam_weights_file(folder / "good.safetensors", seed=4)
    torch.save(load_file(path), folder / "good.pth")
    return path


# --- the models ----------------------------------------------------------------------------------


def test_the_tiny_model_is_segment_anythings_own():
    backbone = load_sam("tiny", weights=None)
    assert type(backbone.model) is Sam and not backbone.model.training
    assert (backbone.name, backbone.scale) == (TINY_MODEL, "tiny")
    architecture = tiny_architecture()
    encoder = backbone.model.image_encoder
    assert encoder.img_size == architecture["image_size"]
    assert len(encoder.blocks) == architecture["blocks"]
    windows = [block.window_size for block in encoder.blocks]
    assert {i for i, window in enumerate(windows) if not window} == set(
        architecture["global_blocks"]
    )
    assert all(block.attn.use_rel_pos for block in encoder.blocks)


def test_the_shipped_weights_fill_the_tiny_model():
    state = load_sam("tiny").model.state_dict()
    stored = load_file(tiny_file("safetensors"))
    assert same_tensors(state, {key: tensor.to(state[key].dtype) for key, tensor in stored.items()})
    card = json.loads(tiny_file("card.json").read_text("utf-8"))
    parameters = sum(p.numel() for p in load_sam("tiny", weights=None).model.parameters())
    assert card["parameters"] == parameters


def test_our_builder_makes_vit_b_as_segment_anything_does():
    with torch.device("meta"):
        ours, theirs = build_sam(**VIT_B), sam_model_registry["vit_b"]()
    assert str(ours) == str(theirs)  # every layer, its sizes and its epsilon
    shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
    for one, other in zip(ours.image_encoder.blocks, theirs.image_encoder.blocks, strict=True):
        assert one.window_size == other.window_size and one.attn.scale == other.attn.scale
    assert ours.image_encoder.img_size == theirs.image_encoder.img_size
    assert ours.prompt_encoder.input_image_size == theirs.prompt_encoder.input_image_size
    assert ours.mask_threshold == theirs.mask_threshold == 0


def test_both_kinds_of_file_fill_the_model(good, monkeypatch):
    make_small_sam_the_tiny_one(monkeypatch)
    expected = load_file(good)
    for path in (good, good.with_suffix(".pth"), str(good)):
        assert same_tensors(load_sam("tiny", path).model.state_dict(), expected)


def test_weights_of_half_precision_fill_a_float32_model(good, tmp_path):
    halves = {key: tensor.half() for key, tensor in load_file(good).items()}
    save_file(halves, tmp_path / "half.safetensors")
    torch.save(halves, tmp_path / "half.pth")
    for path in tmp_path.iterdir():
        model = small_sam()
        load_weights(model, path)
        state = model.state_dict()
        assert all(tensor.dtype == torch.float32 for tensor in state.values())
        assert same_tensors(state, {key: tensor.float() for key, tensor in halves.items()})


# --- refusals ------------------------------------------------------------------------------------


class Danger:
    """Pickled, it would make a folder when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def vit_shapes(width: int) -> dict[str, torch.Tensor]:
    """The one tensor that tells SAM's sizes apart, without its bytes on disk."""
    return {"image_encoder.pos_embed": torch.zeros(1).expand(1, 64, 64, width)}


def bad_bytes(kind: str, good: Path) -> bytes:
    content = good.read_bytes()
    return {
        "empty": b"",
        "web page": b"\n<!DOCTYPE html><html>Sign in to download</html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 375042383\n",
        "truncated": content[:-2000],
        "half": content[: len(content) // 2],
        "text": b"these are not the weights you are looking for",
    }[kind]


def bad_state(kind: str, good: Path, folder: Path) -> object:
    tensors = load_file(good)
    first = sorted(tensors)[0]
    return {
        "code": {"weights": Danger(folder / "made by the pickle"), **tensors},
        "whole model": torch.nn.Linear(2, 2),
        "checkpoint of a training": {"model": tensors, "optimizer": {"lr": 1e-4}},
        "list": list(tensors.values()),
        "numbered": dict(enumerate(tensors.values())),
        "nothing": {},
        "lacking": {k: v for k, v in tensors.items() if k != first},
        "foreign": {**tensors, "more": torch.zeros(1)},
        "other shape": {**tensors, first: torch.zeros(2, *tensors[first].shape)},
        "scalar": {**tensors, "image_encoder.pos_embed": torch.tensor(1.0)},
        "vit_l": vit_shapes(1024),
        "vit_h": vit_shapes(1280),
        "SAM of its own size": vit_shapes(48),
        "CLIP": {"visual.conv1.weight": torch.zeros(2, 3, 4, 4), "logit_scale": torch.zeros(())},
        "CLIP of transformers": {"text_model.embeddings.position_ids": torch.zeros(1, 77)},
    }[kind]


def refusal(path: Path) -> str:
    """What is said when a small SAM is filled from this file; the model must stay as it was."""
    model = small_sam(seed=9)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(SerialLoRAError) as caught:
        load_weights(model, path)
    assert same_tensors(model.state_dict(), before) and not model.training
    said = str(caught.value)
    assert path.name in said and "\n" not in said
    return said


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is empty; fetch it again"),
        ("web page", "is a web page, not a checkpoint; fetch it again"),
        ("pointer", "is a pointer to a large file, not the file itself"),
        ("truncated", "damaged, cut short"),
        ("half", "damaged, cut short"),
        ("text", "damaged, cut short"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(good, tmp_path, kind, message):
    path = tmp_path / PAPER_FILE
    path.write_bytes(bad_bytes(kind, good.with_suffix(".pth")))
    assert message in refusal(path)
    safe = tmp_path / "wrong.safetensors"
    safe.write_bytes(bad_bytes(kind, good))
    assert "not a readable safetensors file" in refusal(safe)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("code", "holds more than tensors"),
        ("whole model", "holds more than tensors"),
        ("checkpoint of a training", "no plain state dict"),
        ("list", "no plain state dict"),
        ("numbered", "no plain state dict"),
        ("nothing", "lacks"),
        ("lacking", "lacks"),
        ("foreign", "it has more"),
        ("other shape", "another size of"),
        ("scalar", "another size of image_encoder.pos_embed"),
        ("vit_l", "holds vit_l, another size of SAM"),
        ("vit_h", "holds vit_h, another size of SAM"),
        ("SAM of its own size", "a SAM of width 48"),
        ("CLIP", "holds a CLIP model, not SAM"),
        ("CLIP of transformers", "another model's weights"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(good, tmp_path, kind, message):
    path = tmp_path / PAPER_FILE
    torch.save(bad_state(kind, good, tmp_path), path)
    assert message in refusal(path)
    assert list(tmp_path.iterdir()) == [path]  # no code in the file was run


@pytest.mark.parametrize("kind", ["lacking", "foreign", "other shape", "vit_l", "CLIP"])
def test_safetensors_of_something_else_are_refused_alike(good, tmp_path, kind):
    pickled, safe = tmp_path / "wrong.pth", tmp_path / "wrong.safetensors"
    state = bad_state(kind, good, tmp_path)
    torch.save(state, pickled)
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, safe)
    assert refusal(pickled).replace(pickled.name, safe.name) == refusal(safe)


def test_a_file_that_may_not_be_read_is_refused(good, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", denied)
    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied" in refusal(good.with_suffix(".pth"))


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors", "", "a" * 300 + ".pth"])
def test_a_missing_file_or_a_folder_is_refused(tmp_path, name):
    with pytest.raises(SerialLoRAError, match="no weights file"):
        load_sam("tiny", tmp_path / name)


def test_an_unknown_scale_is_refused():
    with pytest.raises(SerialLoRAError, match="tiny or paper"):
        load_sam("huge")


def test_the_papers_checkpoint_is_asked_for_by_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path))
    assert paper_file().parent.parent == tmp_path and paper_file().name == PAPER_FILE
    with pytest.raises(SerialLoRAError, match="data_scripts.sam_weights.*--weights"):
        load_sam("paper")


def test_the_papers_checkpoint_is_found_where_its_command_puts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SERIAL_LORA_DATA", str(tmp_path))
    monkeypatch.setitem(sam_model_registry, "vit_b", lambda: build_sam(**SMALL_SAM))
    paper_file().parent.mkdir(parents=True)
    expected = small_sam(seed=2).state_dict()
    torch.save(expected, paper_file())
    backbone = load_sam("paper")
    assert (backbone.name, backbone.scale) == (PAPER_MODEL, "paper")
    assert same_tensors(backbone.model.state_dict(), expected)
