"""A grid's runs on a Ray cluster: what is run is decided here, and every record written here.

For each data set one worker first settles the precision and measures the unadapted model; its runs, which
any worker may do, follow.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.grid import Done, Grid, Run
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.ray_workers import Job, Share, workers
from serial_lora_course.labs.records import Kept, Record


def on_ray(share: Share, grid: Grid, kept: Kept, **options: Any) -> Iterator[Done]:
    """The runs of a grid on a cluster, each as soon as its record is written; old ones at once.

    A run that fails leaves the others to go on. Runs that another process is at, on the same records, are
    waited for at the end.

    Args:
        options: of `run_one`.

    Raises:
        SerialLoRAError: no cluster, or a run failed; the others' records are written then.
    """
    with ExitStack() as claims:
        jobs = GridJobs(grid, kept, claims, options)
        for dataset in grid.datasets:
            jobs.add(dataset)
        yield from jobs.done()
        if len(jobs):
            with workers(share, grid.labs.source) as found:
                for waits in (False, True):
                    for job, answer in found.answers(jobs):
                        jobs.ended(job, answer, len(found))
                        yield from jobs.done()
                    if not waits:
                        jobs.wait_for_others()
                    yield from jobs.done()
    if jobs.failed:
        first = jobs.failed[0]
        raise SerialLoRAError(
            f"{len(jobs.failed)} of {len(grid)} runs failed, and the others are recorded: {first}"
        ) from first


Looked = tuple[str, dict[str, float]]
"""What is settled once for a data set: its runs' precision, and what the unadapted model reaches."""


def look(lab: Lab, precision: str | None, records: Sequence[Record]) -> Looked:
    """In a worker: what nobody has settled or measured yet.

    Args:
        precision: None where it is not settled.
        records: of earlier runs.
    """
    if precision is not None:
        lab.precision = precision
    lab.records = records
    return lab.precision, lab.base


def do_run(
    lab: Lab, run: Run, looked: Looked, save_to: Path | None, **options: Any
) -> tuple[Record, float]:
    """In a worker: a run's record, and the seconds that it took.

    Args:
        save_to: for the state of the unfinished run, if this machine has the folder too.
    """
    lab.precision, lab.base = looked
    there, started = save_to is not None and save_to.parent.is_dir(), time.monotonic()
    record = run.do(lab, save_to=save_to if there else None, **options)
    return record, time.monotonic() - started


class GridJobs:
    """The jobs of a grid: a look at each data set that has runs left, then those.

    Args:
        claims: where runs that are this process's are given back, however it ends.

    Attributes:
        failed: what runs ended in instead of a record.
    """

    def __init__(self, grid: Grid, kept: Kept, claims: ExitStack, options: dict[str, Any]) -> None:
        self.grid, self.kept, self.claims, self.options = grid, kept, claims, options
        self.jobs: deque[Job] = deque()
        self.labs: dict[str, Lab] = {}
        self.claimed: dict[str, ExitStack] = {}
        self.elsewhere: list[Job] = []
        self.ready: list[Done] = []
        self.failed: list[Exception] = []

    def __len__(self) -> int:
        return len(self.jobs) + len(self.labs) * len(self.grid.runs)

    def add(self, dataset: str) -> None:
        """A look at the data set, unless every record is there."""
        lab = self.labs[dataset] = self.grid.open(dataset, self.kept)
        _ = lab.contents  # all that keys need of the pictures, which need not be kept open here
        vars(lab).pop("train_pictures", None)
        if lab.is_settled and all(run.key(lab) in self.kept.known for run in self.grid.runs):
            self._add_runs(dataset, (lab.precision, {}))
        else:
            known = [r for r in self.kept.known.values() if r.dataset == lab.data.name]
            precision = lab.precision if lab.is_settled else None
            self.jobs.append(Job(dataset, partial(look, precision=precision, records=known)))

    def _add_runs(self, dataset: str, looked: Looked) -> None:
        lab = self.labs.pop(dataset)
        lab.precision, _ = looked
        for run in self.grid.runs:
            key = run.key(lab)
            some = {"run": run, "looked": looked, "save_to": self.kept.unfinished(key)}
            self.jobs.append(Job(dataset, partial(do_run, **some, **self.options), (run, key)))
            if key in self.kept.known:
                self._found(self.jobs.pop())

    def _found(self, job: Job) -> None:
        run, key = job.about
        self.ready.append(Done(self.grid.place(job.dataset, run), self.kept.known[key], False))

    def take(self) -> Job | None:
        """The next job that is this process's to have done."""
        while self.jobs:
            job = self.jobs.popleft()
            if job.about is None or self._claim(job, wait=False):
                return job
            if job.about[1] not in self.kept.known:
                self.elsewhere.append(job)
        return None

    def _claim(self, job: Job, wait: bool) -> bool:
        claim = self.claims.enter_context(ExitStack())
        _, key = job.about
        if claim.enter_context(self.kept.claim(key, wait)):
            self.claimed[key] = claim
            return True
        claim.close()
        if key in self.kept.known:
            self._found(job)
        return False

    def wait_for_others(self) -> None:
        """Until other processes have ended what they were at; their runs are jobs where they failed."""
        for job in self.elsewhere:
            if self._claim(job, wait=True):
                self.claimed.pop(job.about[1]).close()
                self.jobs.append(job)

    def ended(self, job: Job, answer: Any, workers: int) -> None:
        """A job's answer: of a look come the runs; of a run comes its record, which is written.

        Args:
            workers: that there are now.
        """
        if job.about is None:
            if isinstance(answer, Exception):
                self.labs.pop(job.dataset)
                self.failed += [answer] * len(self.grid.runs)
            else:
                self._add_runs(job.dataset, answer)
            return
        run, key = job.about
        with self.claimed.pop(key):
            if isinstance(answer, Exception):
                self.failed.append(answer)
            elif answer[0].key != key:
                self.failed.append(
                    SerialLoRAError(
                        f"a worker has other pictures of {job.dataset}, or other weights, than this "
                        "machine; give all machines the same files."
                    )
                )
            else:
                record, seconds = answer
                self.kept.add(key, record)
                place = self.grid.place(job.dataset, run)
                self.ready.append(Done(place, record, True, seconds, workers))

    def done(self) -> Iterator[Done]:
        """Those that are there, each once."""
        ready, self.ready = self.ready, []
        yield from ready
