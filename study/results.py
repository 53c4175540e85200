"""Records and outcomes of the study's runs: what is packed, and what a folder holds besides.

A folder keeps, for each lab, the records (one JSON line a run, as every lab's) and beside them, under the
run's name, what each test picture came to (``.npz``). Packed, both lie in ``study/results``.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from serial_lora.errors import reading
from serial_lora.files import write_whole
from serial_lora_course.labs.records import Record, read_records
from study.labs import STUDIES
from study.plan import Arm, LabPlan, next_rate
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
        return f"{self.arm.name}_{self.dataset.replace('/', '.')}_{self.seed}_{self.rate:.3g}"


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


class Results:
    """A lab's records by the names of their runs, and outcomes.

    Args:
        folder: of runs that are not packed, or that were done again since; there may be none.
    """

    def __init__(self, plan: LabPlan, folder: Path, packed: Path = PACKED) -> None:
        self.plan, self.folder = plan, folder / plan.lab
        self.measures = sorted({plan.measure, plan.chosen_by})
        self._packed: dict[str, dict[str, np.ndarray]] = {}
        records = read_records(folder / f"{plan.lab}.jsonl")
        if (lines := packed / f"{plan.lab}.jsonl.xz").exists():
            with reading(lines), lzma.open(lines) as file:
                records = [*(Record(**json.loads(line)) for line in file), *records]
            kept = _arrays(packed / f"{plan.lab}.npz", ("names", "lengths", *self.measures))
            ends = np.cumsum(kept["lengths"], dtype=int)
            for measure in self.measures:
                values = (kept[measure] / LEVELS).astype(np.float32)
                each = np.split(values, ends[:-1])
                for name, its in zip(kept["names"].tolist(), each, strict=True):
                    self._packed.setdefault(name, {})[measure] = its
        known = {run_of(record, plan): record for record in records}
        self.records = {run.name: known[run] for run in known if run.arm in plan.arms}

    def outcomes(self, name: str) -> Mapping[str, np.ndarray]:
        """Measure -> what a run of this name came to on each test picture, (pictures,)."""
        file = self.folder / f"{name}.npz"
        if not file.exists() and name in self._packed:
            return self._packed[name]
        return _arrays(file, self.measures)

    def keep(self, name: str, outcomes: Mapping[str, np.ndarray]) -> None:
        """Write what a run came to, whole or not at all."""
        write_whole(self.folder / f"{name}.npz", _npz(outcomes))

    def pack(self, packed: Path = PACKED) -> None:
        """Write all records and outcomes, compressed, rounded to `LEVELS` steps."""
        there = {file.stem for file in self.folder.glob("*.npz")} | set(self._packed)
        names = sorted(n for n in there if n in self.records or n.startswith("base_"))
        each = [self.outcomes(name) for name in names]
        lengths = [len(run[self.plan.measure]) for run in each]
        content = {"names": np.array(names, str), "lengths": np.array(lengths, np.uint32)}
        for measure in self.measures:
            values = np.concatenate([run[measure].astype(float) for run in each])
            content[measure] = (LEVELS * values).round().astype(np.uint16)
        lines = [json.dumps(asdict(record), sort_keys=True) for record in self.records.values()]
        write_whole(packed / f"{self.plan.lab}.npz", _npz(content))
        lines = lzma.compress("\n".join([*lines, ""]).encode())
        write_whole(packed / f"{self.plan.lab}.jsonl.xz", lines)

    def rates_tried(self, arm: Arm) -> dict[float, float]:
        """Rate -> its mean on the validation pictures, in the records that there are."""
        reached: dict[float, list[float]] = {}
        for record in self.records.values():
            run = run_of(record, self.plan)
            if run.arm == arm and run.dataset.endswith(VALIDATION):
                reached.setdefault(run.rate, []).append(record.measures[self.plan.chosen_by])
        return {rate: float(np.mean(each)) for rate, each in reached.items()}

    def unadapted(self) -> float:
        """What the unadapted model reaches on the validation pictures by which rates are chosen."""
        name = f"base_{self.plan.chosen_by}"
        base = {r.dataset: r.measures[name] for r in self.records.values() if name in r.measures}
        return float(np.mean([base[dataset + VALIDATION] for dataset in self.plan.chosen_on]))

    def next_rate(self, arm: Arm) -> float | None:
        """The one to try next, by the rule of the plan."""
        return next_rate(self.rates_tried(arm), self.unadapted())

    def final_runs(self, arm: Arm) -> list[Run]:
        """The runs that count, at the rate of the best mean; of equal ones at the smallest."""
        tried = self.rates_tried(arm)
        rate = max(sorted(tried), key=tried.__getitem__)
        sets, seeds = STUDIES[self.plan.lab].datasets("tiny"), range(1, arm.seeds + 1)
        return [Run(arm, dataset, seed, rate) for seed in seeds for dataset in sets]


def _arrays(file: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What `_npz` wrote under these names."""
    with reading(file), np.load(file) as kept:
        return {name: kept[name] for name in names}


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()
