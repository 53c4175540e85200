"""Results as they fall: one JSON line per run, tables made from nothing else.

A record holds everything a run depended on and everything it measured. A run whose key (task,
scale, data set, method, shots, seed and settings) is already in the file is not run again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from serial_lora_course.labs.methods import METHOD_TITLES, METHODS


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
            self.task,
            self.scale,
            self.dataset,
            self.method,
            self.shots,
            self.seed,
            self.rank,
            self.settings,
        )

    @property
    def lab_rank(self) -> int:
        """The rank that the lab was asked for, of which ``rank`` is the method's share."""
        return self.settings.get("rank", self.rank)

    @property
    def ratio(self) -> float:
        """The rate of B over that of A."""
        return self.settings.get("ratio", METHODS[self.method].ratio)

    @property
    def lr(self) -> float | None:
        """The rate of A; None where the settings do not say."""
        own = self.settings.get("plus_lr") if METHODS[self.method].plus else None
        return self.settings.get("lr") if own is None else own


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
    """The reference records of a task at tiny scale, made by the same command.

    Args:
        task: clip, sam or sd3; or one of the CLIP lab's sweeps, clip_ratio or clip_rank.
    """
    return read_records(
        Path(str(files("serial_lora_course"))) / "assets" / "records" / f"{task}_tiny.jsonl"
    )


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record: what was run, and each measure and size as a column.

    ``rank`` is the adapter's, ``lab_rank`` the lab's; ``lr`` is the rate of A, ``ratio`` that of B
    over it.
    """
    rows = []
    for record in records:
        row = {
            k: getattr(record, k)
            for k in (
                "task",
                "scale",
                "dataset",
                "method",
                "shots",
                "seed",
                "rank",
                "lab_rank",
                "ratio",
                "lr",
                "seconds",
            )
        }
        rows.append(row | record.measures | record.sizes)
    return pd.DataFrame(rows)


def summary(records: Iterable[Record], measure: str, by: list[str] | None = None) -> pd.DataFrame:
    """Mean, standard deviation over seeds and number of runs of a measure for each setting."""
    by = by or ["dataset", "shots", "method"]
    grouped = frame(records).groupby(by, sort=False)[measure]
    return grouped.agg(["mean", "std", "count"]).reset_index()


def swept(records: Iterable[Record]) -> list[str]:
    """Which of ``lab_rank``, ``ratio``, ``lr`` (the rate of A) differ between a method's runs."""
    found = frame(records).groupby("method")[["lab_rank", "ratio", "lr"]].nunique().max()
    return [name for name, values in found.items() if values > 1]


def describe_records(
    records: Sequence[Record], amount: str, datasets: Collection[str], methods: Collection[str]
) -> str:
    """What records of one task are and how they were made: runs, command, settings, machine.

    Args:
        amount: the lab's option for how much data a run trains on, "shots" or "percent".
        datasets, methods: every name that the lab knows; whoever used them all wrote "all".

    Raises:
        SerialLoRAError: there are no records.
    """
    if not records:
        raise SerialLoRAError("There are no records to describe; run the lab first.")
    results = frame(records)
    amounts = sorted(results["shots"].unique().tolist())
    chosen = {
        "dataset": _names_or_all(results["dataset"], datasets),
        "methods": _names_or_all(results["method"], methods),
        amount: ",".join(map(str, amounts)),
        "seeds": results["seed"].max(),
    } | _sweep_options(records)
    options = " ".join(f"--{option} {value}" for option, value in chosen.items())
    told = {name.replace("-", "_") for name in chosen} | {"data"}  # each data set has its own
    if all(METHODS[r.method].plus and r.settings.get("plus_lr") is not None for r in records):
        told.add("lr")  # no run used it: they have a rate of their own
    untold = [{k: v for k, v in r.settings.items() if k not in told} for r in records]
    settings = {json.dumps(each, sort_keys=True): None for each in untold}
    machines = {record.environment.get("device", "not noted") for record in records}
    lines = [
        f"{_number(len(records), 'run')}: {_number(results['dataset'].nunique(), 'data set')}, "
        f"{_number(results['method'].nunique(), 'method')}, {amount} {amounts}, "
        f"{_number(results['seed'].nunique(), 'seed')}, "
        f"{results['seconds'].sum() / 60:.0f} minutes of training",
        f"command: serial-lora lab {records[0].task} {options}",
        "settings:",
        *settings,
        f"machine: {' '.join(sorted(machines))}",
    ]
    return "\n".join(lines)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _sweep_options(records: Sequence[Record]) -> dict[str, str]:
    """The lab's options that a sweep took several values of, and the values."""
    values = {
        "rank": {record.lab_rank for record in records},
        "ratio": {record.ratio for record in records if METHODS[record.method].plus},
        "plus-lr": {record.lr for record in records if METHODS[record.method].plus},
    }
    return {
        option: ",".join(f"{value:g}" for value in sorted(several))
        for option, several in values.items()
        if len(several) > 1
    }


