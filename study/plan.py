"""What the study runs: fixed before the first run. ``docs/study.md`` says why.

An *arm* is a method at a size, in a lab. Its rate is chosen on the validation pictures of some sets, from
three rates three times apart and from further ones where the best of these is at an edge. Then it runs on
every set with fresh seeds, and what its test pictures come to is the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serial_lora_course.labs.records import with_unit
from study.methods import KNOWN

STEP = 3.0  # between two rates
MOST_RATES = 9  # that an arm may try
CHOOSING_SEED = 101  # of runs on validation pictures: none of the seeds of the runs that count


@dataclass(frozen=True)
class Arm:
    """A method at a size."""

    method: str
    rank: int  # the method's size: a rank, a side of blocks, a number of frequencies
    rate: float = field(default=3e-3, compare=False)  # in the middle of those that are tried
    blocks: tuple[int, ...] | None = None  # of each tower, the first or the last ones; None for all
    amount: int | None = None  # of training data; None for the lab's usual one in the study
    seeds: int = field(default=1, compare=False)  # of the runs that count

    @property
    def name(self) -> str:
        """Unique in a lab's plan; such as "serial_lora-16"."""
        where = "" if self.blocks is None else f"-blocks-{''.join(map(str, self.blocks))}"
        data = "" if self.amount is None else f"-of-{self.amount}"
        return f"{self.method}-{self.rank}{where}{data}"

    def title(self, unit: str) -> str:
        """What people read, such as "Serial LoRA, rank 24, last 3 blocks"; of "shots" or "percent"."""
        parts = [KNOWN[self.method].sized(self.rank)]
        if self.blocks is not None:
            parts.append(f"{'first' if 0 in self.blocks else 'last'} {len(self.blocks)} blocks")
        if self.amount is not None:
            parts.append(with_unit(self.amount, unit) + " of the data" * (unit == "percent"))
        return ", ".join(parts)


def next_rate(tried: Mapping[float, float], base: float) -> float | None:
    """The rate to try next, by what each reached and the unadapted model does; None at the end."""
    if len(tried) >= MOST_RATES:
        return None
    best = max(sorted(tried), key=tried.__getitem__)
    if tried[best] <= base or best == min(tried):
        return min(tried) / STEP
    return best * STEP if best == max(tried) else None


@dataclass(frozen=True)
class LabPlan:
    """What the study runs in one lab."""

    lab: str
    measure: str  # what it is judged by, more being better
    chosen_by: str  # what a rate is chosen by, more being better
    unit: str  # of a hundredth of the measure, in words
    amount: int  # of training data, where an arm has no other
    chosen_on: tuple[str, ...]  # the sets on whose validation pictures rates are chosen
    arms: tuple[Arm, ...]
    reference: str = "lora-16"  # the arm that every other one is compared with in the tables


# Sizes are counted for a width of 192.
PAPER = (("lora", 16), ("serial_lora", 16), ("lora", 4))
"""Does Serial LoRA keep LoRA's gain at LoRA's rank; and at its own number of parameters?"""
WHAT_WORKS = (
    *(("serial_lora", 12), ("lora", 3), ("lora_qkv", 4), ("lora_tied", 6)),
    *(("serial_untied", 4), ("serial_ffn", 12), ("serial_rotated", 12), ("serial_random", 12)),
)
"""Sharing, place and basis, each at 12 x 2 x 192 parameters a block."""
LATER = (("serial_even", 12), ("serial_uneven", 12))
"""Is it W's stretch or its directions? Added on SAM when all else had been run; no question asks for them."""
FIELD = {
    "lora": ((1,), 3e-3),  # the large one is the paper's question
    "serial_lora": ((64,), 3e-3),
    "lora_plus": ((1, 16), 4e-4),
    "repadapter": ((84,), 3e-3),
    "repadapter_two": ((2, 42), 3e-3),
    "dora": ((1, 16), 3e-3),
    "miss": ((2, 32), 3e-3),
    "oft": ((4, 64), 3e-3),
    "vera": ((192,), 3e-2),  # has no large size
    "randlora": ((192, 6), 3e-2),
    "fourierft": ((384, 6144), 3e-1),
    "ln_bias": ((1,), 3e-3),  # has one size
    "hra": ((2, 32), 3e-3),
}
"""Methods of the field at about 1,536 and 24,576 parameters a block, and their rates."""
NEAREST = (
    *(("lora", 12), ("serial_lora", 12), ("lora", 3)),
    *(("lora_tied", 6), ("serial_untied", 4), ("repadapter", 16)),
)
"""For styles: LoRA at Serial LoRA's rank, the others at its size."""


