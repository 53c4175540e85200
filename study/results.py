"""Records and outcomes of the study's runs: what is packed, and what a folder holds besides.

A folder keeps, for each lab, the records (one JSON line a run, as every lab's) and beside them, under the
run's name, what each test picture came to (``.npz``). Packed, both lie in ``study/results``.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from serial_lora.files import write_whole
from serial_lora_course.labs.records import Record, read_records
from study.plan import CHOOSING_SEED, Arm, LabPlan
from study.sets import VALIDATION

PACKED = Path(__file__).parent / "results"
LEVELS = 65535  # of a number between 0 and 1, packed


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
    """

    def __init__(self, plan: LabPlan, folder: Path, packed: Path = PACKED) -> None:
        self.plan, self.folder = plan, folder
        self.measures = sorted({plan.measure, plan.chosen_by})
        records, self._packed = _unpacked(plan.lab, self.measures, packed)
        records += read_records(folder / f"{plan.lab}.jsonl")
        self.records = {run_of(record, plan).name: record for record in records}

    def outcomes(self, name: str) -> Mapping[str, np.ndarray]:
        """Measure -> what a run of this name came to on each test picture, (pictures,)."""
        file = self._file(name)
        if not file.exists() and name in self._packed:
            return self._packed[name]
        with np.load(file) as kept:
            return {measure: kept[measure] for measure in self.measures}

    def keep(self, name: str, outcomes: Mapping[str, np.ndarray]) -> None:
        """Write what a run came to, whole or not at all."""
        self._file(name).parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file(name), _npz({m: outcomes[m] for m in self.measures}))

    def _file(self, name: str) -> Path:
        return self.folder / self.plan.lab / f"{name}.npz"

    def pack(self, packed: Path = PACKED) -> None:
        """Write all records and outcomes, compressed, rounded to `LEVELS` steps."""
        new = {file.stem for file in (self.folder / self.plan.lab).glob("*.npz")}
        names = sorted(name for name in new | set(self._packed) if "validation" not in name)
        each = [self.outcomes(name) for name in names]
        lengths = [len(run[self.plan.measure]) for run in each]
        content = {"names": np.array(names, str), "lengths": np.array(lengths, np.uint32)}
        for measure in self.measures:
            values = np.concatenate([np.empty(0), *(run[measure].astype(float) for run in each)])
            content[measure] = (LEVELS * values).round().astype(np.uint16)
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


def _unpacked(
    lab: str, measures: list[str], packed: Path
) -> tuple[list[Record], dict[str, dict[str, np.ndarray]]]:
    """Records and outcomes that are packed; none where nothing is."""
    lines, arrays = packed / f"{lab}.jsonl.xz", packed / f"{lab}.npz"
    if not lines.exists():
        return [], {}
    with TemporaryDirectory() as folder:
        (unpacked := Path(folder) / lines.stem).write_bytes(lzma.decompress(lines.read_bytes()))
        records = read_records(unpacked)
    with np.load(arrays) as kept:
        ends = np.cumsum(kept["lengths"], dtype=int)[:-1]
        found = {m: np.split((kept[m] / LEVELS).astype(np.float32), ends) for m in measures}
        names = kept["names"].tolist()
    return records, {
        name: {measure: found[measure][place] for measure in measures}
        for place, name in enumerate(names)
    }
