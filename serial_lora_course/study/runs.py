"""The study's runs: which there are, and how one becomes a record and outcomes that stay.

A folder keeps, for each lab, the records (one JSON line a run, as every lab's) and beside them, under the
run's name, what each test picture came to (``.npz``) and the trained tensors (``.safetensors``). A run
is not run again whose name, pictures and weights a record has. Packed, records and outcomes travel
with the course; adapters stay where they were made, and a run makes them again.
"""

from __future__ import annotations

import io
import lzma
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from serial_lora.counting import BYTES_PER_FLOAT32
from serial_lora.errors import SerialLoRAError
from serial_lora.files import write_whole
from serial_lora_course.labs.keep import Outcomes, keep_outcomes, keep_trained
from serial_lora_course.labs.lab import Lab, run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Kept, Record, environment, read_records
from serial_lora_course.study.cached import HEADS
from serial_lora_course.study.labs import STUDIES, fresh_lab
from serial_lora_course.study.plan import (
    CHOOSING_SEED,
    PLANS,
    Arm,
    LabPlan,
    first_rates,
    next_rate,
)
from serial_lora_course.study.sets import VALIDATION

PACKED = Path(str(files("serial_lora_course"))) / "assets" / "study"
FAILED = 0.0  # the measure of a run whose loss is no longer a number
BASE = "base"


@dataclass(frozen=True)
class Run:
    """One run of an arm."""

    arm: Arm
    dataset: str
    seed: int
    rate: float

    @property
    def name(self) -> str:
        """Unique in a lab, and the name of its files."""
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


def final_runs(plan: LabPlan, arm: Arm, rate: float) -> Iterator[Run]:
    """The runs that count, at the rate that was chosen."""
    for seed in range(1, arm.seeds + 1):
        for dataset in STUDIES[plan.lab].datasets("tiny"):
            yield Run(arm, dataset, seed, rate)


def choosing_runs(plan: LabPlan, arm: Arm, rate: float) -> Iterator[Run]:
    """The runs on validation pictures that a rate is judged by."""
    for dataset in plan.chosen_on:
        yield Run(arm, dataset + VALIDATION, CHOOSING_SEED, rate)


def least_of(plan: LabPlan, arm: Arm) -> list[Run]:
    """An arm's runs where its rates need not be widened; those that count, at the middle rate."""
    tried = [run for rate in first_rates(arm) for run in choosing_runs(plan, arm, rate)]
    return [*tried, *final_runs(plan, arm, arm.rate)]


def least_runs(plan: LabPlan) -> int:
    """Runs of a lab where no arm's rates have to be widened."""
    return sum(len(least_of(plan, arm)) for arm in plan.arms)


