"""State dicts from files, checked whole before a single tensor of the model is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from serial_lora.errors import SerialLoRAError

Shapes = Mapping[str, tuple[int, ...]]
PICKLE_ENDINGS = (".pt", ".pth", ".bin")


def require_file(path: Path) -> None:
    """Refuse a path at which there is no file."""
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        raise SerialLoRAError(f"There is no weights file {path}; check the path.")


def require_finite(model: nn.Module, path: Path) -> None:
    """Refuse a model that was filled from ``path`` with infinities or NaN."""
    if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
        raise SerialLoRAError(
            f"{path} holds numbers that are not finite; delete it and fetch it again."
        )


def fill_from_safetensors(
    model: nn.Module, path: Path, recognise: Callable[[Shapes], str | None] | None = None
) -> None:
    """Fill ``model`` from a safetensors state dict, in the model's own number format.

    Args:
        recognise: what a file with these shapes holds, where the reader knows a name for it.

    Raises:
        SerialLoRAError: no such file, not a safetensors file, or not this model's tensors.
    """
    require_file(path)
    try:
        with safe_open(path, "pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            _compare(found, model, path, recognise)
            _copy(model, file.get_tensor)
    except (SafetensorError, OSError) as error:
        raise SerialLoRAError(
            f"{path} is not a readable safetensors file ({error}); fetch it again."
        ) from error


def fill_from_checkpoint(
    model: nn.Module, path: Path, recognise: Callable[[Shapes], str | None] | None = None
) -> None:
    """Fill ``model`` from a state dict that torch.save wrote; no code in the file is ever run.

    Args:
        recognise: what a file with these shapes holds, where the reader knows a name for it.

    Raises:
        SerialLoRAError: no such file, not such a checkpoint, or not this model's tensors.
    """
    require_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken bytes led it to
        raise SerialLoRAError(_unreadable(path)) from error
    if not _is_state_dict(state):
        raise SerialLoRAError(
            f"{path.name} is no plain state dict of tensors; take the publisher's own checkpoint."
        )
    _compare({key: tuple(tensor.shape) for key, tensor in state.items()}, model, path, recognise)
    _copy(model, state.__getitem__)


def _is_state_dict(state: object) -> bool:
    return isinstance(state, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    )


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip()
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); check its permissions."
    if not start:
        what = "is empty"
    elif start.startswith(b"<"):
        what = "is a web page, not a checkpoint"
    elif start.startswith(b"version https://git-lfs"):
        what = "is a pointer to a large file, not the file itself"
    else:
        what = "is damaged, cut short, or holds more than tensors, and was not opened further"
    return f"{path} {what}; fetch it again."


def _compare(
    found: Shapes, model: nn.Module, path: Path, recognise: Callable[[Shapes], str | None] | None
) -> None:
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    missing = sorted(wanted.keys() - found.keys())
    foreign = sorted(found.keys() - wanted.keys())
    other_shape = [key for key in wanted if key in found and found[key] != wanted[key]]
    if not (missing or foreign or other_shape):
        return
    known = recognise(found) if recognise else None
    if known:
        raise SerialLoRAError(f"{path.name} {known}")
    for what, names in (("lacks", missing), ("has", foreign), ("has another size of", other_shape)):
        if names:
            raise SerialLoRAError(
                f"{path.name} holds another model's weights: it {what} {names[0]} "
                f"({len(names)} such tensors); choose the architecture it was made for."
            )


@torch.no_grad()
def _copy(model: nn.Module, read: Callable[[str], Tensor]) -> None:
    for key, tensor in model.state_dict().items():
        tensor.copy_(read(key))
