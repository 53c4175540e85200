"""How far a run is from the same run done again, on this machine and with the code as it is now.

The study's runs may be done on several machines, and bfloat16 rounds differently from one processor to
another. Here an arm's runs that count are done once more, the first seed of every set, and compared with
their records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.timing import machine
from serial_lora_course.study.plan import Arm
from serial_lora_course.study.runs import Study, do_run, final_runs
from serial_lora_course.study.tables import Results

SEED = 1


def repeat(study: Study, arm: Arm, told: Callable[[str], object] = print) -> dict[str, Any]:
    """What is stored: the machine, lab and arm, and set -> difference, in hundredths of the measure.

    Args:
        study: its records are read; nothing is written.
        told: called with a line for each run.

    Raises:
        SerialLoRAError: the arm's runs are not all there.
    """
    plan = study.plan
    rates = Results.of(study).rates
    if arm.name not in rates:
        raise SerialLoRAError(f"the runs of {arm.name} are not all there; choose another arm.")
    differences = {}
    for run in final_runs(plan, arm, rates[arm.name]):
        if run.seed == SEED:
            record = study.done[run.name]
            again = do_run(study.lab(run.dataset), plan, run, None, [record], with_base=False)
            difference = again.record.measures[plan.measure] - record.measures[plan.measure]
            differences[run.dataset] = round(100 * difference, 4)
            told(
                f"{plan.lab} {arm.name} {run.dataset}: {differences[run.dataset]:+.3f} {plan.unit}"
            )
    about = {"machine": machine(), "lab": plan.lab, "arm": arm.name}
    return about | {"differences": differences}
