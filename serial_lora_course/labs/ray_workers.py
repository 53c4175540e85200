"""Workers on a Ray cluster: this machine's cores and GPUs, or those of many machines.

A worker is a process that has its share of a machine until all is done: it loads the model once and does
one job after another. (Ray gives a plain task that asks for a GPU a fresh process each time, which would
load everything again for every run.) What is prepared of a data set, the first worker of a machine makes
that comes to it; all others read it out of Ray's object store, where it lies once for all of them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.card import GIB
from serial_lora_course.labs.grid import Labs, Source
from serial_lora_course.labs.lab import Lab
from serial_lora_course.labs.processes import process_state
from serial_lora_course.threads import THREADS

AT_MOST = 512  # workers
TRIES = 4  # of a job whose worker is lost each time
FAILED_STARTS = 3  # in a row, after which the cluster is given up
LOOK_SECONDS = 10.0  # until somebody is told that there is no room


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

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))

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
    """A process of the cluster; Ray makes it."""

    def __init__(self, source: Source, threads: int, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)  # paths mean what they mean to whoever asked
        os.environ[THREADS] = str(threads)
        torch.set_num_threads(threads)
        self.labs, self.dataset, self.lab = Labs(source), None, None

    def begin(self) -> str:
        """The machine that it is on, by Ray's name."""
        import ray

        ray.util.register_serializer(Tensor, serializer=_bytes_of, deserializer=_on_bytes)
        return ray.get_runtime_context().get_node_id()

    def prepare(self, dataset: str) -> dict[str, Any]:
        """What no other worker of this machine need prepare of a data set."""
        lab = self._open(dataset)
        return {name: getattr(lab, name) for name in lab.prepared}

    def do(self, dataset: str, job: Callable[[Lab], Any], prepared: dict[str, Any]) -> Any:
        """A job's answer."""
        lab = self._open(dataset)
        vars(lab).update(prepared)
        return job(lab)

    def _open(self, dataset: str) -> Lab:
        """The lab on a data set; the last one is kept."""
        if dataset != self.dataset:
            self.dataset = self.lab = None  # which makes room
            self.lab = self.labs.open(dataset)
            self.lab.backbone.model.to(process_state().device)
            self.dataset = dataset
        return self.lab


Stored = tuple[np.ndarray, torch.dtype, torch.Size, torch.device]


