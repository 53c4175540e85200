"""The tiny CLIP lab on other machines: older instructions, a busy neighbour, a class of learners.

Everything is measured in a process of its own, as OpenMP and oneDNN read their settings once, when
torch loads them: `python -m benchmarks.machine step` prints what such a process has measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch  # before the course, whose settings for OpenMP only count where they are asked for

from benchmarks.measure import AVX2, PRECISIONS, precision_context
from benchmarks.shares import RUNS, measure_share
from serial_lora.injection import adapter_parameters
from serial_lora_course import threads
from serial_lora_course.labs.clip import CLIPLab
from serial_lora_course.labs.grid import run_lab
from serial_lora_course.labs.lab import adapted
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.precision import settle_precision
from serial_lora_course.labs.timing import interleave
from serial_lora_course.peak_memory import peak_bytes

LEARNERS = threads.LEARNERS_PER_MACHINE


def waiting(spins: Sequence[int] = ()) -> dict[str, dict[str, str]]:
    """Ways in which OpenMP's threads wait for one another, each as environment variables."""
    ours: dict[str, str] = {}
    threads.settle(ours)
    return {
        "PyTorch's own": {},
        "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
        "the course's": ours,
    } | {f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in spins}


# ------------------------------------------------------------------- what the processes measure


def measure_step(quick: bool, rounds: int) -> dict[str, Any]:
    """Forward and backward of the lab's step in both precisions, and which of them it would choose."""
    config = CLIPLab.configs["tiny"]
    lab = CLIPLab(
        CLIPLab.load_backbone(config, "tiny", "default"), CLIPLab.load_data("nature", "tiny", None)
    )
    size = lab.backbone.model.visual.image_size[0]
    count = 2 if quick else config.batch_size
    batch = torch.randn(count, 3, size, size), torch.zeros(count, dtype=torch.long)
    with adapted(lab.backbone.model, lab.adapter(METHODS["serial_lora"]), seed=1):
        objective = lab.objective().train()
        parameters = list(adapter_parameters(objective))

        def step(precision: str) -> None:
            with precision_context(precision):
                loss = objective(batch)
            torch.autograd.grad(loss, parameters)

        chosen = settle_precision("auto", objective, lambda: batch)
        steps = {name: (lambda name=name: step(name)) for name in PRECISIONS}
        times = interleave(steps, rounds)
    row: dict[str, Any] = {"chosen": "bfloat16" if chosen == "bf16" else "float32"}
    for name in PRECISIONS:
        row |= times[name].named(name)
    return row | {"ratio": times["bfloat16"].ratio_to(times["float32"])}


def measure_learner(quick: bool) -> dict[str, Any]:
    """A short training of a learner: seconds of training, and the most memory the process had."""
    some = {"min_steps": 2, "epochs": 1} if quick else {}
    shots = 1 if quick else 4
    (record,) = run_lab("clip", ["nature"], ["serial_lora"], shots, 1, progress=False, **some)
    return {"training": record.seconds, "peak_bytes": peak_bytes()}


# ------------------------------------------------------------------------------- the processes


def start(words: Sequence[str], settings: Mapping[str, str], quick: bool) -> subprocess.Popen[str]:
    """A process that measures; `settings` take the place of what was said of threads before."""
    said = (*threads.WAITING, threads.THREADS, "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in said} | dict(settings)
    command = [sys.executable, "-m", "benchmarks.machine", *words, *["--quick"] * quick]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What the process measured, once it has ended."""
    printed, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return json.loads(printed.splitlines()[-1])


@contextmanager
def neighbour(processes: int) -> Iterator[None]:
    """So many other processes that never rest."""
    with ExitStack() as stack:
        for _ in range(processes):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)  # before the wait that ends its context
        yield


def measure_conditions(quick: bool, rounds: int, spins: Sequence[int] = ()) -> list[dict[str, Any]]:
    """A row for each state of the machine and each way of waiting.

    Args:
        spins: other counts than the course's to try, idle and beside one neighbour alone.
    """
    states = [("idle", {}, 0), ("one busy neighbour", {}, 1)]
    if not spins:
        states.insert(1, ("AVX2 alone, simulated", AVX2, 0))
        states.append(("a busy neighbour on every core", {}, os.cpu_count() or 1))
    words, rows = ["step", "--rounds", str(rounds)], []
    for state, settings, busy in states:
        for wait, variables in waiting(spins).items():
            if settings and wait != "the course's":
                continue  # instructions and waiting have nothing to do with each other
            with neighbour(busy):
                found = answer(start(words, settings | variables, quick))
            rows.append({"state": state, "waiting": wait} | found)
    return rows


def measure_class(quick: bool) -> list[dict[str, Any]]:
    """Learners one after another, and all at once with a core each and with all cores each."""
    learners = 2 if quick else LEARNERS
    ours = waiting()["the course's"]
    share = ours | {threads.THREADS: str(max(1, (os.cpu_count() or 1) // learners))}
    rows = []
    for title, settings, at_once in (
        ("one after another, all cores each", ours, 1),
        (f"at once, {threads.THREADS}={share[threads.THREADS]}", share, learners),
        ("at once, all cores each", ours, learners),
    ):
        begin, found = time.perf_counter(), []
        for _ in range(learners // at_once):
            running = [start(["learner"], settings, quick) for _ in range(at_once)]
            found += [answer(process) for process in running]
        rows.append(
            {"title": title, "learners": learners, "seconds": time.perf_counter() - begin}
            | {"peak_bytes": max(each["peak_bytes"] for each in found)}
        )
    return [row | {"ratio": row["seconds"] / rows[0]["seconds"]} for row in rows]


def measure_shares(quick: bool) -> list[dict[str, Any]]:
    """A row for each lab: what of its run is training."""
    settings = waiting()["the course's"]
    return [answer(start([name], settings, quick)) for name in RUNS]


def main(words: list[str] | None = None) -> None:
    """Measure in this process, and print the answer as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machine", description=__doc__)
    parser.add_argument("what", choices=("step", "learner", *RUNS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(words)
    measure = {
        "step": partial(measure_step, options.quick, options.rounds),
        "learner": partial(measure_learner, options.quick),
    }.get(options.what, partial(measure_share, options.what, options.quick))
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
