"""What is told of a lab's records: a line for each run, and the table that closes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from serial_lora_course.labs.frames import frame, swept
from serial_lora_course.labs.methods import get_method
from serial_lora_course.labs.records import Record, with_unit

Runs = Sequence[Record]
"""Runs that differ in their seed alone."""


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, and its cell for some runs.

    Attributes:
        baseline: its cell for what costs no training, named by the beginning of its measures.
        folds: whether a narrow terminal may break it after a word.
    """

    heading: str
    cell: Callable[[Runs], str]
    baseline: Callable[[Record, str], str] = lambda run, prefix: ""
    folds: bool = False


@dataclass(frozen=True)
class Report:
    """How the records of one lab are told.

    Attributes:
        title: of the table.
        result: what one run reached, in words.
        columns: between the parameters and the number of seeds.
        baselines: rows before those of a data set, for what costs no training: what to call each,
            and how the names of its measures begin.
        paper: the paper's table with the same cells, and how a number of it is written; it stands
            last at paper scale.
        caption: what to know before reading the table.
        closing: what is told below the table.
    """

    title: str
    result: Callable[[Record], str]
    columns: tuple[Column, ...]
    baselines: tuple[tuple[str, str], ...] = ()
    paper: tuple[str, str] | None = None
    caption: str | None = None
    closing: Callable[[Runs], str] = lambda records: ""


def run_line(report: Report, record: Record, is_new: bool) -> str:
    """One finished run in one line."""
    end = "" if is_new else "  (already in the records)"
    short = record.sizes.get("short_classes", 0)
    if short:
        end = f"; {short} of the classes have fewer pictures and gave all they have{end}"
    ratio = f", ratio {record.ratio:g}" if get_method(record.method).plus else ""
    return (
        f"{record.dataset}, {with_unit(record.amount, record.unit)}, seed {record.seed}, "
        f"{get_method(record.method).label} (rank {record.rank}{ratio}): {report.result(record)} "
        f"in {record.seconds:.0f} s{end}"
    )


def results_table(report: Report, records: Runs, printed: pd.DataFrame | None = None) -> Table:
    """One row for each data set, amount of training data and method, of records of one lab.

    Of a sweep, one for each rank, ratio and rate too, with a column that tells it. In a narrow
    terminal words are folded; a digit is never cut off.

    Args:
        printed: the paper's numbers, as :func:`serial_lora_course.paper_tables.paper_results` gives
            them, to stand beside records of paper scale.
    """
    differing = swept(records)
    columns = [*(SWEPT_COLUMNS[name] for name in differing), PARAMETERS, *report.columns]
    columns += [SEEDS, SECONDS]
    if report.paper and printed is not None and any(r.scale == "paper" for r in records):
        columns.append(Column("paper", lambda runs: paper_cell(report, runs, printed)))
    table = Table(title=report.title, caption=report.caption, box=SIMPLE_HEAD, padding=0)
    percent = records[0].unit == "percent"
    for heading in ("data set", "data" if percent else records[0].unit, "method"):
        table.add_column(heading, overflow="fold")
    for column in columns:
        table.add_column(column.heading, justify="right", overflow="fold", no_wrap=not column.folds)
    seen, keys = set(), ["dataset", "amount", "method", *differing]
    for (dataset, amount, method, *_), rows in frame(records).groupby(
        keys, sort=False, dropna=False
    ):
        runs = [records[place] for place in rows.index]
        for label, prefix in () if dataset in seen else report.baselines:
            cells = (column.baseline(runs[0], prefix) for column in columns)
            table.add_row(dataset, "–", label, *cells)
        seen.add(dataset)
        cells = (column.cell(runs) for column in columns)
        table.add_row(dataset, f"{amount}{'%' * percent}", get_method(method).label, *cells)
    return table


def paper_cell(report: Report, runs: Runs, printed: pd.DataFrame) -> str:
    """What the paper prints for the same cell, or a dash; FID and CLIP-Score both, where it has both."""
    (where, form), run = report.paper, runs[0]
    amount = f"{run.amount}%" if run.unit == "percent" else f"{run.amount} shot"
    found = printed[
        (printed["where"] == where)
        & (printed["dataset"] == run.dataset)
        & (printed["amount"] == amount)
        & (printed["method"] == run.method)
    ]
    return " / ".join(map(form.format, found["value"])) or "–"


# ---------------------------------------------------------------------------------- cells


def size(name: str) -> Callable[[Runs], str]:
    return lambda runs: f"{runs[0].sizes[name]:,}"


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """The mean, and half the distance between the lowest and the highest of several."""
    spread = f" ± {form.format((max(values) - min(values)) / 2)}" if len(values) > 1 else ""
    return form.format(sum(values) / len(values)) + spread


def measure_column(
    heading: str,
    measure: str,
    complement: bool = False,
    spread: bool = False,
    form: str = "{:.3f}",
) -> Column:
    """A measure, or one minus it; the baselines' beside it where they have one."""

    def read(run: Record, prefix: str = "") -> float | None:
        value = run.measures.get(f"{prefix}{measure}")
        return 1 - value if complement and value is not None else value

    def cell(runs: Runs) -> str:
        values = [read(run) for run in runs]
        return mean_and_spread(values if spread else [sum(values) / len(values)], form)

    def baseline(run: Record, prefix: str) -> str:
        value = read(run, prefix)
        return "–" if value is None else form.format(value)

    return Column(heading, cell, baseline, folds=spread)


def activations(records: Runs) -> str:
    """The memory that each method's training step keeps for its backward pass, at most."""
    most = frame(records).groupby("method", sort=False)["activation_bytes"].max()
    told = ", ".join(
        f"{get_method(name).label} {kept / 1e6:,.0f} MB" for name, kept in most.items()
    )
    return f"Activations kept for a backward pass: {told}."


PARAMETERS = Column("parameters", size("parameters"))
SEEDS = Column("seeds", lambda runs: str(len(runs)))
SECONDS = Column("seconds", lambda runs: f"{sum(run.seconds for run in runs) / len(runs):.0f}")
SWEPT_COLUMNS = {
    "lab_rank": Column("rank", lambda runs: f"{runs[0].rank}"),
    "ratio": Column("ratio", lambda runs: f"{runs[0].ratio:g}"),
    "lr": Column("rate of A", lambda runs: f"{runs[0].lr:g}"),
}