def _bytes_of(tensor: Tensor) -> Stored:
    """A tensor as Ray stores it without a copy for each reader."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy(), tensor.dtype, tensor.shape, tensor.device


def _on_bytes(stored: Stored) -> Tensor:
    """The tensor, on the stored bytes themselves where it is the processor's; nobody writes into it."""
    flat, dtype, shape, device = stored
    if not flat.size:
        return torch.empty(shape, dtype=dtype, device=device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(flat).view(dtype).reshape(shape).to(device)


@dataclass(frozen=True)
class Job:
    """Something that a worker does with the lab on a data set.

    Attributes:
        do: sent to the worker.
        about: what it is for, for whoever asked.
        lost: how many workers ended before it did.
    """

    dataset: str
    do: Callable[[Lab], Any]
    about: Any = None
    lost: int = 0


class Jobs(Protocol):
    """Jobs, some of which may not be known yet."""

    def __len__(self) -> int:
        """How many there are still to be taken at most, those to come among them."""

    def take(self) -> Job | None:
        """The next one; None where there is none now."""


class LostError(SerialLoRAError):
    """A worker ended before its job did, time and again."""


class Workers:
    """Those of one source, begun one by one as the cluster has room; see :func:`workers`.

    Args:
        alone: whether the cluster is this machine, and will not grow.
    """

    def __init__(self, ray: Any, share: Share, source: Source, alone: bool) -> None:
        self.ray, self.alone = ray, alone
        gpus = share.gpus
        if gpus is None:
            gpus = float(ray.cluster_resources().get("GPU", 0) > 0)
        self.asked = {"CPU": share.cpus, "GPU": gpus, "memory": int((share.memory or 0) * GIB)}
        options = {"num_cpus": share.cpus, "num_gpus": gpus, "memory": self.asked["memory"] or None}
        self.make = ray.remote(**options)(Worker).remote
        self.arguments = (source, share.threads, os.getcwd())
        self.starting: dict[Any, Any] = {}  # what tells that it has begun -> worker
        self.machines: dict[Any, str] = {}  # worker -> the one that it is on
        self.prepared: dict[tuple[str, str], Any] = {}  # machine, data set -> what will be prepared
        self.idle: list[Any] = []
        self.running: dict[Any, tuple[Any, Job]] = {}  # what will be the answer -> worker, job
        self.failed_starts, self.patient = 0, False

    def __len__(self) -> int:
        """Workers that have begun."""
        return len(self.idle) + len(self.running)

    def answers(self, jobs: Jobs) -> Iterator[tuple[Job, Any]]:
        """Each job and its answer, or the error that it ended in, as soon as it is there.

        A job whose worker is lost is done again. Answers may bring further jobs.

        Raises:
            SerialLoRAError: no worker can begin.
        """
        again: list[Job] = []
        while len(jobs) or again or self.running:
            while self.idle and (job := again.pop() if again else jobs.take()):
                worker = self.idle.pop()
                prepared = self._prepared(worker, job.dataset)
                self.running[worker.do.remote(job.dataset, job.do, prepared)] = worker, job
            wanted = len(jobs) + len(again) + len(self.running)
            if self.idle and not self.running and not again:
                return  # none of what was left is to be done here
            while len(self) + len(self.starting) < min(wanted, AT_MOST):
                worker = self.make(*self.arguments)
                self.starting[worker.begin.remote()] = worker
            while self.idle and len(self) > wanted:
                self.ray.kill(self.idle.pop())
            event = self._next_event()
            if event in self.starting:
                self._begun(self.starting.pop(event), event)
                continue
            job, answer = self._ended(event)
            if isinstance(answer, LostError) and job.lost + 1 < TRIES:
                warnings.warn(
                    f"a worker was lost, and its run begins again ({answer}).", stacklevel=2
                )
                again.append(replace(job, lost=job.lost + 1))
            else:
                yield job, answer

    def _prepared(self, worker: Any, dataset: str) -> Any:
        """What a machine has, or will have, prepared of a data set."""
        place = self.machines[worker], dataset
        if place not in self.prepared:
            self.prepared[place] = worker.prepare.remote(dataset)
        return self.prepared[place]

    def _next_event(self) -> Any:
        """Of a worker that has begun, or ended its job."""
        while True:
            events, _ = self.ray.wait([*self.running, *self.starting], timeout=LOOK_SECONDS)
            if events:
                return events[0]
            if not len(self):
                self._look_for_room()

    def _ended(self, event: Any) -> tuple[Job, Any]:
        worker, job = self.running.pop(event)
        try:
            answer = self.ray.get(event)
        except self.ray.exceptions.RayTaskError as error:  # the job's own
            answer = error.cause if isinstance(error.cause, SerialLoRAError) else error
        except self.ray.exceptions.RayError as error:
            self.ray.kill(worker)
            self.prepared.pop((self.machines[worker], job.dataset), None)  # it may be lost too
            return job, LostError(str(error).strip().partition("\n")[0])
        self.idle.append(worker)
        return job, answer

    def _begun(self, worker: Any, event: Any) -> None:
        try:
            self.machines[worker] = self.ray.get(event)
        except self.ray.exceptions.RayError as error:
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                raise SerialLoRAError(f"No worker begins on the cluster: {error}") from error
        else:
            self.failed_starts = 0
            self.idle.append(worker)

    def _look_for_room(self) -> None:
        """Say what is waited for, where no machine could hold a worker even if it were empty."""
        have = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if any(all(n.get(k, 0) >= v for k, v in self.asked.items()) for n in have):
            return
        words = ", ".join(f"{value:g} {name}" for name, value in self.asked.items() if value)
        if self.alone:
            raise SerialLoRAError(
                f"A run asks for {words}, and this machine has less; ask for less of it, or name a "
                "larger cluster's address."
            )
        if not self.patient:
            self.patient = True
            warnings.warn(f"no machine of the cluster has {words}; waiting for one.", stacklevel=2)

    def end(self) -> None:
        """End every worker, whatever it is doing."""
        busy = [worker for worker, _ in self.running.values()]
        for worker in [*self.idle, *self.starting.values(), *busy]:
            self.ray.kill(worker)


@contextmanager
def workers(share: Share, source: Source) -> Iterator[Workers]:
    """Workers for the length of the block.

    Raises:
        SerialLoRAError: Ray is not installed, or no cluster answers.
    """
    with _connected(share.address) as (ray, alone):
        found = Workers(ray, share, source, alone)
        try:
            yield found
        finally:
            found.end()


@contextmanager
def _connected(address: str | None) -> Iterator[tuple[Any, bool]]:
    """Ray, and whether its cluster is this machine for the length of the block."""
    try:
        import ray  # here, as it is a large package that few need
    except ImportError as error:
        raise SerialLoRAError('A cluster needs Ray: pip install ".[cluster]".') from error
    if ray.is_initialized():  # by whoever called; so it is theirs to end
        yield ray, False
        return
    some, alone = {"log_to_driver": False, "logging_level": "ERROR"}, False
    try:
        try:
            ray.init(address or "auto", **some)
        except ConnectionError:
            if address or os.environ.get("RAY_ADDRESS"):
                raise
            ray.init("local", include_dashboard=False, **some)
            alone = True
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "on this machine"
        first = str(error).strip().partition("\n")[0]
        raise SerialLoRAError(f"No Ray cluster answers {where} ({first}).") from error
    try:
        yield ray, alone
    finally:
        ray.shutdown()