class Study:
    """One lab of the study and the folder that keeps it.

    Args:
        folder: of the records; what travels with the course is put there first.
        until: a moment of `time.monotonic` after which no further run begins.
        told: called with a line for each run.
    """

    def __init__(
        self,
        plan: LabPlan,
        folder: Path,
        until: float = float("inf"),
        told: Callable[[str], object] = print,
    ) -> None:
        self.plan, self.folder, self.until, self.told = plan, folder, until, told
        unpack(plan, folder)
        self.kept = Kept(folder / f"{plan.lab}.jsonl")
        self.done = {run_of(record, plan).name: record for record in self.kept.known.values()}
        self._labs: dict[str, Lab] = {}

    @cached_property
    def loaded(self) -> tuple[object, dict[str, object]]:
        """The model, and what else a lab needs, for all sets."""
        kind = STUDIES[self.plan.lab]
        backbone = kind.load_backbone(kind.configs["tiny"], "tiny", "default")
        return backbone, kind.load_tools("tiny")

    def lab(self, dataset: str) -> Lab:
        if dataset not in self._labs:
            lab = fresh_lab(self.plan.lab, dataset, *self.loaded)
            lab.records = self.kept.known.values()
            self._labs[dataset] = lab
        return self._labs[dataset]

    def try_arm(self, arm: Arm) -> bool:
        """One arm's trouble is no reason for hours without the others."""
        try:
            return self.arm_is_done(arm)
        except Exception as error:
            self.told(f"{self.plan.lab} {arm.name} FAILED: {type(error).__name__}: {error}")
            return False

    def arm_is_done(self, arm: Arm) -> bool:
        """Choose the arm's rate, then run what counts; False where time ran out."""
        rate = self.chosen_rate(arm)
        return rate is not None and all(
            self.record(run) is not None for run in final_runs(self.plan, arm, rate)
        )

    def has(self, run: Run) -> bool:
        """Whether a run is there; of those that count, at whatever rate was chosen."""
        if run.dataset.endswith(VALIDATION):
            return run.name in self.done
        return (run.arm.name, run.dataset, run.seed) in self._counting

    @property
    def _counting(self) -> set[tuple[str, str, int]]:
        runs = (run_of(record, self.plan) for record in self.done.values())
        return {(run.arm.name, run.dataset, run.seed) for run in runs}

    def chosen_rate(self, arm: Arm) -> float | None:
        """The rate with the best mean on validation pictures; None where time ran out."""
        scores: dict[float, float] = {}
        waiting: list[float] = first_rates(arm)
        while waiting:
            rate = waiting.pop(0)
            records = [self.record(run) for run in choosing_runs(self.plan, arm, rate)]
            if None in records:
                return None
            scores[rate] = float(np.mean([r.measures[self.plan.chosen_by] for r in records]))
            if not waiting and (further := next_rate(scores)) is not None:
                waiting = [further]
        return max(scores, key=scores.__getitem__)

    def record(self, run: Run) -> Record | None:
        """A run's record, made if it is not there; None where time ran out."""
        lab, arm = self.lab(run.dataset), run.arm
        lab.config = replace(
            STUDIES[self.plan.lab].configs["tiny"], rank=arm.rank, lr=run.rate, blocks=arm.blocks
        )
        method = get_method(arm.method)
        amount = self.plan.amount if arm.amount is None else arm.amount
        known = self.done.get(run.name)
        if known and all(known.settings.get(k) == v for k, v in lab.contents.items()):
            return known
        if time.monotonic() > self.until:
            return None
        self._keep_base(lab)

        def keep(lab: Lab, method: object, outcomes: Outcomes, name: str) -> None:
            keep_outcomes(self._file(run.name, "npz"), outcomes)
            if not run.dataset.endswith(VALIDATION):
                keep_trained(self._file(run.name, "safetensors"), lab.backbone.model)

        def one(save_to: Path | None) -> Record:
            options = {"save_to": save_to, "draw": keep, "command": COMMAND, "progress": False}
            try:
                if arm.method in HEADS:
                    return self._head(lab, run, amount)
                return run_one(lab, method, amount, run.seed, **options)
            except SerialLoRAError as error:
                if "loss became" not in str(error):
                    raise
                return self._failed(lab, run, amount)

        record, _ = self.kept.or_run(lab.key(method, amount, run.seed), one)
        self.done[run.name] = record
        reached = record.measures[self.plan.measure]
        self.told(
            f"{self.plan.lab} {arm.name} {run.dataset} seed {run.seed} rate {run.rate:.2g}: "
            f"{self.plan.measure} {reached:.4f} in {record.seconds:.0f} s"
        )
        return record

    def _failed(self, lab: Lab, run: Run, amount: int) -> Record:
        """A rate that is too large is a try like any other, and the worst."""
        measures = {self.plan.measure: FAILED, self.plan.chosen_by: FAILED, "diverged": 1.0}
        return self._record(lab, run, amount, measures=measures, sizes={}, seconds=0.0)

    def _head(self, lab: Lab, run: Run, amount: int) -> Record:
        """A method on cached features, and what is kept of its run."""
        reached, outcomes, head, history = lab.measure_head(run.arm.method, amount, run.seed)
        keep_outcomes(self._file(run.name, "npz"), outcomes)
        if not run.dataset.endswith(VALIDATION):
            keep_trained(self._file(run.name, "safetensors"), head)
        count = sum(p.numel() for p in head.parameters() if p.requires_grad)
        return self._record(
            lab,
            run,
            amount,
            measures={**reached, **lab.base, "loss": history.losses[-1]},
            sizes={
                "parameters": count,
                "bytes": BYTES_PER_FLOAT32 * count,
                "activation_bytes": history.activation_bytes,
                "steps": len(history.losses),
                "processor_ms": round(1000 * history.processor_seconds),
            },
            seconds=round(history.seconds, 2),
        )

    def _record(self, lab: Lab, run: Run, amount: int, **found: Any) -> Record:
        method = get_method(run.arm.method)
        return Record(
            task=lab.name,
            scale=lab.data.scale,
            dataset=lab.data.name,
            method=method.name,
            amount=amount,
            unit=lab.unit,
            seed=run.seed,
            rank=method.rank(run.arm.rank),
            settings=lab.settings(method),
            environment=environment(),
            command=COMMAND,
            **found,
        )

    def _keep_base(self, lab: Lab) -> None:
        """What the unadapted model makes of each test picture, once for each set."""
        name = f"{BASE}_{lab.data.name}"
        if "/" not in lab.data.name and not self._file(name, "npz").exists():
            keep_outcomes(self._file(name, "npz"), lab.measure()[1])

    def _file(self, name: str, kind: str) -> Path:
        (self.folder / self.plan.lab).mkdir(parents=True, exist_ok=True)
        return self.folder / self.plan.lab / f"{name}.{kind}"

    def outcomes(self, name: str) -> dict[str, np.ndarray]:
        """What a run of this name came to on each test picture; or "base_" and a set's name."""
        with np.load(self._file(name, "npz")) as kept:
            return dict(kept)


