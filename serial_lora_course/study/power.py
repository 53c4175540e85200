"""How small a difference the study can see, and how long it takes: computed before it runs.

The variance is that of the records that the course shipped before the study, of Serial LoRA minus LoRA
at rank 16: other sets of pictures, the same models.
"""

from __future__ import annotations

from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.measures.differences import paired
from serial_lora_course.study.labs import STUDIES
from serial_lora_course.study.plan import PLANS, LabPlan, questions_of
from serial_lora_course.study.runs import least_runs
from serial_lora_course.study.sets import CLIP_SETS, DRAWN, SAM_SETS, SCENES, SD3_SETS, load_classes
from serial_lora_course.study.statistics import (
    KEPT_SHARE,
    Interval,
    Spread,
    detectable,
    spread_of,
)

EARLIER_PICTURES = {
    "sam": 60,
    "clip": 75,
    "sd3": 200,
}  # test pictures of a set, in the shipped records


def earlier_spread(plan: LabPlan) -> tuple[Spread, float]:
    """The spread of Serial LoRA minus LoRA in the shipped records, and LoRA's mean gain, in hundredths."""
    runs = frame(shipped_records(plan.lab))
    most = runs[runs["amount"] == runs["amount"].max()]
    difference = 100 * paired(most, "serial_lora", "lora", plan.measure)
    by_set = {name: list(values) for name, values in difference.groupby(level="dataset")}
    lora = most[most["method"] == "lora"]
    base = lora["zero_shot_dataset" if plan.lab == "clip" else f"base_{plan.measure}"]
    return spread_of(by_set, EARLIER_PICTURES[plan.lab]), 100 * float(
        (lora[plan.measure] - base).mean()
    )


def test_pictures(lab: str) -> int:
    """Of all sets of a lab together."""
    if lab == "sam":
        return SCENES["test"] * len(SAM_SETS)
    if lab == "sd3":
        return DRAWN["test"] * len(SD3_SETS)
    return sum(len(load_classes(name).test) for name in CLIP_SETS)


def planned_interval(plan: LabPlan) -> Interval:
    """Of Serial LoRA minus LoRA at LoRA's rank, from the earlier spread."""
    sets = len(STUDIES[plan.lab].datasets("tiny"))
    seeds = max(arm.seeds for arm in plan.arms)
    return earlier_spread(plan)[0].planned(sets, seeds, test_pictures(plan.lab) / sets)


def plan_page() -> str:
    """The plan in numbers, a paragraph a lab."""
    lines, hours = [], 0.0
    for plan in PLANS.values():
        sets = STUDIES[plan.lab].datasets("tiny")
        pictures = test_pictures(plan.lab)
        seeds = max(arm.seeds for arm in plan.arms)
        runs = least_runs(plan)
        hours += runs * plan.seconds / 3600
        spread, gain = earlier_spread(plan)
        planned = planned_interval(plan)
        lines += [
            f"{plan.lab}: {len(sets)} sets, {pictures} test pictures, {len(plan.arms)} arms, "
            f"{seeds} seeds for the paper's question; {runs} runs of about {plan.seconds:.0f} s, "
            f"{runs * plan.seconds / 3600:.1f} hours on one core.",
            f"  questions: {len(questions_of(plan))}. Serial LoRA minus LoRA: standard deviation {spread.between:.2f} between sets and "
            f"{spread.within:.2f} within, {plan.unit}; planned 95% interval +-{planned.half_width:.2f} "
            f"(aim +-{plan.aim:g}); seen with 80% probability: {detectable(planned):.2f}.",
            f"  LoRA's gain so far {gain:.1f}: the margin of {1 - KEPT_SHARE:.0%} is "
            f"{(1 - KEPT_SHARE) * gain:.2f}.",
        ]
    lines.append(f"together: {hours:.1f} hours, where no rate has to be looked for further out.")
    return "\n".join(lines)
