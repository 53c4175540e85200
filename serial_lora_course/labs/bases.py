"""What the unadapted model reaches: measured once for the same weights, data and settings.

It is the same for every run on a data set, so whoever has it hands it on: an earlier run of this
process, or a record in the file that the runs are added to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn

from serial_lora_course.labs.records import Record

VALUES = 61  # of each tensor that the fingerprint looks at, spread over it


class Measured(Protocol):
    """What is asked of a lab here; :class:`serial_lora_course.labs.lab.Lab` says what each is."""

    name: str
    data: Any
    backbone: Any
    base_names: tuple[str, ...]

    def base_settings(self) -> dict[str, Any]: ...

    def measure_base(self) -> dict[str, float]: ...


_measured: dict[tuple[object, ...], dict[str, float]] = {}


def base_of(lab: Measured, records: Iterable[Record] = ()) -> dict[str, float]:
    """What :meth:`Measured.measure_base` says; measured only if neither this process nor a record knows it.

    Args:
        records: of earlier runs, of whatever lab and data.
    """
    with_what = lab.base_settings()
    key = (lab.name, lab.data.scale, lab.data.name, lab.data.fingerprint(), repr(with_what))
    key += (weights_fingerprint(lab.backbone.model),)
    if key not in _measured:
        recorded = (_recorded(lab, with_what, record) for record in records)
        _measured[key] = next(filter(None, recorded), None) or lab.measure_base()
    return _measured[key]


def _recorded(lab: Measured, with_what: dict[str, object], record: Record) -> dict[str, float]:
    """The base in a record; empty where that is another base, or does not say whose it is."""
    same_data = (record.task, record.scale, record.dataset, record.settings.get("data")) == (
        lab.name,
        lab.data.scale,
        lab.data.name,
        lab.data.fingerprint()[:16],
    )
    known = record.settings | record.sizes
    if not (same_data and all(known.get(name) == value for name, value in with_what.items())):
        return {}
    if record.environment.get("weights") != weights_fingerprint(lab.backbone.model):
        return {}
    return {name: v for name, v in record.measures.items() if name.startswith(lab.base_names)}


def weights_fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits over the frozen tensors' names, shapes and some values of each."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.reshape(-1)
        some = values[:: max(1, values.numel() // VALUES)].to(torch.float32)
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + some.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
