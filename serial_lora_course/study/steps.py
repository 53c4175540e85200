"""How long a training step of each arm takes beside the reference arm's, in one process on one machine.

The study's runs may be done on several machines, so their own times compare machines. Here all arms of a
lab take turns: in each round every arm trains a few steps by the study's own loop, on the study's
pictures, batch and precision. What is told is the ratio to the reference arm in the same round, the
median over rounds, of the processor's own seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from serial_lora_course.labs.lab import Lab, adapted
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.timing import in_turns, machine
from serial_lora_course.labs.training import train
from serial_lora_course.study.cached import HEADS, train_head
from serial_lora_course.study.labs import fresh_lab
from serial_lora_course.study.plan import Arm, LabPlan
from serial_lora_course.study.runs import Run, amount_of, configure

SEED = 1


def measure_steps(
    plan: LabPlan,
    arms: Sequence[Arm],
    rounds: int,
    steps: int,
    told: Callable[[str], object] = print,
) -> dict[str, Any]:
    """What is stored of a lab: the machine, rounds, steps a round, and arm -> ratio.

    Args:
        arms: the plan's reference among them.
        steps: of an arm in each round, after one that is left out.
        told: called with a line after each round.
    """
    lab = fresh_lab(plan.lab, plan.chosen_on[0])
    visits = {arm.name: partial(step_seconds, lab, plan, arm, steps) for arm in arms}
    times = in_turns(
        visits,
        rounds,
        warm_up=0,
        told=lambda done: told(f"{plan.lab}: round {done} of {rounds}, {len(arms)} arms"),
    )
    reference = times[plan.reference]
    ratios = {name: round(each.ratio_to(reference), 4) for name, each in times.items()}
    about = {"machine": machine(), "rounds": rounds, "steps": steps, "reference": plan.reference}
    return about | {"seconds": round(reference.median, 5), "ratios": ratios}


def compared(plan: LabPlan) -> list[Arm]:
    """The arms of a lab that had the same amount of data."""
    return [arm for arm in plan.arms if arm.amount is None]


def step_seconds(lab: Lab, plan: LabPlan, arm: Arm, steps: int) -> float:
    """Of the processor, for a step of a fresh adapter or head: the median of some, after a first one."""
    configure(lab, Run(arm, lab.data.name, SEED, arm.rate))
    ends: list[float] = []

    def ended(_: int) -> bool:
        ends.append(time.process_time())
        return len(ends) > steps

    method, shots = get_method(arm.method), lab.indices(lab.data, amount_of(plan, arm), SEED)
    if arm.method in HEADS:
        pooled, labels = lab.pooled["train"]
        train_head(lab, arm.method, pooled[shots], labels[shots], SEED, steps + 1, ended)
    else:
        stream = lab.stream(shots, SEED)
        config = replace(lab.config, precision=lab.precision)
        training = config.training(stream.steps, method.ratio, SEED, method.plus)
        with adapted(lab.backbone.model, lab.adapter(method), SEED):
            train(lab.objective(), stream, training, progress=False, after_step=ended)
    return median(after - before for before, after in zip(ends, ends[1:], strict=False))
