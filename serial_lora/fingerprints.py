"""What tells one base from another, and a whole adapter file from a damaged one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from serial_lora.merging import base_weight
from serial_lora.records import Injection, adapters
from serial_lora.sites import Projection
from serial_lora.stored import whole, writable

LARGEST_DIFFERENCE = 0.5
"""Of two roundings of one weight, relative to its size; another weight differs by more than 1."""


def fingerprint(root: nn.Module, injection: Injection) -> str:
    """SHA-256 over the adapted weights' names, shapes and some values spread over each.

    Values are rounded to bfloat16 first, so that one base gives one fingerprint in float32 and in
    bfloat16.
    """
    digest = hashlib.sha256()
    for site in injection.sites:
        for part, projection in site.projections.items():
            shape = (projection.rows, projection.columns)
            digest.update(f"{site.label} {part} {shape}".encode())
            digest.update(_some_values(root, injection, projection).numpy().tobytes())
    return digest.hexdigest()


def base_sample(root: nn.Module, injection: Injection) -> list[Tensor]:
    """Some values of each adapted weight of the base, rounded to bfloat16."""
    return [
        _some_values(root, injection, projection)
        for site in injection.sites
        for projection in site.projections.values()
    ]


def as_text(sample: list[Tensor]) -> str:
    """A sample for the header of a file."""
    return torch.cat(sample).to(torch.bfloat16).view(torch.int16).numpy().tobytes().hex()


def alike(sample: list[Tensor], text: str) -> bool:
    """Whether a sample and one of a file are of one base, but for a rounding to 8 or 4 bits."""
    numbers = np.frombuffer(bytes.fromhex(text), np.int16).copy()
    there = torch.from_numpy(numbers).view(torch.bfloat16).float()
    lengths = [len(values) for values in sample]
    return len(there) == sum(lengths) and all(
        (one - other).norm() <= LARGEST_DIFFERENCE * one.norm()
        for one, other in zip(sample, there.split(lengths), strict=True)
    )


def _some_values(root: nn.Module, injection: Injection, projection: Projection) -> Tensor:
    values = base_weight(root, injection, projection).reshape(-1)
    return values[:: max(1, values.numel() // 61)].to(torch.bfloat16).cpu().float()


def blocks_digest(root: nn.Module, injection: Injection) -> str:
    """SHA-256 over every parameter of the adapted blocks, rounded to bfloat16, whatever its name.

    Names differ between versions of a library; the attention is in order in `fingerprint`.
    """
    originals = (injection.originals or {}).items()
    kept = {id(writable(root, key).weight): parts[0] for key, parts in originals}
    if injection.set_aside is None:
        kept |= {id(t): injection.own.get(name, t) for name, t in injection.learned().items()}
    own = {id(p) for adapter in adapters(root).values() for p in adapter.parameters()}
    everything = hashlib.sha256()
    for name in dict.fromkeys(site.name for site in injection.sites):
        digests = []
        for parameter in root.get_submodule(name).parameters():
            values = whole(kept.get(id(parameter), parameter).detach())
            if id(parameter) not in own and type(values.data) is Tensor:
                digest = hashlib.sha256(str(tuple(values.shape)).encode())
                digest.update(
                    values.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy()
                )
                digests.append(digest.digest())
        everything.update(b"".join([*sorted(digests), b"block"]))
    return everything.hexdigest()


def checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over metadata and every tensor: its name, type, shape and values."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
