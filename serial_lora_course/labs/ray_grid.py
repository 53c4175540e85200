"""A grid's runs on a Ray cluster: this machine's cores and GPUs, or those of many machines.

What is run is decided here, and every record is written here. A worker is one of Ray's actors: it loads
the model once and does one run after another. Where a worker is killed, or its machine is lost, Ray
begins it again, and its run with it; no other run notices.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from serial_lora.errors import SerialLoRAError, require_number
from serial_lora_course.labs.device import this_device
from serial_lora_course.labs.grid import Done, Run, Source
from serial_lora_course.labs.records import Kept, Record
from serial_lora_course.threads import THREADS

TRIES = 3  # that a run has after its first worker was lost


class Worker:
    """A process of the cluster; Ray makes it, and makes it anew where it is lost."""

    def __init__(self, source: Source, threads: int, folder: str) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)  # paths mean what they mean to whoever asked
        os.environ[THREADS] = str(threads)
        torch.set_num_threads(threads)
        self.source, self.dataset, self.lab = source, None, None

    def do(self, run: Run, save_to: Path | None, options: dict) -> Record | SerialLoRAError:
        """A run's record, or the sentence that it ended in.

        Args:
            save_to: for the state of the unfinished run, if this machine has the folder too.
        """
        if save_to is not None and not save_to.parent.is_dir():
            save_to = None
        try:
            if run.dataset != self.dataset:
                self.lab, self.dataset = None, run.dataset  # first, which makes room
                self.lab = self.source.open(run.dataset)
                self.lab.backbone.model.to(this_device())
            return run.do(self.lab, save_to=save_to, **options)
        except SerialLoRAError as error:
            return error


def on_ray(
    address: str | None,
    cpus: float,
    gpus: float | None,
    source: Source,
    runs: Sequence[Run],
    kept: Kept,
    **options: Any,
) -> Iterator[Done]:
    """Runs on a cluster, each as soon as its record is written; old ones at once.

    A run that fails leaves the others to go on. Runs that another process is at, on the same records, are
    waited for at the end.

    Args:
        address: of the cluster, HOST:PORT; None for that of the environment's RAY_ADDRESS, or the one
            that this machine belongs to, or else this machine alone.
        cpus: cores of a run; it computes with as many threads, and at least one.
        gpus: of a run; may be a part of one; None for one where the cluster has any.
        options: of `run_one`.

    Raises:
        SerialLoRAError: no cluster, or a run failed; the others' records are written then.
    """
    require_number("cpus_per_run", cpus, least=0.01)
    require_number("gpus_per_run", gpus or 0, least=0)
    keys: dict[Run, str] = {}
    for dataset, its in itertools.groupby(runs, key=attrgetter("dataset")):
        lab = source.open(dataset)
        for run in its:
            if (key := run.key(lab)) in kept.known:
                yield run, kept.known[key], False
            else:
                keys[run] = key
    if not keys:
        return
    failed, elsewhere, idle = [], [], SimpleQueue()

    def ask(run: Run, save_to: Path | None) -> Record:
        """In a thread of its own: a worker's answer."""
        worker = idle.get()
        try:
            found = ray.get(worker.do.remote(run, save_to, options))
        except ray.exceptions.RayActorError as error:
            raise SerialLoRAError(
                f"{TRIES + 1} workers were lost on one run; it may need more memory, so let fewer run "
                "at once (--cpus-per-run)."
            ) from error
        finally:
            idle.put(worker)
        if isinstance(found, Exception):
            raise found
        if found.key != keys[run]:
            raise SerialLoRAError(
                f"a worker has other pictures of {run.dataset}, or other weights, than this machine; "
                "give all machines the same files."
            )
        return found

    with _connected(address) as ray, ExitStack() as ending:
        workers = _start(ray, cpus, gpus, source, len(keys))
        for worker in workers:
            ending.callback(ray.kill, worker)
            begun = worker.__ray_ready__.remote().future()  # as soon as there is room for it
            begun.add_done_callback(lambda _, worker=worker: idle.put(worker))
        pool = ThreadPoolExecutor(len(workers))
        ending.callback(pool.shutdown, wait=False, cancel_futures=True)
        answers = {
            pool.submit(kept.or_run, key, partial(ask, run), wait=False): run
            for run, key in keys.items()
        }
        for answer in as_completed(answers):
            if error := answer.exception():
                failed.append(error)
            elif found := answer.result():
                yield answers[answer], *found
            else:
                elsewhere.append(answers[answer])
    for run in elsewhere:
        do = partial(run.do, source.open(run.dataset), **options)
        yield run, *kept.or_run(keys[run], do)
    if failed:
        raise SerialLoRAError(
            f"{len(failed)} of {len(runs)} runs failed, and the others are recorded: {failed[0]}"
        ) from failed[0]


def _start(ray: Any, cpus: float, gpus: float | None, source: Source, runs: int) -> list[Any]:
    """As many workers as the cluster has room for; each begins when it has that room."""
    if gpus is None:
        gpus = float(ray.cluster_resources().get("GPU", 0) > 0)
    asked = {"CPU": cpus, "GPU": gpus}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(has.get(name, 0) / much) for name, much in asked.items() if much)
        for has in machines
    )
    if not room:
        raise SerialLoRAError(
            f"A run asks for {cpus:g} cores and {gpus:g} GPUs, and no machine of the cluster has as "
            "much; ask for less."
        )
    again = {"max_restarts": -1, "max_task_retries": TRIES}
    make = ray.remote(num_cpus=cpus, num_gpus=gpus, **again)(Worker)
    fresh = replace(source)  # without what this process has loaded
    return [make.remote(fresh, max(1, int(cpus)), os.getcwd()) for _ in range(min(room, runs))]


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, with a cluster for the length of the block."""
    try:
        import ray  # here, as it is a large package that few need
    except ImportError as error:
        raise SerialLoRAError('A cluster needs Ray: pip install ".[cluster]".') from error
    if ray.is_initialized():  # by whoever called; so it is theirs to end
        yield ray
        return
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        where = address or "on this machine"
        raise SerialLoRAError(
            f"No Ray cluster answers {where} ({first}); `ray stop` forgets one that has ended."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
