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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from serial_lora.counting import BYTES_PER_FLOAT32
from serial_lora.errors import SerialLoRAError, require_choice
from serial_lora.files import write_whole
from serial_lora_course.labs.grid import Labs, Source
from serial_lora_course.labs.keep import Outcomes, keep_outcomes, keep_trained, trained_of
from serial_lora_course.labs.lab import Lab, run_one
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.ray_workers import Job, Share, workers
from serial_lora_course.labs.records import Kept, Record, environment, read_records
from serial_lora_course.study.cached import HEADS
from serial_lora_course.study.found import PACKED
from serial_lora_course.study.labs import STUDIES
from serial_lora_course.study.plan import (
    CHOOSING_SEED,
    PLANS,
    Arm,
    LabPlan,
    first_rates,
    next_rate,
)
from serial_lora_course.study.sets import VALIDATION

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


COMMAND = "python -m serial_lora_course.study run"


@dataclass(frozen=True)
class Finished:
    """What a run came to, wherever it was done.

    Attributes:
        outcomes, trained: None where the loss stopped being a number.
        base: what the unadapted model makes of each test picture, where that was asked for.
    """

    record: Record
    outcomes: Outcomes | None = None
    trained: Mapping[str, Tensor] | None = None
    base: Outcomes | None = None


def do_run(
    lab: Lab,
    plan: LabPlan,
    run: Run,
    save_to: Path | None,
    records: Sequence[Record],
    with_base: bool,
) -> Finished:
    """Do a run, in this process or a worker.

    Args:
        save_to: for the state of the unfinished run, if this machine has the folder.
        records: of earlier runs, which know what the unadapted model reaches.
    """
    configure(lab, run)
    lab.records = records
    base = lab.measure()[1] if with_base else None
    method, amount, found = get_method(run.arm.method), amount_of(plan, run.arm), []

    def keep(lab: Lab, method: object, outcomes: Outcomes, name: str) -> None:
        found[:] = outcomes, trained_of(lab.backbone.model)

    there = save_to is not None and save_to.parent.is_dir()
    options = {"save_to": save_to if there else None, "draw": keep, "progress": False}
    try:
        if run.arm.method in HEADS:
            record, *found = _head(lab, run, amount)
        else:
            record = run_one(lab, method, amount, run.seed, command=COMMAND, **options)
    except SerialLoRAError as error:
        if "loss became" not in str(error):
            raise
        # A rate that is too large is a try like any other, and the worst.
        measures = {plan.measure: FAILED, plan.chosen_by: FAILED, "diverged": 1.0}
        record = _record(lab, run, amount, measures=measures, sizes={}, seconds=0.0)
    return Finished(record, *found, base=base)


def configure(lab: Lab, run: Run) -> None:
    """Give a lab the settings of a run."""
    some = {"rank": run.arm.rank, "lr": run.rate, "blocks": run.arm.blocks}
    lab.config = replace(lab.configs["tiny"], **some)


def amount_of(plan: LabPlan, arm: Arm) -> int:
    """Of an arm's training data."""
    return plan.amount if arm.amount is None else arm.amount


def _head(lab: Lab, run: Run, amount: int) -> tuple[Record, Outcomes, dict[str, Tensor]]:
    """A method on cached features."""
    reached, outcomes, head, history = lab.measure_head(run.arm.method, amount, run.seed)
    count = sum(p.numel() for p in head.parameters() if p.requires_grad)
    sizes = {
        "parameters": count,
        "bytes": BYTES_PER_FLOAT32 * count,
        "activation_bytes": history.activation_bytes,
        "steps": len(history.losses),
        "processor_ms": round(1000 * history.processor_seconds),
    }
    measures, seconds = (
        {**reached, **lab.base, "loss": history.losses[-1]},
        round(history.seconds, 2),
    )
    record = _record(lab, run, amount, measures=measures, sizes=sizes, seconds=seconds)
    return record, outcomes, trained_of(head)


def _record(lab: Lab, run: Run, amount: int, **found: Any) -> Record:
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


