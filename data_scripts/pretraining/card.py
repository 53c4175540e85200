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
class Summary:
    """How a card speaks of a lab's records.

    Attributes:
        measure: the records' measure that is averaged.
        amount: what to call an amount of training data.
        baselines: what costs no training: what to call it -> its measure.
    """

    measure: str
    amount: str
    baselines: Mapping[str, str]


SUMMARIES = {
    "clip": Summary("accuracy", "{} shots", {"zero-shot": "zero_shot_dataset"}),
    "sam": Summary(
        "dice",
        "{}% of the training pictures",
        {"box filled in": "box_dice", "not adapted": "base_dice"},
    ),
    "sd3": Summary(
        "fid",
        "FID, {}% of the training pictures",
        {"real pictures": "real_fid", "not adapted": "base_fid"},
    ),
}


def adapted(task: str) -> dict[str, dict[str, float]]:
    """Means over data sets and seeds, for each amount of training data and each method."""
    summary, table = SUMMARIES[task], frame(shipped_records(task))
    return {
        summary.amount.format(amount): {
            name: round(rows[measure].mean(), 4) for name, measure in summary.baselines.items()
        }
        | rows.groupby("method", sort=False)[summary.measure].mean().round(4).to_dict()
        for amount, rows in table.groupby("amount")
    }


def complete_card(task: str) -> Path:
    """Add to a shipped card what the reference records say; the card's path.

    Raises:
        SerialLoRAError: there is no such lab, or no records of it yet.
    """
    if task not in SUMMARIES:
        raise SerialLoRAError(f"There is no model {task!r}; choose from {', '.join(SUMMARIES)}.")
    if not shipped_records(task):
        raise SerialLoRAError(f"There are no records of {task} yet; make them, then its card.")
    path = tiny_file(f"tiny-{task}.card.json")
    card = json.loads(path.read_text("utf-8"))
    return write_json(path, card | {"adapted": adapted(task)})
