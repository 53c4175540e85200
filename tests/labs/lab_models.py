"""Models and pictures small enough to train in a blink, for the tests of loop and labs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from serial_lora.config import SerialLoRAConfig
from serial_lora.injection import inject
from serial_lora_course.labs import training
from serial_lora_course.labs.clip import CLIPObjective
from serial_lora_course.labs.records import Record
from serial_lora_course.labs.training import ExampleStream, OnPicture

VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
SMALL = {"embed_dim": 8, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}


def a_second_a_step(monkeypatch) -> None:
    """Clocks that say that every step of a training takes one second."""
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr(training, "time", clock)


@contextmanager
def power_cut(objective: type, batches: int) -> Iterator[None]:
    """In the block, this kind of objective answers so many batches, and then the program ends."""
    forward, left = objective.forward, [batches]

    def answer(self, batch):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return forward(self, batch)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(objective, "forward", answer)
        yield


def small_clip() -> open_clip.CLIP:
    """open_clip's own class with one block in each tower, random weights."""
    torch.manual_seed(0)
    text = {**TEXT, "vocab_size": 32}
    return open_clip.CLIP(8, VISION, text, quick_gelu=True).eval()


def register_small(folder: Path, name: str) -> str:
    """Tell open_clip of the small architecture, with CLIP's whole vocabulary, under a name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(SMALL))
    open_clip.add_model_config(folder)
    return name


def weights_file(path: Path, name: str) -> Path:
    """Random weights of a registered model as a safetensors file."""
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
    return path


def adapted_objective(rank: int = 4) -> CLIPObjective:
    """The CLIP lab's objective over the small model with fresh Serial LoRA."""
    model = small_clip()
    torch.manual_seed(1)
    inject(model, SerialLoRAConfig(rank=rank))
    tokens = torch.zeros(3, 16, dtype=torch.long)
    tokens[:, :3] = torch.tensor([[30, word, 31] for word in (1, 2, 3)])  # start, a class's, end
    return CLIPObjective(model, tokens)


def labelled_pictures() -> list[tuple[Tensor, int]]:
    """Random pictures, brighter for a higher label, so that there is something to learn."""
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(3, 16, 16, generator=generator) + i % 3, i % 3) for i in range(12)]


def stream(steps: int, batch_size: int = 4, seed: int = 3) -> ExampleStream:
    """Of them, with noise from torch's generator, as crops and flips draw from it."""
    pictures = labelled_pictures()
    noisy = OnPicture(lambda picture: picture + 0.1 * torch.randn(picture.shape))
    return ExampleStream(pictures, range(len(pictures)), noisy, seed, batch_size, steps)


def trained_tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of the tensors that training changes."""
    return {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}


def state_of(model: torch.nn.Module) -> tuple:
    """All that a run must leave as it was: tensors, what trains, classes, hooks and modes."""
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    hooks = {
        name: len(module._forward_hooks) + len(module._forward_pre_hooks) + module.training
        for name, module in model.named_modules()
    }
    return state, wanted, kinds, hooks


def unchanged(model: torch.nn.Module, before: tuple) -> bool:
    """Whether the model is as it was when `state_of` looked."""
    after = state_of(model)
    return same_tensors(after[0], before[0]) and after[1:] == before[1:]


def calls(monkeypatch, owner: object, name: str) -> list:
    """Collects, for a test, the arguments of every call of a function that goes on working."""
    seen, real = [], getattr(owner, name)

    def watched(*arguments, **options):
        seen.append((arguments, options))
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, watched)
    return seen


def same_tensors(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def what_was_found(record: Record) -> Record:
    """A record without where, when and in what time its run was."""
    return replace(record, seconds=0.0, environment={}, command="")
