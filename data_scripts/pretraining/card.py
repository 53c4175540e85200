"""The last part of a shipped model's card: what adapting its weights reached, off the records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import write_json
from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.models.weights import tiny_file


@dataclass(frozen=True)
class Adapted:
    """How a lab's records are told in a card.

    Attributes:
        card: the shipped card.
        measure: the records' measure that is averaged.
        amount: what to call an amount of training data.
        baselines: what costs no training: what to call it -> its measure.
    """

    card: Path
    measure: str
    amount: str
    baselines: Mapping[str, str]


TOLD = {
    "clip": Adapted(
        tiny_file("tiny-clip.card.json"), "accuracy", "{} shots", {"zero-shot": "zero_shot_dataset"}
    ),
    "sam": Adapted(
        tiny_file("tiny-sam.card.json"),
        "dice",
        "{}% of the training pictures",
        {"box filled in": "box_dice", "not adapted": "base_dice"},
    ),
    "sd3": Adapted(
        tiny_file("tiny-sd3.card.json"),
        "fid",
        "FID, {}% of the training pictures",
        {"real pictures": "real_fid", "not adapted": "base_fid"},
    ),
}


def adapted(task: str) -> dict[str, dict[str, float]]:
    """Means over data sets and seeds, for each amount of training data and each method."""
    told, table = TOLD[task], frame(shipped_records(task))
    return {
        told.amount.format(amount): {
            name: round(rows[measure].mean(), 4) for name, measure in told.baselines.items()
        }
        | rows.groupby("method", sort=False)[told.measure].mean().round(4).to_dict()
        for amount, rows in table.groupby("amount")
    }


def complete_card(task: str) -> Path:
    """Add to a shipped card what the reference records say; the card's path.

    Raises:
        SerialLoRAError: there is no such lab, or no records of it yet.
    """
    if task not in TOLD:
        raise SerialLoRAError(f"There is no model {task!r}; choose from {', '.join(TOLD)}.")
    if not shipped_records(task):
        raise SerialLoRAError(f"There are no records of {task} yet; make them, then its card.")
    path = TOLD[task].card
    card = json.loads(path.read_text("utf-8"))
    return write_json(path, card | {"adapted": adapted(task)})
