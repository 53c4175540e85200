"""A grid's runs on a Ray cluster: this machine's cores and GPUs, or those of many machines.

What is run is decided here, and every record is written here. A worker is one of Ray's actors: it loads
the model once and does one run after another. Where a worker is killed, or its machine is lost, Ray
begins it again, and its run with it; no other run notices.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.card import GIB
from serial_lora_course.labs.grid import Done, Grid, Labs, Run, Source
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.processes import process_state
from serial_lora_course.labs.records import Kept, Record
from serial_lora_course.threads import THREADS

TRIES = 3  # that a run has after its first worker was lost


@dataclass(frozen=True)
class Share:
    """What a run asks of a cluster.

    Attributes:
        cpus: cores; it computes with as many threads, and at least one.
        gpus: may be a part of one; None for one where the cluster has any.
        memory: GiB of a machine's; None asks for nothing.
        address: of the cluster, HOST:PORT; None for that of the environment's RAY_ADDRESS, or the one
            that this machine belongs to, or else this machine alone.
    """

    cpus: float = 1.0
    gpus: float | None = None
    memory: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        for what, asked, least in (
            ("cores", self.cpus, 0.01),
            ("GPUs", self.gpus, 0.0),
            ("GiB of memory", self.memory, 0.001),
        ):
            if asked is not None and not least <= asked < float("inf"):
                raise SerialLoRAError(f"A run asks for {least:g} {what} or more, not {asked}.")

    @classmethod
    def named(cls, on: str, cpus: float, gpus: float | None, memory: float | None) -> Share:
        """As a command line has it.

        Args:
            on: "ray", or "ray:HOST:PORT".

        Raises:
            SerialLoRAError: something else, or a share out of its range.
        """
        kind, _, address = on.partition(":")
        if kind != "ray":
            raise SerialLoRAError(f"Runs are done on `ray` or `ray:HOST:PORT`, not on {on!r}.")
        return cls(cpus, gpus, memory, address or None)


class Worker:
    """A process of the cluster; Ray makes it, and makes it anew where it is lost."""

    def __init__(self, source: Source, threads: int, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)  # paths mean what they mean to whoever asked
        os.environ[THREADS] = str(threads)
        torch.set_num_threads(threads)
        self.labs, self.dataset, self.lab = Labs(source), None, None

    def begin(self) -> None:
        """Answered as soon as there is room for this worker."""

    def do(
        self, dataset: str, run: Run, known: list[Record], save_to: Path | None, options: dict
    ) -> Record | SerialLoRAError:
        """A run's record, or the sentence that it ended in.

        Args:
            known: records that may say what the unadapted model reaches.
            save_to: for the state of the unfinished run, if this machine has the folder too.
        """
        if save_to is not None and not save_to.parent.is_dir():
            save_to = None
        try:
            lab = self._open(dataset)
            lab.records = known
            return run.do(lab, save_to=save_to, **options)
        except SerialLoRAError as error:
            return error

    def _open(self, dataset: str) -> Lab:
        """The lab on a data set; the last one is kept."""
        if dataset != self.dataset:
            self.dataset = self.lab = None  # which makes room
            self.lab = self.labs.open(dataset)
            self.lab.backbone.model.to(process_state().device)
            self.dataset = dataset
        return self.lab


def on_ray(share: Share, grid: Grid, kept: Kept, **options: Any) -> Iterator[Done]:
    """The runs of a grid on a cluster, each as soon as its record is written; old ones at once.

    A run that fails leaves the others to go on. Runs that another process is at, on the same records, are
    waited for at the end.

    Args:
        options: of `run_one`.

    Raises:
        SerialLoRAError: no cluster, or a run failed; the others' records are written then.
    """
    left: list[tuple[str, Run, str]] = []
    for dataset in grid.datasets:
        lab = grid.open(dataset, kept)
        jobs = [(dataset, run, run.key(lab)) for run in grid.runs]
        vars(lab).pop("train_pictures", None)  # which need not stay open here
        left += [job for job in jobs if job[2] not in kept.known]
        for _, run, key in jobs:
            if key in kept.known:
                yield Done(grid.place(dataset, run), kept.known[key], False)
    if not left:
        return
    failed: list[Exception] = []
    elsewhere: list[tuple[str, Run, str]] = []
    idle, doing = [], {}
    with _connected(share.address) as ray, ExitStack() as ending:
        workers = _start(ray, share, grid.labs.source, len(left))
        for worker in workers:
            ending.callback(ray.kill, worker)
        begun = {worker.begin.remote(): worker for worker in workers}
        left.reverse()
        while left or doing:
            while idle and left:
                job, claim = left.pop(), ExitStack()
                dataset, run, key = job
                if not claim.enter_context(kept.claim(key, wait=False)):
                    claim.close()
                    elsewhere.append(job)
                    continue
                worker = idle.pop()
                known = [record for record in kept.known.values() if record.dataset == dataset][:1]
                answer = worker.do.remote(dataset, run, known, kept.unfinished(key), options)
                doing[answer] = worker, job, ending.enter_context(claim)
            if not (left or doing):
                break
            (ready,), _ = ray.wait([*begun, *doing], num_returns=1)
            if ready in begun:
                idle.append(begun.pop(ready))
                continue
            worker, (dataset, run, key), claim = doing.pop(ready)
            idle.append(worker)
            with claim:
                found = _answer(ray, ready, dataset, key)
                if isinstance(found, Exception):
                    failed.append(found)
                    continue
                kept.add(key, found)
            yield Done(grid.place(dataset, run), found, True)
    for dataset, run, key in elsewhere:
        do = partial(run.do, grid.open(dataset, kept), **options)
        yield Done(grid.place(dataset, run), *kept.or_run(key, do))
    if failed:
        raise SerialLoRAError(
            f"{len(failed)} of {len(grid)} runs failed, and the others are recorded: {failed[0]}"
        ) from failed[0]


def _answer(ray: Any, ready: Any, dataset: str, key: str) -> Record | Exception:
    """What a worker says of a run, or what is wrong with it."""
    try:
        found = ray.get(ready)
    except ray.exceptions.RayActorError:
        return SerialLoRAError(
            f"{TRIES + 1} workers were lost on one run; it may need more memory (--memory-per-run)."
        )
    except ray.exceptions.RayError as error:
        return error
    if isinstance(found, Exception) or found.key == key:
        return found
    return SerialLoRAError(
        f"a worker has other pictures of {dataset}, or other weights, than this machine; give all "
        "machines the same files."
    )


def _start(ray: Any, share: Share, source: Source, runs: int) -> list[Any]:
    """As many workers as the cluster has room for; each begins when it has that room.

    Raises:
        SerialLoRAError: no machine has what one run asks for.
    """
    gpus = share.gpus
    if gpus is None:
        gpus = float(ray.cluster_resources().get("GPU", 0) > 0)
    asked = {"CPU": share.cpus, "GPU": gpus, "memory": (share.memory or 0) * GIB}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(has.get(name, 0) / much) for name, much in asked.items() if much)
        for has in machines
    )
    if not room:
        words = f"{share.cpus:g} cores, {gpus:g} GPUs, {share.memory or 0:g} GiB"
        raise SerialLoRAError(
            f"A run asks for {words}, and no machine of the cluster has as much; ask for less."
        )
    make = ray.remote(
        num_cpus=share.cpus,
        num_gpus=gpus,
        memory=int(asked["memory"]) or None,
        max_restarts=-1,
        max_task_retries=TRIES,
    )(Worker)
    threads = max(1, int(share.cpus))
    return [make.remote(source, threads, os.getcwd()) for _ in range(min(room, runs))]


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, with a cluster for the length of the block.

    Raises:
        SerialLoRAError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray  # here, as it is a large package that few need
    except ImportError as error:
        raise SerialLoRAError('A cluster needs Ray: pip install ".[cluster]".') from error
    if ray.is_initialized():  # by whoever called; so it is theirs to end
        yield ray
        return
    named = address or os.environ.get("RAY_ADDRESS")
    some = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        try:
            ray.init(named or "auto", **some)
        except ConnectionError:
            if named:
                raise
            ray.init("local", include_dashboard=False, **some)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where, first = named or "on this machine", str(error).strip().partition("\n")[0]
        raise SerialLoRAError(f"No Ray cluster answers {where} ({first}).") from error
    try:
        yield ray
    finally:
        ray.shutdown()
