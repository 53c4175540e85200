"""What is told of a lab's records: a line for each run, and the table that closes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from serial_lora_course.labs.frames import frame, swept
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Record, with_unit

Runs = Sequence[Record]
"""Runs that differ in their seed alone."""
Cell = Callable[[Runs, str], str]
"""What a column says of some runs; of what costs no training, named by how its measures begin."""


@dataclass(frozen=True)
class Report:
    """How the records of one lab are told.

    Attributes:
        title: of the table.
        result: what one run reached, in words.
        columns: heading -> cell, between the parameters and the number of seeds.
        baselines: rows before those of a data set, for what costs no training: what to call each,
            and how the names of its measures begin.
        paper: the paper's table with the same cells, and how a number of it is written; it stands
            last at paper scale.
        caption: what to know before reading the table.
        closing: what is told below the table.
    """

    title: str
    result: Callable[[Record], str]
    columns: dict[str, Cell] = field(default_factory=dict)
    baselines: tuple[tuple[str, str], ...] = ()
    paper: tuple[str, str] | None = None
    caption: str | None = None
    closing: Callable[[Runs], str] = lambda records: ""


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


def results_table(report: Report, records: Runs, printed: pd.DataFrame) -> Table:
    """One row for each data set, amount of training data and method, of records of one lab.

    Of a sweep, one for each rank, ratio and rate too, with a column that tells it.

    Args:
        printed: the paper's numbers, as :func:`serial_lora_course.paper_tables.paper_results` gives
            them, to stand beside records of paper scale.
    """
    differing = swept(records)
    columns = {SWEPT_COLUMNS[name][0]: SWEPT_COLUMNS[name][1] for name in differing}
    columns |= {"parameters": size("parameters"), **report.columns}
    columns |= {
        "seeds": of_runs(lambda runs: str(len(runs))),
        "seconds": of_runs(lambda runs: f"{sum(run.seconds for run in runs) / len(runs):.0f}"),
    }
    if report.paper and any(record.scale == "paper" for record in records):
        columns["paper"] = of_runs(lambda runs: _in_the_paper(report.paper, runs[0], printed))
    rows, seen, keys = [], set(), ["dataset", "amount", "method", *differing]
    alike = frame(records).groupby(keys, sort=False, dropna=False).groups
    for (dataset, amount, method, *_), places in alike.items():
        runs = [records[place] for place in places]
        for label, prefix in () if dataset in seen else report.baselines:
            rows.append([dataset, "–", label, *(cell(runs, prefix) for cell in columns.values())])
        seen.add(dataset)
        about = (dataset, with_unit(amount, runs[0].unit), get_method(method).label)
        rows.append([*about, *(cell(runs, "") for cell in columns.values())])
    table = Table(title=report.title, caption=report.caption, box=SIMPLE_HEAD, padding=0)
    for heading in ("data set", "data", "method"):
        table.add_column(heading, overflow="fold")
    for heading, *cells in zip(columns, *(row[3:] for row in rows), strict=True):
        whole = not any("±" in cell for cell in cells)  # a narrow terminal breaks no number
        table.add_column(heading, justify="right", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*row)
    return table


def _in_the_paper(paper: tuple[str, str], run: Record, printed: pd.DataFrame) -> str:
    """What the paper prints for the same cell, or a dash; FID and CLIP-Score both, where it has both."""
    where, form = paper
    amount = f"{run.amount}%" if run.unit == "percent" else f"{run.amount} shot"
    same = {"where": where, "dataset": run.dataset, "amount": amount, "method": run.method}
    found = printed[(printed[list(same)] == pd.Series(same)).all(axis=1)]
    return " / ".join(map(form.format, found["value"])) or "–"


# ---------------------------------------------------------------------------------- cells


def of_runs(tell: Callable[[Runs], str]) -> Cell:
    """A cell that says nothing of what costs no training."""
    return lambda runs, prefix: "" if prefix else tell(runs)


def size(name: str) -> Cell:
    """A size of a run, such as its bytes."""
    return of_runs(lambda runs: f"{runs[0].sizes[name]:,}")


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """The mean, and half the distance between the lowest and the highest of several."""
    spread = f" ± {form.format((max(values) - min(values)) / 2)}" if len(values) > 1 else ""
    return form.format(sum(values) / len(values)) + spread


def measure(name: str, form: str = "{:.3f}", spread: bool = False) -> Cell:
    """The mean of a measure, with its spread over the seeds if asked for; a baseline's too."""

    def cell(runs: Runs, prefix: str) -> str:
        values = [run.measures[prefix + name] for run in runs if prefix + name in run.measures]
        if not values:
            return "–"
        if spread and not prefix:
            return mean_and_spread(values, form)
        return form.format(sum(values) / len(values))

    return cell


def activations(records: Runs) -> str:
    """The memory that each method's training step keeps for its backward pass, at most."""
    most = frame(records).groupby("method", sort=False)["activation_bytes"].max()
    told = [f"{get_method(name).label} {kept / 1e6:,.0f} MB" for name, kept in most.items()]
    return f"Activations kept for a backward pass: {', '.join(told)}."


SWEPT_COLUMNS = {
    "lab_rank": ("rank", of_runs(lambda runs: f"{runs[0].rank}")),
    "ratio": ("ratio", of_runs(lambda runs: f"{runs[0].ratio:g}")),
    "lr": ("rate of A", of_runs(lambda runs: f"{runs[0].lr:g}")),
}
