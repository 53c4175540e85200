"""What the three backbones share: their shape, their files, and how a file fills a model.

A file is checked whole before a single tensor of the model is touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError, require_choice
from serial_lora.files import checksum
from serial_lora_course.data.releases import data_root

SCALES = ("tiny", "paper")
PICKLE_ENDINGS = (".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Backbone:
    """A pretrained model in evaluation mode, what records call it, and its scale.

    Attributes:
        model: the part that is adapted.
    """

    model: nn.Module
    name: str
    scale: str

    def around(self, model: nn.Module) -> Backbone:
        """The same with another model of this kind in place of its own."""
        return replace(self, model=model)


def require_scale(scale: str) -> None:
    """Refuse what is neither ``tiny`` nor ``paper``."""
    require_choice("scale", scale, SCALES)


def weights_fingerprint(models: Iterable[nn.Module]) -> str:
    """16 hexadecimal digits over every tensor of some models: name, type, shape and all values."""
    named = enumerate(model.state_dict().items() for model in models)
    return checksum({}, {f"{i} {name}": t for i, each in named for name, t in each})[:16]


def tiny_file(name: str) -> Path:
    """A file of a tiny backbone that the package carries, such as ``tiny-clip.card.json``."""
    return Path(str(files("serial_lora_course"))) / "assets" / "weights" / name


def fetched(name: str, what: str) -> Path:
    """A published model's weights, a file or a folder, which a data script fetched before.

    Args:
        what: what ``data_scripts/fetch.py`` calls them.
    """
    path = data_root() / "weights" / name
    if not os.path.exists(path):
        raise SerialLoRAError(
            f"There are no weights to be read at {path}; fetch them where there is a network with `python "
            f"data_scripts/fetch.py {what}`, or name your own with --weights."
        )
    return path


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` from a state dict, in the model's own number format.

    Args:
        path: safetensors, or what torch.save wrote (.pt, .pth, .bin), of which no code is ever run.
    """
    state = read_state_dict(path)
    wanted = model.state_dict()
    other_size = {k for k in wanted if k in state and state[k].shape != wanted[k].shape}
    for what, names in (
        ("lacks", wanted.keys() - state.keys()),
        ("has", state.keys() - wanted.keys()),
        ("has another size of", other_size),
    ):
        if names:
            raise SerialLoRAError(
                f"{path.name} holds another model's weights: it {what} {min(names)} "
                f"({len(names)} such tensors); choose the architecture it was made for."
            )
    # As they lie in the file, where it has the model's format: processes share the system's one copy.
    model.load_state_dict({n: state[n].to(t.dtype) for n, t in wanted.items()}, assign=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name."""
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise SerialLoRAError(f"There is no weights file {path}; check the path.")
    try:
        if path.suffix not in PICKLE_ENDINGS:
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken bytes led it to
        raise SerialLoRAError(
            f"{path} cannot be read, is damaged, or holds more than tensors, and was not opened further; "
            "fetch it again."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise SerialLoRAError(
            f"{path.name} is no plain state dict of tensors; take the publisher's own checkpoint."
        )
    return state


def require_finite(model: nn.Module, path: Path) -> None:
    """Refuse a model that was filled from ``path`` with infinities or NaN."""
    if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
        raise SerialLoRAError(
            f"{path} holds numbers that are not finite; delete it and fetch it again."
        )
