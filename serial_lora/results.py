"""Results as they fall: one JSON line per run, tables made from nothing else.

A record holds everything a run depended on and everything it measured. A run whose key (task,
scale, data set, method, shots, seed and settings) is already in the file is not run again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import torch
from filelock import FileLock

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
    for package in ("serial-lora", "open_clip_torch", "diffusers"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    facts["torch"] = torch.__version__  # with the build, such as +cpu, which the metadata may lack
    return facts


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


def append_record(path: Path, record: Record) -> None:
    """Add one line to a JSONL file, whole or not at all.

    Several runs may share the file, at the same time too: a run that is in it already is not added
    again.

    Raises:
        SerialLoRAError: the file cannot be written; what it held before is untouched.
    """
    line = (json.dumps(asdict(record), sort_keys=True) + "\n").encode()
    with _open_records(path) as file:
        if record.key in {known.key for known in read_records(path)}:
            return
        _mend_end(file, path)
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)
            raise


def require_writable(path: Path) -> None:
    """Make the folder and an empty file where there is none, before hours go into its contents.

    Raises:
        SerialLoRAError: the file could not be written.
    """
    with _open_records(path):
        pass


@contextmanager
def _open_records(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading and appending by one run at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")), path.open("ab+", buffering=0) as file:
            yield file
    except (OSError, ValueError) as error:  # ValueError: a path without a name
        raise SerialLoRAError(
            f"The record cannot be written to {path} ({getattr(error, 'strerror', error)}); free "
            "some space or choose another folder with --out. Earlier records are untouched."
        ) from error


def _mend_end(file: BinaryIO, path: Path) -> None:
    """End the last line: add the newline it lacks, or take half a line away."""
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if _is_half(content[start:]):
        os.truncate(path, start)
    elif content[start:]:
        file.write(b"\n")


def _is_half(line: bytes) -> bool:
    """Whether a run was cut off while writing this line: it is worth nothing then."""
    try:
        json.loads(line)
    except ValueError:
        return line.startswith(b"{")
    return False


def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file; none where there is no file.

    Raises:
        SerialLoRAError: a line of the file is not a record, or it is no file. Half a last line,
            all that a run left that was cut off while writing, is passed over.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise SerialLoRAError(
            f"The records {path} cannot be read ({error.strerror}); name another file."
        ) from error
    if not lines[-1] or _is_half(lines[-1]):
        lines.pop()
    records = []
    for number, line in enumerate(lines, start=1):
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
