"""What a lab's command has still to do, and how long a step of it takes here: nothing is written.

for line in dry_run("clip", ["nature"], ["lora", "serial_lora"], [16], out=Path("runs/clip.jsonl")):
    print(line)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device

from serial_lora_course.labs.grid import make_grid
from serial_lora_course.labs.lab import Lab, adapted
from serial_lora_course.labs.methods import Method, get_method
from serial_lora_course.labs.precision import autocast
from serial_lora_course.labs.processes import process_state
from serial_lora_course.labs.records import read_records, with_unit


def dry_run(*asked: Any, out: Path | None = None, **changes: Any) -> Iterator[str]:
    """A line for each run that `run_lab` would make of the same arguments, and one for each data set.

    The first run that is left of a data set takes two steps of its training: the second is timed, and
    the others of the set are taken to be as long, a step.

    Raises:
        SerialLoRAError: as `run_lab`.
    """
    grid = make_grid(*asked, **changes)
    grid.check()
    known = {record.key: record for record in (read_records(out) if out is not None else [])}
    all_left, all_seconds = 0, 0.0
    for dataset in grid.datasets:
        lab = grid.labs.open(dataset)
        lab.records = known.values()
        lab.backbone.model.to(process_state().device)
        left = [run for run in grid.runs if run.key(lab) not in known]
        steps, seconds = 0, 0.0
        for run in left:
            lab.config = run.config
            if not steps:
                seconds = seconds_of_step(lab, run.amount, run.method)
            its = run.steps(type(lab), lab.data)
            steps += its
            size = run.method.sized(run.method.rank(run.config.rank))
            yield f"{dataset} · {size} · {with_unit(run.amount, lab.unit)} · seed {run.seed} · {its} steps"
        told = (
            f", {steps:,} steps, about {in_words(steps * seconds)} of training here" if left else ""
        )
        yield f"{dataset}: {len(left)} runs left and {len(grid.runs) - len(left)} done{told}"
        all_left, all_seconds = all_left + len(left), all_seconds + steps * seconds
    if all_left:
        yield (
            f"All: {all_left} runs left, about {in_words(all_seconds)} of training here, one after "
            "another; measuring comes on top."
        )


def seconds_of_step(lab: Lab, amount: int, method: Method | None = None) -> float:
    """Of one optimizer step with a fresh adapter, forward and backward: the second of two.

    Args:
        amount: of training data, in the lab's unit.
        method: Serial LoRA if left out.
    """
    model, device = lab.backbone.model, process_state().device
    stream = lab.stream(lab.indices(lab.data, amount, 1), 1)
    training = lab.config.training(stream.steps)
    with adapted(model, lab.adapter(method or get_method("serial_lora")), 1):
        objective = lab.objective().to(device)
        batch = send_to_device(stream.first_part(training), device)
        parameters = [p for p in objective.parameters() if p.requires_grad]
        objective.train()
        for _ in range(2):
            started = time.perf_counter()
            with autocast(device, lab.precision):
                loss = objective(batch)
            sum(g.sum() for g in torch.autograd.grad(loss, parameters)).item()  # waits for a GPU
            seconds = time.perf_counter() - started
        objective.eval()
    return seconds * training.accumulation


def in_words(seconds: float) -> str:
    """A time in the unit that suits it."""
    units = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
    unit, name = next((u, n) for u, n in units if seconds >= 2 * u or u == 1)
    return f"{seconds / unit:.{int(seconds < 10 * unit)}f} {name}"
