"""Files of tensors: there whole or not at all, however a program ends, and equal bytes for equal content."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from serial_lora.errors import SerialLoRAError, reading


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """A safetensors file's header and its tensors; refuses one that is missing or damaged."""
    with reading(path):
        exists = path.is_file()  # a pipe would be waited for
        content = path.read_bytes() if exists else b""  # opened once: it may be replaced meanwhile
        tensors = safetensors.torch.load(content) if exists else {}
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length] or "{}").get("__metadata__") or {}
    if not exists:
        raise SerialLoRAError(f"there is no adapter file {path}; check the name and folder.")
    return metadata, tensors


def bytes_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file whose header lists its metadata by name."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(contiguous, dict(metadata))
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants numbers to begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half; make its folder.

    The content goes to a file of another name in the same folder first, which then takes the
    place of the old one in one step. Two programs that write the same file do not mix: the later
    one wins. A link stays, and what it leads to is written; so do the rights of an older file.

    Raises:
        OSError: it cannot be written, or is a pipe, a device or a folder; an older file is as it was,
            and nothing is left behind.
    """
    path = Path(path)
    if not path.name or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "it is no file", str(path))
    place = Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, partial)
        os.replace(partial, place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return path
