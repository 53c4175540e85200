"""Adapter files.

An adapter file is a safetensors file: the tensors under the names they have in the model, and in
its header the method, the configuration, the places and a sample of the base they were trained on.
Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from serial_lora.config import AdapterConfig, LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError, cut, reading, require_finite, writing
from serial_lora.injection import eject, inject
from serial_lora.merging import base_weight
from serial_lora.sites import unwrapped_name
from serial_lora.state import DEFAULT, Injection, adapters, injected, plain_context
from serial_lora.tensor_files import bytes_of, read_tensors, write_whole
from serial_lora.values import put_in, read_adapter, ready_to_change, refuse_misfit, require_fitting

LIBRARY_VERSION = "0.1.0"
FORMAT = "serial-lora adapter"
FORMAT_VERSION = "2"
METHODS: dict[str, type[AdapterConfig]] = {c.method: c for c in (SerialLoRAConfig, LoRAConfig)}


def save_adapter(
    model: nn.Module,
    path: str | Path,
    name: str | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter, merged or not, and what learned beside it to one safetensors file.

    The file is written beside its final place and then moved there, so an interrupted or failed
    save leaves an older file as it was.

    Args:
        name: of the adapter; None for the active one.
        notes: kept in the header, such as what the classes are called; `read_header` gives them.

    Raises:
        SerialLoRAError: if it holds values that are not finite, or the file cannot be written.
    """
    root, injection = injected(model)
    adapter = read_adapter(injection, injection.name if name is None else name)
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in adapter.tensors.items()
    }
    require_finite(tensors, "saved")
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "library_version": LIBRARY_VERSION,
        "method": injection.config.method,
        "config": json.dumps(asdict(adapter.config)),
        "also_train": json.dumps([unwrapped_name(module) for module in injection.also_train]),
        "targets": json.dumps({site.label: site.width for site in injection.sites}),
        "sample": base_sample(root, injection),
        "notes": json.dumps(dict(notes or {})),
    }
    metadata["checksum"] = checksum(metadata, tensors)
    with writing(path):
        return write_whole(path, bytes_of(tensors, metadata))


def load_adapter(
    model: nn.Module,
    path: str | Path,
    name: str | None = None,
    check_base: bool = True,
    heads: bool = True,
) -> nn.Module:
    """Load an adapter file into the model; puts the adapters in first if the model has none.

    The loaded adapter is active, with the file's scale, and what learned beside it is loaded too.
    Everything is checked before any value is changed: that the file is whole and one of ours, that
    it fits this model's places, and that this model's base is the one it was trained on, by a sample
    of the adapted weights, in bfloat16.

    Args:
        model: a plain model, or one with unmerged adapters of the same method and places.
        path: a file that `save_adapter` wrote.
        name: of one more adapter, which may have a rank of its own; None, or the name of the adapter
            that is active, loads the values of that one, whose rank must be the file's.
        check_base: False loads it onto any base whose sizes fit: one in float16, or a descendant of
            the one it was trained on. Serial LoRA's change, W B A, is another one there.
        heads: False takes the pairs alone, without the modules that learned beside them, onto a
            backbone, say; those of the model keep their values.
    """
    fresh = not adapters(model)
    path, saved, tensors = _read(path)
    if not heads:
        beside = tuple(f"{head}." for head in saved.also_train)
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(beside)}
        tensors |= {} if fresh else injected(model)[1].learned()  # those of the model itself
    if fresh:
        inject(model, saved.config, saved.also_train if heads else (), name or DEFAULT)
    try:
        root, injection = ready_to_change(model)
        new = name not in (None, injection.name)
        own = ("rank", "scale", "dropout") if new else ("scale",)
        config = replace(injection.config, **{key: getattr(saved.config, key) for key in own})
        if new and name is not None:
            refuse_misfit(injection, name, config)
        require_fitting(path, tensors, injection, config.rank)
        if check_base and base_sample(root, injection) != saved.sample:
            raise SerialLoRAError(
                f"{path} was trained on a base with other weights than this model's; load the base it "
                "belongs to (in float32 or bfloat16, since float16 rounds otherwise), or call load_adapter "
                "with check_base=False if it is meant for this one too."
            )
        with plain_context(root):
            put_in(injection, config, tensors, name if new else None)
    except BaseException:
        if fresh:
            eject(model)
        raise
    return model


def base_sample(root: nn.Module, injection: Injection) -> str:
    """Of each adapted weight of the base some values, spread over it, rounded to bfloat16: their bytes."""
    samples = []
    for site in injection.sites:
        for projection in site.projections.values():
            weight = base_weight(root, injection, (projection.module, projection.parameter))
            values = weight[projection.row_slice].reshape(-1)
            samples.append(values[:: max(1, values.numel() // 61)].to(torch.bfloat16).cpu())
    return torch.cat(samples).view(torch.int16).numpy().tobytes().hex()


# -------------------------------------------------------------------------------- what a file says


@dataclass(frozen=True)
class SavedAdapter:
    """What the header of an adapter file says."""

    config: AdapterConfig
    targets: dict[str, int]
    library_version: str
    also_train: tuple[str, ...]
    sample: str
    notes: dict[str, str]


def read_header(path: str | Path) -> SavedAdapter:
    """What is in an adapter file, without a model; refuses one that is missing, damaged or not ours."""
    return _read(path)[1]


def checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over metadata and every tensor: its name, type, shape and values."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(file: str | Path) -> tuple[Path, SavedAdapter, dict[str, Tensor]]:
    with reading(file):
        path = Path(file)  # or it is no name at all
    metadata, tensors = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise SerialLoRAError(
            f"{path} is a safetensors file, but not one that save_adapter wrote; no other can be "
            "loaded."
        )
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise SerialLoRAError(
            f"{path} has format version {cut(version)}, this library reads version {FORMAT_VERSION}; "
            f"use the library version that wrote it ({cut(metadata.get('library_version'))})."
        )
    with reading(path):
        if metadata.pop("checksum", None) != checksum(metadata, tensors):
            raise ValueError("its content is not what was saved")
        saved = SavedAdapter(
            config=METHODS[metadata["method"]](**json.loads(metadata["config"])),
            targets={str(n): int(width) for n, width in json.loads(metadata["targets"]).items()},
            library_version=metadata["library_version"],
            also_train=tuple(map(str, json.loads(metadata["also_train"]))),
            sample=metadata["sample"],
            notes=dict(json.loads(metadata.get("notes", "{}"))),  # older files have none
        )
    return path, saved, tensors