COMMAND = "python -m serial_lora_course.study run"


def go_on(several: Sequence[Study]) -> list[Study]:
    """Every run that is not there yet, an arm of each lab in turn; those of which all are there now."""
    left = set()
    for arms in zip_longest(*(study.plan.arms for study in several)):
        for study, arm in zip(several, arms, strict=True):
            if arm is not None and not study.try_arm(arm):
                left.add(study.plan.lab)
    return [study for study in several if study.plan.lab not in left]


# -------------------------------------------------------------------------------------- travelling


LEVELS = 65535  # of a number between 0 and 1, packed


def pack(plan: LabPlan, folder: Path, packed: Path | None = None) -> None:
    """Write a lab's records and outcomes, compressed, where they travel with the course.

    Outcomes are those that intervals are made of: of the measure that the lab is judged by and of the
    one its rates are chosen by, on the test pictures, rounded to `LEVELS` steps.
    """
    records, packed = folder / f"{plan.lab}.jsonl", packed or PACKED
    if not read_records(records):
        return
    found = {file.stem: file for file in sorted((folder / plan.lab).glob("*.npz"))}
    kept = {n: np.load(f) for n, f in found.items() if VALIDATION.replace("/", ".") not in n}
    arrays = {"names": np.array(list(kept))}
    for measure in {plan.measure, plan.chosen_by}:
        each = [np.round(LEVELS * run[measure].astype(np.float64)) for run in kept.values()]
        arrays[measure] = np.concatenate(each).astype(np.uint16)
        arrays["lengths"] = np.array([len(values) for values in each], np.uint16)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    packed.mkdir(parents=True, exist_ok=True)
    write_whole(packed / f"{plan.lab}.jsonl.xz", lzma.compress(records.read_bytes()))
    write_whole(packed / f"{plan.lab}.npz", stream.getvalue())


def unpack(plan: LabPlan, folder: Path, packed: Path | None = None) -> None:
    """Put what travels with the course into a folder that has no records of the lab yet.

    Raises:
        SerialLoRAError: what travels is damaged.
    """
    records, packed = folder / f"{plan.lab}.jsonl", packed or PACKED
    if records.exists() or not (packed / f"{plan.lab}.jsonl.xz").exists():
        return
    try:
        content = lzma.decompress((packed / f"{plan.lab}.jsonl.xz").read_bytes())
        with np.load(packed / f"{plan.lab}.npz") as kept:
            ends = np.cumsum(kept["lengths"], dtype=int)[:-1]
            measures = {
                measure: np.split(kept[measure] / LEVELS, ends)
                for measure in {plan.measure, plan.chosen_by}
            }
            names = kept["names"].tolist()
    except (OSError, ValueError, KeyError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise SerialLoRAError(
            f"The study's records in {packed} are damaged ({error}); fetch the course anew."
        ) from error
    for place, name in enumerate(names):
        keep_outcomes(
            folder / plan.lab / f"{name}.npz",
            {measure: values[place].astype(np.float32) for measure, values in measures.items()},
        )
    write_whole(records, content)


def studies(names: list[str]) -> list[LabPlan]:
    """The plans of some labs, in the study's order.

    Raises:
        SerialLoRAError: the study has no such lab.
    """
    for name in names:
        if name not in PLANS:
            raise SerialLoRAError(f"The study has no lab {name!r}; choose from {', '.join(PLANS)}.")
    return [PLANS[name] for name in names]
