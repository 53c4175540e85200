"""What the unadapted model reaches: measured once for the same weights, data and settings.

It is the same for every run on a data set, so whoever has it hands it on: an earlier run of this
process, or a record in the file that the runs are added to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from serial_lora_course.labs.records import Record


class Measured(Protocol):
    """What is asked of a lab here; :class:`serial_lora_course.labs.lab.Lab` says what each is."""

    name: str
    data: Any
    contents: dict[str, Any]
    base_names: tuple[str, ...]

    def base_settings(self) -> dict[str, Any]: ...

    def measure_base(self) -> dict[str, float]: ...


_measured: dict[tuple[object, ...], dict[str, float]] = {}


def base_of(lab: Measured, records: Iterable[Record] = ()) -> dict[str, float]:
    """What :meth:`Measured.measure_base` says; measured only if neither this process nor a record knows it.

    Args:
        records: of earlier runs, of whatever lab and data.
    """
    asked = lab.contents | lab.base_settings()
    key = (type(lab), lab.data.scale, lab.data.name, repr(asked))
    if key not in _measured:
        recorded = (_recorded(lab, asked, record) for record in records)
        _measured[key] = next(filter(None, recorded), None) or lab.measure_base()
    return _measured[key]


def _recorded(lab: Measured, asked: dict[str, object], record: Record) -> dict[str, float]:
    """The base in a record; empty where that is another base, or does not say whose it is."""
    same = (record.task, record.scale, record.dataset) == (lab.name, lab.data.scale, lab.data.name)
    known = record.settings | record.sizes
    if not same or any(known.get(name) != value for name, value in asked.items()):
        return {}
    return {name: v for name, v in record.measures.items() if name.startswith(lab.base_names)}