def _names_or_all(used: pd.Series, known: Collection[str]) -> str:
    return "all" if set(used) == set(known) else ",".join(used.unique())


# ------------------------------------------------------------------------- methods beside methods


def by_method(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure with one column a method; a row is what methods share: data set, shots and seed.

    Raises:
        SerialLoRAError: two runs share a cell, such as two ranks of one method.
    """
    index = ["dataset", "shots", "seed"]
    if results.duplicated([*index, "method"]).any():
        raise SerialLoRAError(
            "Some runs share data set, shots, seed and method; pick one rank before comparing."
        )
    return results.pivot(index=index, columns="method", values=measure)


def paired(results: pd.DataFrame, one: str, other: str, measure: str) -> pd.Series:
    """A measure of method ``one`` minus that of ``other``, a value for each run of both.

    Two runs with the same data set, shots and seed saw the same training pictures, so their
    difference is free of most of the luck of the draw.

    Raises:
        SerialLoRAError: the two methods have no runs to pair.
    """
    wide = by_method(results, measure)
    missing = [method for method in (one, other) if method not in wide.columns]
    difference = pd.Series(dtype=float) if missing else (wide[one] - wide[other]).dropna()
    if difference.empty:
        raise SerialLoRAError(
            f"{one} and {other} have no run with the same data set, shots and seed; run both."
        )
    return difference


def methods_table(
    results: pd.DataFrame, measure: str, write: Callable[[float, float], str]
) -> pd.DataFrame:
    """One row a method: its parameters, and the mean over data sets for each number of shots.

    Only combinations that every method ran are averaged, so that all averages are over the same.

    Args:
        results: as :func:`frame` gives them, of one rank.
        measure: the column to average.
        write: (mean, standard deviation over seeds) -> what stands in the table.
    """
    everywhere = by_method(results, measure).dropna()
    by_seed = everywhere.groupby(["shots", "seed"]).mean().groupby("shots")
    mean, spread = by_seed.mean(), by_seed.std()  # rows: shots, columns: methods
    parameters = results.groupby("method")["parameters"].first()
    rows = {
        METHOD_TITLES[method]: {"parameters": f"{parameters[method]:,}"}
        | {shots: write(mean.loc[shots, method], spread.loc[shots, method]) for shots in mean.index}
        for method in METHOD_TITLES
        if method in mean.columns
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns="shots")


def paired_difference(results: pd.DataFrame, one: str, other: str, measure: str) -> pd.DataFrame:
    """How far method ``one`` is above ``other`` on the same pictures, by number of shots.

    Args:
        results: as :func:`frame` gives them, of one rank.
        measure: a column of which more is better.

    Returns:
        Columns ``methods`` (both in words), ``shots``, ``mean`` difference, its standard error
        ``sem``, ``count`` of pairs, and ``verdict``: "ahead" or "behind" where the mean is more
        than two standard errors from 0, else "not told apart".

    Raises:
        SerialLoRAError: the two methods have no runs to pair.
    """
    table = paired(results, one, other, measure).groupby("shots").agg(["mean", "sem", "count"])
    table["verdict"] = [
        "not told apart"
        if not abs(row["mean"]) > 2 * row["sem"]
        else "ahead"
        if row["mean"] > 0
        else "behind"
        for _, row in table.iterrows()
    ]
    table.insert(0, "methods", f"{METHOD_TITLES[one]} against {METHOD_TITLES[other]}")
    return table.reset_index()


def as_text(table: pd.DataFrame, formats: Mapping[str, str]) -> pd.DataFrame:
    """The table with some columns written out, each in its own format, such as ``{:.1%}``."""
    return table.assign(**{name: table[name].map(text.format) for name, text in formats.items()})
