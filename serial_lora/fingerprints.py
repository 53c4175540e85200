"""What tells one base from another, and a whole adapter file from a damaged one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from serial_lora.merging import base_weight, weight_at
from serial_lora.records import Injection, adapters


def fingerprint(root: nn.Module, injection: Injection) -> str:
    """SHA-256 over the adapted weights' names, shapes and some values spread over each.

    Values are rounded to bfloat16 first, so that one base gives one fingerprint in float32 and in
    bfloat16.
    """
    digest = hashlib.sha256()
    for site in injection.sites:
        for part, projection in site.projections.items():
            weight = base_weight(root, injection, projection)
            digest.update(f"{site.label} {part} {tuple(weight.shape)}".encode())
            values = weight.reshape(-1)
            some = values[:: max(1, values.numel() // 61)].to(torch.bfloat16)
            digest.update(some.cpu().float().numpy().tobytes())
    return digest.hexdigest()


def blocks_digest(root: nn.Module, injection: Injection) -> str:
    """SHA-256 over every parameter of the adapted blocks, rounded to bfloat16, whatever its name.

    Names differ between versions of a library; the attention is in order in `fingerprint`.
    """
    kept = {id(weight_at(root, key)): w for key, w in (injection.originals or {}).items()}
    if injection.set_aside is None:
        kept |= {id(t): injection.own.get(name, t) for name, t in injection.learned().items()}
    own = {id(p) for adapter in adapters(root).values() for p in adapter.parameters()}
    whole = hashlib.sha256()
    for name in dict.fromkeys(site.name for site in injection.sites):
        digests = []
        for parameter in root.get_submodule(name).parameters():
            values = kept.get(id(parameter), parameter).detach()
            if id(parameter) not in own and type(values.data) is Tensor:
                digest = hashlib.sha256(str(tuple(values.shape)).encode())
                digest.update(
                    values.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy()
                )
                digests.append(digest.digest())
        whole.update(b"".join([*sorted(digests), b"block"]))
    return whole.hexdigest()


def checksum(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over metadata and every tensor: its name, type, shape and values."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
