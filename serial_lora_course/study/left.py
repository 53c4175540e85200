"""What is left of the study, run by run, before it goes on."""

from __future__ import annotations

from collections.abc import Iterator

from serial_lora.counting import BYTES_PER_FLOAT32
from serial_lora_course.labs.fit import step_bytes
from serial_lora_course.labs.forecast import (
    RECORD_BYTES,
    STATE_COPIES,
    RunForecast,
    in_short,
    space,
)
from serial_lora_course.labs.methods import get_method
from serial_lora_course.study.cached import HEADS
from serial_lora_course.study.plan import Arm
from serial_lora_course.study.runs import Study, least_of
from serial_lora_course.study.sets import DRAWN, VALIDATION

LARGEST = Arm("lora", 16)
"""What every arm's memory is taken for: PEFT's methods cannot be counted without being run."""


def forecast_study(study: Study) -> list[RunForecast]:
    """Every run of a lab's plan where no rate has to be looked for further out.

    Seconds are the plan's, on a core that does nothing else; memory is that of `LARGEST`, and an adapter
    as large as the mean of those that are there.
    """
    plan, lab = study.plan, study.lab(study.plan.chosen_on[0])
    config = lab.configured("tiny", rank=LARGEST.rank)
    memory = step_bytes(lab, config, get_method(LARGEST.method))
    trained = sum(record.sizes.get("parameters", 0) for record in study.done.values())
    parameters = trained // max(1, len(study.done))
    found = []
    for arm in plan.arms:
        for run in least_of(plan, arm):
            part = "validation" if run.dataset.endswith(VALIDATION) else "test"
            adapter = BYTES_PER_FLOAT32 * parameters
            found.append(
                RunForecast(
                    dataset=run.dataset,
                    method=arm.name,
                    rank=arm.rank,
                    amount=plan.amount if arm.amount is None else arm.amount,
                    seed=run.seed,
                    done=study.has(run),
                    steps=lab.config.min_steps,
                    drawings=DRAWN[part] if plan.lab == "sd3" else 0,
                    tests=0,
                    parameters=parameters,
                    seconds=1.0 if arm.method in HEADS else plan.seconds,
                    memory=memory,
                    disk=RECORD_BYTES + (part == "test") * adapter,
                    state=STATE_COPIES * adapter,
                )
            )
    return found


def left_lines(studies: list[Study]) -> Iterator[str]:
    """A line for each lab, and one for all."""
    runs = {study.plan.lab: forecast_study(study) for study in studies}
    for lab, each in runs.items():
        yield f"{lab}: {in_short(each)}"
    every = [run for each in runs.values() for run in each]
    yield f"All: {in_short(every)}. {space([run for run in every if not run.done])}"
