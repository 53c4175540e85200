"""What a lab's command has still to do, and how long a step of it takes here: nothing is written.

for line in dry_run("clip", ["nature"], ["lora", "serial_lora"], [16], out=Path("runs/clip.jsonl")):
    print(line)
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from serial_lora_course.labs.grid import Run, make_grid
from serial_lora_course.labs.lab import Lab, adapted
from serial_lora_course.labs.records import read_records, with_unit
from serial_lora_course.labs.training import train


def dry_run(*asked: Any, out: Path | None = None, **changes: Any) -> Iterator[str]:
    """A line for each run that `run_lab` would make of the same arguments, and one for each data set.

    The first run that is left of a data set takes two steps of its training: the second is timed, and
    the others of the set are taken to be as long, a step.

    Raises:
        SerialLoRAError: as `run_lab`.
    """
    source, runs = make_grid(*asked, **changes)
    known = {record.key for record in (read_records(out) if out is not None else [])}
    all_left, all_seconds = 0, 0.0
    for dataset, some in itertools.groupby(runs, key=attrgetter("dataset")):
        lab, its = source.open(dataset), list(some)
        left = [run for run in its if run.key(lab) not in known]
        steps, seconds = 0, seconds_of_step(lab, left[0]) if left else 0.0
        for run in left:
            own = run.config.steps(len(lab.indices(lab.data, run.amount, run.seed)))
            steps += own
            size = run.method.sized(run.method.rank(run.config.rank))
            yield f"{dataset} · {size} · {with_unit(run.amount, lab.unit)} · seed {run.seed} · {own} steps"
        told = (
            f", {steps:,} steps, about {in_words(steps * seconds)} of training here" if left else ""
        )
        yield f"{dataset}: {len(left)} runs left and {len(its) - len(left)} done{told}"
        all_left, all_seconds = all_left + len(left), all_seconds + steps * seconds
    if all_left:
        yield (
            f"All: {all_left} runs left, about {in_words(all_seconds)} of training here, one after "
            "another; measuring comes on top."
        )


def seconds_of_step(lab: Lab, run: Run) -> float:
    """Of one optimizer step of a run: the second of two."""
    lab.config = replace(run.config, min_steps=max(2, run.config.min_steps))
    ends: list[float] = []

    def twice(step: int) -> bool:
        ends.append(time.perf_counter())
        return step == 2

    with adapted(lab.backbone.model, lab.adapter(run.method), run.seed):
        stream = lab.stream(lab.indices(lab.data, run.amount, run.seed), run.seed)
        training = lab.config.training(stream.steps)
        train(lab.objective(), stream, training, progress=False, after_step=twice)
    return ends[1] - ends[0]


def in_words(seconds: float) -> str:
    """A time in the unit that suits it."""
    units = ((3600, "hours"), (60, "minutes"), (1, "seconds"))
    unit, name = next((u, n) for u, n in units if seconds >= 2 * u or u == 1)
    return f"{seconds / unit:.{int(seconds < 10 * unit)}f} {name}"
