"""Records and outcomes of the study's runs: what is packed, and what a folder holds besides.

A folder keeps, for each lab, the records (one JSON line a run, as every lab's) and beside them, under the
run's name, what each test picture came to (``.npz``). Packed, both lie in ``study/results``.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.labs.records import Record, read_records
from study.plan import CHOOSING_SEED, Arm, LabPlan
from study.sets import VALIDATION

PACKED = Path(__file__).parent / "results"
LEVELS = 65535  # of a number between 0 and 1, packed
UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(lzma.LZMAError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Run:
    """One run of an arm."""

    arm: Arm
    dataset: str
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Unique in a lab, and the name of its file."""
        dataset = self.dataset.replace("/", ".")
        return f"{self.arm.name}_{dataset}_{self.seed}_{self.rate:.3g}"


def run_of(record: Record, plan: LabPlan) -> Run:
    """The run that a record is of."""
    blocks = record.settings.get("blocks")
    arm = Arm(
        record.method,
        record.rank,
        blocks=None if blocks is None else tuple(blocks),
        amount=None if record.amount == plan.amount else record.amount,
    )
    return Run(arm, record.dataset, record.seed, record.settings["lr"])


def final_runs(arm: Arm, datasets: tuple[str, ...], rate: float) -> Iterator[Run]:
    """The runs that count, at the rate that was chosen."""
    for seed in range(1, arm.seeds + 1):
        for dataset in datasets:
            yield Run(arm, dataset, seed, rate)


def choosing_runs(plan: LabPlan, arm: Arm, rate: float) -> Iterator[Run]:
    """The runs on validation pictures that a rate is judged by."""
    for dataset in plan.chosen_on:
        yield Run(arm, dataset + VALIDATION, CHOOSING_SEED, rate)


class Results:
    """A lab's records by the names of their runs, and outcomes.

    Args:
        folder: of runs that are not packed, or that were done again since; there may be none.

    Raises:
        SerialLoRAError: a file is damaged.
    """

    def __init__(self, plan: LabPlan, folder: Path, packed: Path = PACKED) -> None:
        self.plan, self.folder = plan, folder
        self.measures = sorted({plan.measure, plan.chosen_by})
        records, self._packed = _unpacked(plan.lab, self.measures, packed)
        self.records = {run_of(record, plan).name: record for record in records}
        self.add_records()

    def add_records(self) -> None:
        """Those that the folder holds by now."""
        if (file := self.folder / f"{self.plan.lab}.jsonl").exists():
            self.records |= {run_of(r, self.plan).name: r for r in read_records(file)}

    def outcomes(self, name: str) -> Mapping[str, np.ndarray]:
        """Measure -> what a run of this name came to on each test picture, (pictures,).

        Raises:
            SerialLoRAError: its file is damaged or missing.
        """
        file = self._file(name)
        if not file.exists() and name in self._packed:
            return self._packed[name]
        try:
            return _outcomes(file, self.measures)
        except SerialLoRAError as error:
            lines = f"{file.parent}.jsonl"
            raise SerialLoRAError(
                f"{error} Or delete it and its run's line in {lines}, and run that again."
            ) from error

    def keep(self, name: str, outcomes: Mapping[str, np.ndarray]) -> None:
        """Write what a run came to, whole or not at all."""
        self._file(name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file(name), _npz({m: outcomes[m] for m in self.measures}))

    def _file(self, name: str) -> Path:
        return self.folder / self.plan.lab / f"{name}.npz"

    def pack(self, packed: Path = PACKED) -> None:
        """Write all records and outcomes, compressed, rounded to `LEVELS` steps.

        Raises:
            SerialLoRAError: a file is damaged; what was packed stays as it was.
        """
        new = {file.stem for file in (self.folder / self.plan.lab).glob("*.npz")}
        names = sorted(
            {n for n in new | set(self._packed) if VALIDATION.replace("/", ".") not in n}
        )
        each = [self.outcomes(name) for name in names]
        arrays = {
            measure: np.concatenate(
                [np.empty(0), *(LEVELS * run[measure].astype(float) for run in each)]
            )
            for measure in self.measures
        }
        content = {name: values.round().astype(np.uint16) for name, values in arrays.items()}
        lengths = np.array([len(run[self.plan.measure]) for run in each], np.uint32)
        content |= {"names": np.array(names, str), "lengths": lengths}
        lines = [json.dumps(asdict(record), sort_keys=True) for record in self.records.values()]
        packed.mkdir(parents=True, exist_ok=True)
        write_whole(packed / f"{self.plan.lab}.npz", _npz(content))
        write_whole(
            packed / f"{self.plan.lab}.jsonl.xz", lzma.compress("\n".join([*lines, ""]).encode())
        )


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _damaged(file: Path, why: object) -> SerialLoRAError:
    return SerialLoRAError(f"{file} is damaged ({why}); fetch it anew.")


def _load(file: Path, names: list[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(file) as kept:
            arrays = {name: kept[name] for name in names}
    except UNREADABLE as error:
        raise _damaged(file, error) from error
    if any(array.ndim != 1 for array in arrays.values()):
        raise _damaged(file, "its arrays have not one dimension")
    return arrays


def _outcomes(file: Path, measures: list[str]) -> dict[str, np.ndarray]:
    """Of one run: numbers between 0 and 1, equally many of each measure."""
    arrays = _load(file, measures)
    if len({len(values) for values in arrays.values()}) != 1:
        raise _damaged(file, "its measures are of unequally many pictures")
    for name, values in arrays.items():
        if values.dtype.kind not in "bfiu" or not ((values >= 0) & (values <= 1)).all():
            raise _damaged(file, f"{name} is not between 0 and 1")
    return arrays


def _unpacked(
    lab: str, measures: list[str], packed: Path
) -> tuple[list[Record], dict[str, dict[str, np.ndarray]]]:
    """Records and outcomes that are packed; none where nothing is."""
    lines, arrays = packed / f"{lab}.jsonl.xz", packed / f"{lab}.npz"
    if not lines.exists() and not arrays.exists():
        return [], {}
    try:
        with TemporaryDirectory() as folder:
            (unpacked := Path(folder) / lines.stem).write_bytes(lzma.decompress(lines.read_bytes()))
            records = read_records(unpacked)
    except (*UNREADABLE, SerialLoRAError) as error:
        raise _damaged(lines, error) from error
    kept = _load(arrays, ["names", "lengths", *measures])
    names = kept["names"].tolist()
    if any(kept[name].dtype.kind != "u" for name in ("lengths", *measures)):
        raise _damaged(arrays, "its numbers are not whole")
    ends = np.cumsum(kept["lengths"], dtype=int)
    totals = {len(kept[measure]) for measure in measures}
    if len(names) != len(ends) or totals != {int(kept["lengths"].sum())}:
        raise _damaged(arrays, "its lengths do not add up")
    if any(not re.fullmatch(r"[\w+-][\w.+-]*", str(name)) for name in names):
        raise _damaged(arrays, "a run's name is no file's name")
    found = {measure: np.split(kept[measure] / LEVELS, ends[:-1]) for measure in measures}
    return records, {
        name: {measure: found[measure][place].astype(np.float32) for measure in measures}
        for place, name in enumerate(names)
    }
