"""Files that fill a model: whole and its own, or one sentence and an untouched model."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from serial_lora.errors import SerialLoRAError
from serial_lora_course.models.weights import load_weights
from tests.labs.lab_models import same_tensors


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)).eval()


def write(state: object, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_fills_a_float32_model_whatever_its_numbers(tmp_path, ending, dtype):
    path = tmp_path / f"mine{ending}"
    state = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in small_model(1).state_dict().items()
    }
    model, own = small_model(), small_model().state_dict()
    load_weights(model, write(state, path))
    assert same_tensors(
        model.state_dict(), {key: tensor.to(own[key].dtype) for key, tensor in state.items()}
    )


def refusal(path: Path) -> str:
    """What is said when a model is filled from this file; the model must stay as it was."""
    model = small_model(9)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(SerialLoRAError) as caught:
        load_weights(model, path)
    assert same_tensors(model.state_dict(), before) and not model.training
    said = str(caught.value)
    assert path.name in said and "\n" not in said
    return said


class Danger:
    """Pickled, it would make a folder when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


OTHER_STATES = {
    "lacking": (lambda state: {k: t for k, t in state.items() if k != "0.bias"}, "lacks 0.bias"),
    "foreign": (lambda state: {**state, "more": torch.zeros(1)}, "has more"),
    "other shape": (lambda state: {**state, "2.bias": torch.zeros(5)}, "another size of 2.bias"),
    "another model": (lambda state: {"conv1.weight": torch.zeros(2)}, "another model's weights"),
}


@pytest.mark.parametrize("change, reason", OTHER_STATES.values(), ids=OTHER_STATES.keys())
def test_another_models_tensors_are_refused_alike_in_both_formats(tmp_path, change, reason):
    state = change(small_model().state_dict())
    said = [refusal(write(state, tmp_path / f"other{end}")) for end in (".safetensors", ".pth")]
    assert reason in said[0] and said[0].replace(".safetensors", ".pth") == said[1]


NO_STATES = {
    "code": (lambda state, folder: {"a": Danger(folder / "made"), **state}, "more than tensors"),
    "training": (lambda state, folder: {"model": state, "lr": 1e-4}, "no plain state dict"),
}


@pytest.mark.parametrize("make, reason", NO_STATES.values(), ids=NO_STATES.keys())
def test_what_is_no_state_dict_is_refused_and_no_code_in_it_is_run(tmp_path, make, reason):
    path = tmp_path / "other.pth"
    torch.save(make(small_model().state_dict(), tmp_path), path)
    assert reason in refusal(path)
    assert list(tmp_path.iterdir()) == [path]