class Study:
    """One lab of the study and the folder that keeps it; which runs are left, and what came of them.

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
        self.claimed: dict[str, ExitStack] = {}
        self.elsewhere: dict[str, str] = {}  # runs that another process is at, and their keys
        self.bases: set[str] = set()  # sets whose base is being measured
        self.troubled: set[Arm] = set()
        self.labs = Labs(Source(STUDIES[plan.lab], STUDIES[plan.lab].configs["tiny"], "tiny"))
        self._opened: dict[str, Lab] = {}

    def lab(self, dataset: str) -> Lab:
        if dataset not in self._opened:
            self._opened[dataset] = self.labs.open(dataset)
        return self._opened[dataset]

    # --------------------------------------------------------------------------- what is left

    def is_done(self, run: Run) -> bool:
        """Whether there is a record of it, on these pictures and weights."""
        known = self.done.get(run.name)
        contents = self.lab(run.dataset).contents if known else {}
        return bool(known) and all(known.settings.get(k) == v for k, v in contents.items())

    def has(self, run: Run) -> bool:
        """Whether a run is there; of those that count, at whatever rate was chosen."""
        if run.dataset.endswith(VALIDATION):
            return run.name in self.done
        return (run.arm.name, run.dataset, run.seed) in self._counting

    @property
    def _counting(self) -> set[tuple[str, str, int]]:
        runs = (run_of(record, self.plan) for record in self.done.values())
        return {(run.arm.name, run.dataset, run.seed) for run in runs}

    def wanted(self, arm: Arm) -> list[Run]:
        """An arm's runs that are not there and may be done now: those of rates to be tried, or, once the
        rate with the best mean on validation pictures is known, those that count."""
        scores: dict[float, float] = {}
        waiting: list[float] = first_rates(arm)
        while waiting:
            tried = {rate: list(choosing_runs(self.plan, arm, rate)) for rate in waiting}
            if left := [run for runs in tried.values() for run in runs if not self.is_done(run)]:
                return left
            for rate, runs in tried.items():
                each = [self.done[run.name].measures[self.plan.chosen_by] for run in runs]
                scores[rate] = float(np.mean(each))
            further = next_rate(scores, self._unadapted())
            waiting = [] if further is None else [further]
        rate = max(scores, key=scores.__getitem__)
        return [run for run in final_runs(self.plan, arm, rate) if not self.is_done(run)]

    def _unadapted(self) -> float:
        """What the model without an adapter reaches on the pictures that rates are chosen on, as the
        measure they are chosen by; the mean over sets."""
        measure = f"base_{self.plan.chosen_by}"
        found = {
            record.dataset: record.measures[measure]
            for record in self.done.values()
            if record.dataset.endswith(VALIDATION) and measure in record.measures
        }
        return float(np.mean([*found.values()])) if found else float("-inf")

    def is_whole(self) -> bool:
        """Whether every run is there."""
        return not any(self.wanted(arm) for arm in self.plan.arms)

    def __len__(self) -> int:
        """Runs that may be done now."""
        return sum(1 for arm in self.plan.arms for _ in self._free(arm))

    def _free(self, arm: Arm) -> Iterator[Run]:
        if time.monotonic() > self.until or arm in self.troubled:
            return
        for run in self.wanted(arm):
            if run.name not in self.claimed and run.name not in self.elsewhere:
                yield run

    def take(self, arm: Arm | None = None) -> Job | None:
        """The next run, of an arm if one is named, that is this process's to have done."""
        for each in self.plan.arms if arm is None else [arm]:
            while runs := list(self._free(each)):
                try:
                    if job := self._job(runs[0]):
                        return job
                except Exception as error:
                    self._trouble(each, error)
        return None

    def _job(self, run: Run) -> Job | None:
        """Of a run, claimed; None where its record is there by now or another process is at it."""
        lab = self.lab(run.dataset)
        configure(lab, run)
        key = lab.key(get_method(run.arm.method), amount_of(self.plan, run.arm), run.seed)
        with ExitStack() as claim:
            if not claim.enter_context(self.kept.claim(key, wait=False)):
                if key in self.kept.known:
                    self.done[run.name] = self.kept.known[key]
                else:
                    self.elsewhere[run.name] = key
                return None
            self.claimed[run.name] = claim.pop_all()
        base = self._file(f"{BASE}_{lab.data.name}", "npz")
        with_base = "/" not in run.dataset and run.dataset not in self.bases and not base.exists()
        self.bases |= {run.dataset} if with_base else set()
        known = [r for r in self.kept.known.values() if r.dataset == lab.data.name]
        some = {"save_to": self.kept.unfinished(key), "records": known, "with_base": with_base}
        return Job(run.dataset, partial(do_run, plan=self.plan, run=run, **some), (run, key))

    # -------------------------------------------------------------------------- what came of it

    def ended(self, job: Job, answer: Finished | Exception) -> None:
        """Write what a run came to; one arm's trouble is no reason for hours without the others."""
        run, key = job.about
        with self.claimed.pop(run.name):
            if isinstance(answer, Exception):
                self.bases.discard(run.dataset)
                self._trouble(run.arm, answer)
            elif answer.record.key != key:
                self._trouble(run.arm, SerialLoRAError("a worker has other pictures or weights."))
            else:
                self._keep(run, key, answer)

    def _keep(self, run: Run, key: str, found: Finished) -> None:
        if found.base is not None:
            keep_outcomes(self._file(f"{BASE}_{run.dataset}", "npz"), found.base)
        if found.outcomes is not None:
            keep_outcomes(self._file(run.name, "npz"), found.outcomes)
            if not run.dataset.endswith(VALIDATION):
                keep_trained(self._file(run.name, "safetensors"), found.trained)
        self.kept.add(key, found.record)
        self.done[run.name] = found.record
        reached = found.record.measures[self.plan.measure]
        self.told(
            f"{self.plan.lab} {run.arm.name} {run.dataset} seed {run.seed} rate {run.rate:.2g}: "
            f"{self.plan.measure} {reached:.4f} in {found.record.seconds:.0f} s"
        )

    def _trouble(self, arm: Arm, error: Exception) -> None:
        self.troubled.add(arm)
        self.told(f"{self.plan.lab} {arm.name} FAILED: {type(error).__name__}: {error}")

    def do_arm(self, arm: Arm) -> None:
        """Every run of an arm that is not there, one after another, in this process."""
        while job := self.take(arm):
            try:
                answer: Finished | Exception = job.do(self.lab(job.dataset))
            except Exception as error:
                answer = error
            self.ended(job, answer)

    def do_on(self, share: Share) -> None:
        """Every run that is not there, of all arms at once, on a cluster."""
        if len(self):
            with workers(share, self.labs.source) as found:
                for job, answer in found.answers(self):
                    self.ended(job, answer)

    def waited(self) -> bool:
        """Whether other processes were at runs; one of them has ended by now."""
        if not self.elsewhere or time.monotonic() > self.until:
            return False
        with self.kept.claim(next(iter(self.elsewhere.values()))):
            self.elsewhere.clear()
        return True

    def _file(self, name: str, kind: str) -> Path:
        (self.folder / self.plan.lab).mkdir(parents=True, exist_ok=True)
        return self.folder / self.plan.lab / f"{name}.{kind}"

    def outcomes(self, name: str) -> dict[str, np.ndarray]:
        """What a run of this name came to on each test picture; or "base_" and a set's name."""
        with np.load(self._file(name, "npz")) as kept:
            return dict(kept)


def go_on(several: Sequence[Study], share: Share | None = None) -> list[Study]:
    """Every run that is not there yet; those of which all are there now.

    Args:
        share: of a cluster, where a lab's arms are done at once; None for this process, where each lab
            in turn does one of its arms.
    """
    waited = True
    while waited:
        if share is None:
            for arms in zip_longest(*(study.plan.arms for study in several)):
                for study, arm in zip(several, arms, strict=True):
                    if arm is not None:
                        study.do_arm(arm)
        else:
            for study in several:
                study.do_on(share)
        waited = any([study.waited() for study in several])
    return [study for study in several if study.is_whole()]


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
        arrays[measure] = np.concatenate([np.empty(0), *each]).astype(np.uint16)
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
        require_choice("lab in the study", name, PLANS)
    return [PLANS[name] for name in names]
