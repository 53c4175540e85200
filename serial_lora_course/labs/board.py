"""The board of a class: who is how accurate with how few parameters, out of everybody's records.

    runs/ada/clip.jsonl, runs/emmy/first.jsonl ...      one folder, or one file, for each learner
    table = class_entries(read_class(Path("runs")))

Runs stand beside one another only where they were measured on the same pictures and adapt the same
weights: the fingerprints in the records say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from serial_lora.errors import SerialLoRAError
from serial_lora_course.files import printable
from serial_lora_course.labs.frames import on_front
from serial_lora_course.labs.methods import METHOD_TITLES
from serial_lora_course.labs.records import Record, read_records, with_unit
from serial_lora_course.labs.report import mean_and_spread

ClassRecords = Mapping[str, Sequence[Record]]
"""Learner -> records."""


def read_class(folder: Path) -> dict[str, list[Record]]:
    """The records of everybody, from a folder with a folder or a file for each learner."""
    found: dict[str, dict[str, Record]] = {}
    for path in sorted(folder.rglob("*.jsonl")):
        first, *inside = path.relative_to(folder).parts
        own = found.setdefault(printable(first if inside else path.stem), {})
        own |= {record.key: record for record in read_records(path)}
    if not any(found.values()):
        raise SerialLoRAError(
            f"There is no record in {folder}; have each learner write to a file there, such as "
            "--out runs/NAME/clip.jsonl."
        )
    return {learner: list(own.values()) for learner, own in found.items() if own}


def class_entries(records: ClassRecords) -> pd.DataFrame:
    """A row for each learner's runs that differ in their seed alone; the most accurate first.

    Returns:
        Columns ``learner``, ``method``, ``rank``, ``data`` (such as "16 shots"), ``parameters``,
        ``accuracy`` (the mean over seeds, a share), ``runs``, and ``front``: nobody is as accurate with
        fewer parameters, nor more accurate with as many.

    Raises:
        SerialLoRAError: a run was measured on other pictures, adapts another model, or has no accuracy.
    """
    require_comparable([(learner, record) for learner, own in records.items() for record in own])
    alike: dict[tuple[str, str], list[Record]] = {}
    for learner, own in records.items():
        for record in own:
            alike.setdefault((learner, replace(record, seed=0).key), []).append(record)
    table = pd.DataFrame(
        {
            "learner": learner,
            "method": printable(runs[0].method),
            "rank": runs[0].rank,
            "data": printable(with_unit(runs[0].amount, runs[0].unit)),
            "parameters": runs[0].sizes["parameters"],
            "accuracy": sum(run.measures["accuracy"] for run in runs) / len(runs),
            "runs": runs,
        }
        for (learner, _), runs in alike.items()
    )
    table = table.sort_values(["accuracy", "parameters"], ascending=[False, True])
    point = ["parameters", "accuracy"]
    best = pd.MultiIndex.from_frame(on_front(table, "accuracy")[point])
    front = pd.MultiIndex.from_frame(table[point]).isin(best)
    return table.assign(front=front).reset_index(drop=True)


def require_comparable(everything: Sequence[tuple[str, Record]]) -> None:
    """Refuse the record, of a learner, that differs from most."""
    for learner, record in everything:
        if not 0 <= record.measures.get("accuracy", -1) <= 1 or "parameters" not in record.sizes:
            raise SerialLoRAError(
                f"{learner} has a record of the lab {record.task} without an accuracy and a number "
                "of parameters; the board takes those of `serial-lora lab clip`."
            )
    for setting, what in (("data", "pictures"), ("weights", "weights")):
        found = [str(record.settings.get(setting, "unknown")) for _, record in everything]
        usual = Counter(found).most_common(1)[0][0]
        for (learner, record), own in zip(everything, found, strict=True):
            if own == "unknown" or own != usual:
                raise SerialLoRAError(
                    f"{learner} has a record of other {what} than most have ({record.dataset}, "
                    f"fingerprint {own} and not {usual}), so accuracies cannot be "
                    "compared; run it again on the class's pictures, or move the file away."
                )


def board_table(entries: pd.DataFrame) -> Table:
    """The front, and beside it what each learner did best."""
    caption = "* nobody is as accurate with fewer parameters, nor more accurate with as many"
    table = Table(title=title_of(entries), caption=caption, box=SIMPLE_HEAD, padding=0)
    for heading in ("", "learner", "method", "rank", "data", "parameters", "accuracy", "seeds"):
        words = heading in ("", "learner", "method")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row in shown(entries).itertuples():
        accuracies = [each.measures["accuracy"] for each in row.runs]
        table.add_row(
            "*" * row.front,
            row.learner,
            METHOD_TITLES.get(row.method, row.method),
            str(row.rank),
            row.data,
            f"{row.parameters:,}",
            mean_and_spread(accuracies, "{:.1%}"),
            str(len(accuracies)),
        )
    return table


def shown(entries: pd.DataFrame) -> pd.DataFrame:
    """Of all entries the front, and of each learner the most accurate one."""
    return entries[entries["front"] | ~entries["learner"].duplicated()]


def title_of(entries: pd.DataFrame) -> str:
    """The pictures that all were measured on, and the accuracy of the model as it was."""
    record = entries["runs"].iloc[0][0]
    return f"{printable(record.dataset)}, {len(entries)} entries; without training {untrained(entries):.1%}"


def untrained(entries: pd.DataFrame) -> float:
    """The accuracy of the model as it was, with the better of its prompts; 0 where none is noted."""
    measures = entries["runs"].iloc[0][0].measures
    return max((v for name, v in measures.items() if name.startswith("zero_shot_")), default=0.0)
