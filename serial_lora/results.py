"""Results as they fall: one JSON line per run, tables made from nothing else.

A record holds everything a run depended on and everything it measured. A run whose key (task,
scale, data set, method, shots, seed and settings) is already in the file is not run again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

import pandas as pd
import torch

from serial_lora.errors import SerialLoRAError


@dataclass(frozen=True)
class Record:
    """One finished run.

    ``measures`` are what the task reports (accuracies as fractions, Dice ...), ``sizes`` what the
    adapter weighs (``parameters``, ``bytes``), ``settings`` every other choice.
    """

    task: str
    scale: str
    dataset: str
    method: str
    shots: int
    seed: int
    rank: int
    measures: dict[str, float]
    sizes: dict[str, int]
    seconds: float
    settings: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)

    @property
    def key(self) -> str:
        return run_key(
            self.task, self.scale, self.dataset, self.method, self.shots, self.seed, self.rank,
            self.settings,
        )  # fmt: skip


def run_key(*parts: object) -> str:
    """A short name for a run that two runs share only if nothing they depend on differs."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment() -> dict[str, str]:
    """Where a run ran: versions, device, date."""
    facts = {"date": datetime.now(timezone.utc).date().isoformat(), "device": device_name()}
    for package in ("serial-lora", "torch", "open_clip_torch", "diffusers"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def append_record(path: Path, record: Record) -> None:
    """Add one line to a JSONL file, whole or not at all.

    Raises:
        SerialLoRAError: the file cannot be written; what it held before is untouched.
    """
    line = (json.dumps(asdict(record), sort_keys=True) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_half_line(path)
        before = path.stat().st_size if path.exists() else 0
        with path.open("ab", buffering=0) as file:  # nothing left to write when it closes
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, before)
                raise
    except OSError as error:
        raise SerialLoRAError(
            f"The record cannot be written to {path} ({error.strerror}); free some space or choose "
            "another folder with --out. Earlier records are untouched."
        ) from error


def _drop_half_line(path: Path) -> None:
    """A run that was cut off while writing may have left half a line; it is worth nothing."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file; none where there is no file.

    Raises:
        SerialLoRAError: a whole line of the file is not a record, or it is no file.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SerialLoRAError(
            f"The records {path} cannot be read ({error.strerror}); name another file."
        ) from error
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # behind the last newline: nothing, or half
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise SerialLoRAError(
                f"Line {number} of {path} is not a record; move the file away or repair that line."
            ) from error
    return records


def shipped_records(task: str) -> list[Record]:
    """The reference records of a task at tiny scale, made by the same command."""
    return read_records(
        Path(str(files("serial_lora"))) / "assets" / "records" / f"{task}_tiny.jsonl"
    )


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record: what was run, and each measure and size as a column."""
    rows = []
    for record in records:
        row = {
            k: getattr(record, k)
            for k in ("task", "scale", "dataset", "method", "shots", "seed", "rank", "seconds")
        }
        rows.append(row | record.measures | record.sizes)
    return pd.DataFrame(rows)


def summary(records: Iterable[Record], measure: str, by: list[str] | None = None) -> pd.DataFrame:
    """Mean, standard deviation over seeds and number of runs of a measure for each setting."""
    by = by or ["dataset", "shots", "method"]
    grouped = frame(records).groupby(by, sort=False)[measure]
    return grouped.agg(["mean", "std", "count"]).reset_index()
