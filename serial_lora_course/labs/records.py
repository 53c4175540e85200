"""Records of runs: one JSON line each, in a file that is whole at any moment.

A record holds everything a run depended on and everything it measured. A run whose key (task,
scale, data set, method, amount, seed, rank and settings) is already in the file is not run again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from serial_lora.errors import SerialLoRAError
from serial_lora.files import LIBRARY_VERSION, write_whole
from serial_lora_course.files import refusals_told
from serial_lora_course.labs.device import device_name
from serial_lora_course.labs.methods import get_method

PATIENCE = 60  # seconds until no more is waited for whoever writes
NO_RECORD = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        task: the lab's name.
        amount, unit: how much the run trained on, such as 16 "shots" or 20 "percent".
        rank: the adapter's.
        measures: what the lab reports (accuracies as fractions, Dice ...).
        sizes: what can be counted (``parameters``, ``bytes``, ``steps`` ...).
        seconds: of training.
        settings: every other choice, the precision that was used, and fingerprints of the pictures
            (``data``) and of the ``weights``.
        environment: where it ran.
        command: the command line that made it; empty where Python did.
    """

    task: str
    scale: str
    dataset: str
    method: str
    amount: int
    unit: str
    seed: int
    rank: int
    measures: dict[str, float]
    sizes: dict[str, int]
    seconds: float
    settings: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    command: str = ""

    @property
    def key(self) -> str:
        """A short name that two runs share only if nothing they depend on differs."""
        run = (self.task, self.scale, self.dataset, self.method, self.amount, self.seed, self.rank)
        return run_key(*run, self.settings)

    @property
    def lab_rank(self) -> int:
        """The rank that the lab was asked for, of which ``rank`` is the method's share."""
        return self.settings.get("rank", self.rank)

    @property
    def ratio(self) -> float:
        """The rate of B over that of A."""
        return self.settings.get("ratio", get_method(self.method).ratio)

    @property
    def lr(self) -> float | None:
        """The rate of A; None where the settings do not say."""
        own = self.settings.get("plus_lr") if get_method(self.method).plus else None
        return self.settings.get("lr") if own is None else own


def run_key(*run: Any) -> str:
    """The key of task, scale, data set, method, amount, seed, rank and settings."""
    text = json.dumps(run, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_unit(amount: int, unit: str) -> str:
    """An amount of training data in words: "16 shots", "1 shot", "20%"."""
    if unit == "percent":
        return f"{amount}%"
    return f"{amount} {unit.removesuffix('s') if amount == 1 else unit}"


def environment() -> dict[str, str]:
    """Where a run ran: versions, device, date."""
    facts = {"date": datetime.now(UTC).date().isoformat(), "device": device_name()}
    facts["serial-lora"] = LIBRARY_VERSION
    for package in ("open_clip_torch", "diffusers"):
        with suppress(PackageNotFoundError):
            facts[package] = version(package)
    facts["torch"] = torch.__version__  # with the build, such as +cpu, which the metadata may lack
    return facts


# ---------------------------------------------------------------------------------------- files


@refusals_told()
def read_records(path: Path) -> list[Record]:
    """All records of a JSONL file; none where there is no file."""
    if not path.exists():
        return []
    if not path.is_file():
        raise SerialLoRAError(f"The records {path} cannot be read, as it is no file; name another.")
    content = path.read_bytes()
    records = []
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_checked(Record(**json.loads(line))))
        except NO_RECORD as error:
            raise SerialLoRAError(
                f"Line {number} of {path} is not a record; delete that line or move the file away."
            ) from error
    return records


def _checked(record: Record) -> Record:
    """The record, if its values are of the kinds that it says; else one of several errors."""
    for each in fields(record):
        kinds = ("int", "float") if each.type == "float" else (each.type.partition("[")[0],)
        if type(getattr(record, each.name)).__name__ not in kinds:
            raise TypeError
    math.fsum([*record.measures.values(), *record.sizes.values(), record.seconds])  # are numbers
    return record