def _arms(little: int, *halves: tuple[int, ...]) -> tuple[Arm, ...]:
    """Of classification and segmentation; a little data, and halves of the blocks."""
    return (
        *(Arm(*each, seeds=3) for each in PAPER),
        *(Arm(method, 16, amount=little) for method in ("lora", "serial_lora")),
        *(Arm(*each, seeds=2) for each in WHAT_WORKS),
        *(Arm("serial_lora", 24, blocks=half, seeds=2) for half in halves),
        *(Arm(method, 4, seeds=2) for method in ("serial_lora", "repadapter")),
        *(Arm(method, size, rate) for method, (sizes, rate) in FIELD.items() for size in sizes),
    )


PLANS = {
    "sam": LabPlan(
        lab="sam",
        measure="dice",
        chosen_by="dice",
        unit="hundredths of Dice",
        amount=100,
        chosen_on=("food", "objects", "weather", "engraved"),
        arms=(*_arms(20, (0, 1, 2), (3, 4, 5)), *(Arm(*each, seeds=2) for each in LATER)),
    ),
    "clip": LabPlan(
        lab="clip",
        measure="accuracy",
        chosen_by="probability",  # of so few pictures it varies less than the accuracy
        unit="points",
        amount=4,
        chosen_on=("nature-symbola", "travel-symbola", "food-unifont", "people-unifont"),
        arms=_arms(1),
    ),
    "sd3": LabPlan(
        lab="sd3",
        measure="style_share",
        chosen_by="style_probability",
        unit="points of style share",
        amount=100,
        chosen_on=("openmoji", "night"),
        arms=tuple(Arm(*each, seeds=3) for each in NEAREST),
        reference="lora-12",
    ),
}


@dataclass(frozen=True)
class Question:
    """A comparison that was fixed before the first run; the questions of all labs are one family."""

    asks: str
    one: str  # names of arms
    other: str
    kept: bool = False  # whether it asks for nine tenths of the other's gain, not for more than it


KEEPS = "Serial LoRA keeps LoRA's gain at LoRA's rank"
SIZE = "more than size: above LoRA with as many parameters"
SHARED = "sharing, serial: one pair above one for each of q, k, v"
PLACE = "place: before attention above before the feed-forward"
HALVES = "serial_lora-24-blocks-345", "serial_lora-24-blocks-012"
PREDECESSOR = "the predecessor: above RepAdapter before attention"
QUESTIONS = (
    Question(KEEPS, "serial_lora-16", "lora-16", kept=True),
    Question(SIZE, "serial_lora-16", "lora-4"),
    Question(SHARED, "serial_lora-12", "serial_untied-4"),
    Question("sharing, parallel: one A above one for each of q, k, v", "lora_tied-6", "lora_qkv-4"),
    Question(PLACE, "serial_lora-12", "serial_ffn-12"),
    Question("basis: W's outputs above random directions", "serial_lora-12", "serial_rotated-12"),
    Question("basis: W above a random rotation of its size", "serial_lora-12", "serial_random-12"),
    Question("form: serial above parallel, A shared in both", "serial_lora-12", "lora_tied-6"),
    Question("blocks: the last half above the first", *HALVES),
    Question(PREDECESSOR, "serial_lora-4", "repadapter-4"),
    # Where a lab has one size alone:
    Question(KEEPS, "serial_lora-12", "lora-12", kept=True),
    Question(SIZE, "serial_lora-12", "lora-3"),
    Question(PREDECESSOR, "serial_lora-12", "repadapter-16"),
)


DESCRIBED = (
    # Rivals above Serial LoRA, as lesson 09 judges them; a lab without rank 16 has the second of a size:
    ("lora-16", "serial_lora-16"),
    ("lora-12", "serial_lora-12"),
    ("lora-4", "serial_lora-16"),
    ("lora-3", "serial_lora-12"),
    ("serial_ffn-12", "serial_lora-12"),
    ("ln_bias-1", "serial_lora-16"),
    ("serial_random-12", "serial_lora-12"),
    ("repadapter_two-42", "serial_lora-16"),
    # What takes the steps apart:
    ("serial_random-12", "lora_tied-6"),
    ("serial_rotated-12", "serial_lora-12"),
    ("serial_rotated-12", "serial_random-12"),
    ("serial_untied-4", "lora_qkv-4"),
    ("serial_lora-12", "serial_untied-4"),
    ("lora_tied-6", "lora_qkv-4"),
    ("serial_even-12", "serial_random-12"),
    ("serial_lora-12", "serial_even-12"),
    ("serial_uneven-12", "serial_random-12"),
    ("serial_lora-12", "serial_uneven-12"),
)
"""The first arm minus the second, told beside the answers without a test; most were chosen after the runs."""


def questions_of(plan: LabPlan) -> list[Question]:
    """Those that a lab has the arms for, each at the first size that it has."""
    there = {arm.name for arm in plan.arms}
    found: dict[str, Question] = {}
    for question in QUESTIONS:
        if {question.one, question.other} <= there:
            found.setdefault(question.asks, question)
    return list(found.values())


CORNERS = ("lora_qkv-4", "serial_untied-4", "serial_random-12", "serial_lora-12")
"""Three pairs or one, through W or not; of these, and of `LATER`, lesson 09 gets what they came to in each set."""
