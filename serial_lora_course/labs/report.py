"""What is told of a lab's records: a line for each run, and the table that closes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from serial_lora_course.labs.frames import frame, swept
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Record, with_unit

Runs = Sequence[Record]
"""Runs that differ in their seed alone."""
Measures = Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """How the records of one lab are told.

    Attributes:
        title: of the table.
        result: what one run reached, in words.
        columns: heading -> how a number is written, and which it is of the measures; the first one's
            spread over the seeds is told too.
        baselines: rows before those of a data set: what costs no training -> its measures in a record.
        caption: what to know before reading the table.
    """

    title: str
    result: Callable[[Record], str]
    columns: dict[str, tuple[str, Callable[[Measures], float]]]
    baselines: dict[str, Callable[[Record], Measures]] = field(default_factory=dict)
    caption: str | None = None


def beginning(prefix: str) -> Callable[[Record], Measures]:
    """The measures whose names begin so, without that beginning."""
    return lambda run: {
        n.removeprefix(prefix): v for n, v in run.measures.items() if n.startswith(prefix)
    }


def run_line(report: Report, record: Record, is_new: bool) -> str:
    """One finished run in one line."""
    end = "" if is_new else "  (already in the records)"
    if short := record.sizes.get("short_classes", 0):
        end = f"; {short} of the classes have fewer pictures and gave all they have{end}"
    method = get_method(record.method)
    ratio = f", ratio {record.ratio:g}" if method.plus else ""
    return (
        f"{record.dataset}, {with_unit(record.amount, record.unit)}, seed {record.seed}, "
        f"{method.label} (rank {record.rank}{ratio}): {report.result(record)} "
        f"in {record.seconds:.0f} s{end}"
    )


def results_table(report: Report, records: Runs) -> Table:
    """One row for each data set, amount of training data and method, of records of one lab.

    Of a sweep, one for each rank, ratio and rate too, with a column that tells it.
    """
    differing = swept(records)
    before, after = [SWEPT_COLUMNS[name] for name in differing] + [PARAMETERS], [SEEDS, SECONDS]
    rows, seen, keys = [], set(), ["dataset", "amount", "method", *differing]
    alike = frame(records).groupby(keys, sort=False, dropna=False).groups
    for (dataset, amount, method, *_), places in alike.items():
        runs = [records[place] for place in places]
        for label, measures in {} if dataset in seen else report.baselines.items():
            cells = _measured(report, [measures(runs[0])])
            rows.append([dataset, "–", label, *[""] * len(before), *cells, *[""] * len(after)])
        seen.add(dataset)
        row = [dataset, with_unit(amount, runs[0].unit), get_method(method).label]
        row += [tell(runs) for _, tell in before]
        row += _measured(report, [run.measures for run in runs])
        rows.append(row + [tell(runs) for _, tell in after])
    table = Table(title=report.title, caption=report.caption, box=SIMPLE_HEAD, padding=0)
    for heading in ("data set", "data", "method"):
        table.add_column(heading, overflow="fold")
    headings = [name for name, _ in before] + [*report.columns] + [name for name, _ in after]
    for heading, *cells in zip(headings, *(row[3:] for row in rows), strict=True):
        whole = not any("±" in cell for cell in cells)  # a narrow terminal breaks no number
        table.add_column(heading, justify="right", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    return table


def _measured(report: Report, runs: Sequence[Measures]) -> list[str]:
    """The cells of some runs' measures; a dash for one that is not there."""
    cells = []
    for form, read in report.columns.values():
        try:
            values = [read(measures) for measures in runs]
        except KeyError:
            cells.append("–")
        else:
            cells.append(
                mean_and_spread(values, form) if not cells else form.format(np.mean(values))
            )
    return cells


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """The mean, and half the distance between the lowest and the highest of several."""
    spread = f" ± {form.format((max(values) - min(values)) / 2)}" if len(values) > 1 else ""
    return form.format(sum(values) / len(values)) + spread


SWEPT_COLUMNS = {
    "lab_rank": ("rank", lambda runs: f"{runs[0].rank}"),
    "ratio": ("ratio", lambda runs: f"{runs[0].ratio:g}"),
    "lr": ("rate of A", lambda runs: f"{runs[0].lr:g}"),
}
PARAMETERS = ("parameters", lambda runs: f"{runs[0].sizes['parameters']:,}")
SEEDS = ("seeds", lambda runs: str(len(runs)))
SECONDS = ("seconds", lambda runs: f"{np.mean([run.seconds for run in runs]):.0f}")