def append_record(path: Path, record: Record) -> None:
    """Add one line to a JSONL file, whole or not at all.

    Several runs may share the file, at the same time too: a run that is in it already is not added
    again.

    Raises:
        SerialLoRAError: the file cannot be written; what it held before is untouched.
    """
    with _alone(path):
        if record.key in {known.key for known in read_records(path)}:
            return
        earlier = path.read_bytes() if path.exists() else b""
        if earlier and not earlier.endswith(b"\n"):
            earlier += b"\n"
        line = json.dumps(asdict(record), sort_keys=True)
        write_whole(path, earlier + line.encode() + b"\n")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The file for one run at a time; whatever goes wrong with it in one sentence."""
    try:
        if path.exists() and not path.is_file():
            raise IsADirectoryError(0, "it is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        real = Path(os.path.realpath(path))  # a file that has two names has one lock
        place = real.with_name(f".{real.name}.lock")
        place.touch()  # where that is impossible, the lock would be asked for in vain
        with FileLock(place, timeout=PATIENCE):
            yield
    except Timeout as error:
        raise SerialLoRAError(
            f"Another run has been writing to {path} for {PATIENCE} seconds; wait until it ends, or "
            "choose another file with --out."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a path without a name
        raise SerialLoRAError(
            f"The record cannot be written to {path} ({getattr(error, 'strerror', error) or error}); "
            "free some space or choose another file with --out. Earlier records are untouched."
        ) from error


class Kept:
    """The records that a file holds, for runs to be looked up in and added to.

    Args:
        out: a JSONL file; None keeps nothing.

    Raises:
        SerialLoRAError: it cannot be read or written.
    """

    def __init__(self, out: Path | None) -> None:
        self.out, self.known = out, {}
        if out is not None:
            with _alone(out):  # refused now if it cannot be written, before hours go into it
                out.open("ab").close()
            self._read()

    def _read(self) -> None:
        """Also what other processes have written meanwhile."""
        self.known |= {record.key: record for record in read_records(self.out)}

    def unfinished(self, key: str) -> Path | None:
        """The file for the state of an unfinished run."""
        return self.out and self.out.with_name(f"{self.out.stem}-unfinished-{key}.pt")

    @contextmanager
    def claim(self, key: str, wait: bool = True) -> Iterator[bool]:
        """Whether the run is this process's to do, for the length of the block.

        It is not where its record is there by now, or another process on the same file is at it. The
        system takes a claim back from a process that ends, however it ends.

        Args:
            wait: until no other process is at it.
        """
        if key in self.known or self.out is None:
            yield key not in self.known
            return
        place = self.out.with_name(f".{self.out.stem}-{key}.lock")
        lock = FileLock(place)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                yield False
                return
            print(f"Another process is at a run for {self.out}; waiting for it.")
            lock.acquire()
        try:
            self._read()
            yield key not in self.known
        finally:
            lock.release()
            if key in self.known:
                with suppress(OSError):  # Windows deletes no file that is open
                    place.unlink()

    def add(self, key: str, record: Record) -> None:
        """Write a record, and forget the state that its run had while it was unfinished."""
        if self.out is not None:
            append_record(self.out, record)
            self.unfinished(key).unlink(missing_ok=True)
        self.known[key] = record

    def or_run(
        self, key: str, run: Callable[..., Record], wait: bool = True
    ) -> tuple[Record, bool] | None:
        """The record of this key, run and written if it is not there yet; and whether it is new.

        Args:
            run: called with ``save_to``, the file for the state of an unfinished run, which is
                deleted when the record is written.
            wait: for another process that is at it; else the answer is None then.
        """
        with self.claim(key, wait) as mine:
            if mine:
                self.add(key, run(save_to=self.unfinished(key)))
                return self.known[key], True
            return (self.known[key], False) if key in self.known else None


def shipped_records(name: str) -> list[Record]:
    """The reference records of a lab at tiny scale, made by the command that they name.

    Args:
        name: clip, sam or sd3; or one of the CLIP lab's sweeps, clip_ratio or clip_rank.
    """
    assets = Path(str(files("serial_lora_course"))) / "assets"
    return read_records(assets / "records" / f"{name}_tiny.jsonl")
