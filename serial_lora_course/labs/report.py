"""What a lab tells on the command line: a line for each run, and the table that closes it.

Everything is read from records. A lab differs from another in its :class:`Report` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from serial_lora_course.labs.frames import swept
from serial_lora_course.labs.methods import METHODS
from serial_lora_course.labs.records import Record
from serial_lora_course.paper_tables import paper_results

Runs = Sequence[Record]
"""Runs that differ in their seed alone."""


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, and its cell for some runs.

    Attributes:
        baseline: its cell for what costs no training, told by the beginning of the measure's name.
        folds: whether a narrow terminal may break it after a word.
    """

    heading: str
    cell: Callable[[Runs], str]
    baseline: Callable[[Record, str], str] = lambda run, prefix: ""
    folds: bool = False


@dataclass(frozen=True)
class Report:
    """How one lab is told.

    Attributes:
        title: of the table.
        amount: heading of the column with the amount of training data.
        amounts, unit: how such a number is written there, and what follows it in a sentence.
        result: what one run reached, in words.
        columns: after data set, amount and method.
        baselines: rows before those of a data set, for what costs no training: what to call each,
            and how the names of its measures begin.
        paper: the same cell in the paper, for the column that stands last at paper scale.
        caption: what to know before reading the table.
        closing: what is told below the table.
    """

    title: str
    amount: str
    amounts: str
    unit: str
    result: Callable[[Record], str]
    columns: tuple[Column, ...]
    paper: Callable[[Runs], str]
    baselines: tuple[tuple[str, str], ...] = ()
    caption: str | None = None
    closing: Callable[[Runs], str] = lambda records: ""


def run_line(record: Record, is_new: bool) -> str:
    """One finished run in one line."""
    report = REPORTS[record.task]
    end = "" if is_new else "  (already in the records)"
    short = record.sizes.get("short_classes", 0)
    if short:
        end = f"; {short} of the classes have fewer pictures and gave all they have{end}"
    return (
        f"{record.dataset}, {report.amounts.format(record.amount)}{report.unit}, "
        f"seed {record.seed}, "
        f"{METHODS[record.method].label}{_variant(record)}: {report.result(record)} "
        f"in {record.seconds:.0f} s{end}"
    )


def _variant(record: Record) -> str:
    """What a sweep changed in a run, as far as its record alone can tell."""
    ratio = f", ratio {record.ratio:g}" if METHODS[record.method].plus else ""
    return f" (rank {record.rank}{ratio})"


def results_table(records: Runs) -> Table:
    """One row for each data set, amount of training data and method, of records of one lab.

    Of a sweep, one for each rank, ratio and rate too, with a column that tells it.
    At paper scale the number that the paper prints stands beside ours. In a narrow terminal words
    are folded; a digit is never cut off.
    """
    report = REPORTS[records[0].task]
    differing = swept(records)
    columns = [SWEPT[name] for name in differing] + list(report.columns)
    if any(record.scale == "paper" for record in records):
        columns.append(Column("paper", report.paper))
    table = Table(title=report.title, caption=report.caption, box=SIMPLE_HEAD, padding=0)
    for heading in ("data set", report.amount, "method"):
        table.add_column(heading, overflow="fold")
    for column in columns:
        table.add_column(column.heading, justify="right", overflow="fold", no_wrap=not column.folds)
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        variant = tuple(getattr(record, name) for name in differing)
        key = (record.dataset, record.amount, record.method, variant)
        groups.setdefault(key, []).append(record)
    told = set()
    for (dataset, amount, method, _), runs in groups.items():
        for label, prefix in () if dataset in told else report.baselines:
            cells = (column.baseline(runs[0], prefix) for column in columns)
            table.add_row(dataset, "–", label, *cells)
        told.add(dataset)
        written, cells = report.amounts.format(amount), (column.cell(runs) for column in columns)
        table.add_row(dataset, written, METHODS[method].label, *cells)
    return table


def closing_line(records: Runs) -> str:
    """What a lab tells below its table; empty where it has nothing to add."""
    return REPORTS[records[0].task].closing(records)


# ---------------------------------------------------------------------------------- cells


def _size(name: str) -> Callable[[Runs], str]:
    return lambda runs: f"{runs[0].sizes[name]:,}"


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """The mean, and half the distance between the lowest and the highest of several."""
    spread = f" ± {form.format((max(values) - min(values)) / 2)}" if len(values) > 1 else ""
    return form.format(sum(values) / len(values)) + spread


def _measure_column(
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


def zero_shot_of(record: Record) -> float:
    """The zero-shot accuracy under the prompt that a CLIP run was trained with."""
    return record.measures[f"zero_shot_{record.settings['prompt']}"]


def _paper_cell(where: str, amounts: str, form: str) -> Callable[[Runs], str]:
    """What a table of the paper prints for the same cell, or a dash where it prints nothing.

    Where it prints two numbers (FID and CLIP-Score), both.
    """

    def cell(runs: Runs) -> str:
        table, run = paper_results(), runs[0]
        found = table[
            (table["where"] == where)
            & (table["dataset"] == run.dataset)
            & (table["amount"] == amounts.format(run.amount))
            & (table["method"] == run.method)
        ]
        return " / ".join(map(form.format, found["value"])) or "–"

    return cell


def activations(records: Runs) -> str:
    """The memory that each method's training step keeps for its backward pass, at most."""
    most: dict[str, int] = {}
    for record in records:
        kept = record.sizes["activation_bytes"]
        most[record.method] = max(kept, most.get(record.method, 0))
    told = ", ".join(f"{METHODS[name].label} {kept / 1e6:,.0f} MB" for name, kept in most.items())
    return f"Activations kept for a backward pass: {told}."


_PARAMETERS = Column("parameters", _size("parameters"))
_SEEDS = Column("seeds", lambda runs: str(len(runs)))
_SECONDS = Column("seconds", lambda runs: f"{sum(run.seconds for run in runs) / len(runs):.0f}")
SWEPT = {
    "lab_rank": Column("rank", lambda runs: f"{runs[0].rank}"),
    "ratio": Column("ratio", lambda runs: f"{runs[0].ratio:g}"),
    "lr": Column("rate of A", lambda runs: f"{runs[0].lr:g}"),
}

# ---------------------------------------------------------------------------------- the labs

CLIP = Report(
    title="CLIP few-shot classification",
    amount="shots",
    amounts="{}",
    unit=" shots",
    result=lambda record: f"{record.measures['accuracy']:.1%}",
    columns=(
        _PARAMETERS,
        Column("bytes", _size("bytes")),
        Column("zero-shot", lambda runs: f"{zero_shot_of(runs[0]):.1%}"),
        Column(
            "adapted",
            lambda runs: mean_and_spread([run.measures["accuracy"] for run in runs], "{:.1%}"),
            folds=True,
        ),
        _SEEDS,
        _SECONDS,
    ),
    paper=_paper_cell("Table III", "{} shot", "{:.2f}%"),
)

SAM = Report(
    title="SAM segmentation of boxed objects",
    amount="data",
    amounts="{}%",
    unit="",
    result=lambda record: (
        f"Dice {record.measures['dice']:.3f} (not adapted {record.measures['base_dice']:.3f}, "
        f"box filled in {record.measures['box_dice']:.3f})"
    ),
    columns=(
        _PARAMETERS,
        _measure_column("Dice", "dice", spread=True),
        _measure_column("1-Dice", "dice", complement=True),
        _measure_column("DiceCE", "dice_ce"),
        _measure_column("IoU", "iou"),
        _SEEDS,
        _SECONDS,
    ),
    paper=_paper_cell("Table IV", "{}%", "{:.4f}"),
    baselines=(("box filled in", "box_"), ("not adapted", "base_")),
    caption="Dice and IoU: higher is better. 1-Dice and DiceCE: lower is better, as in the paper's "
    "Table IV.",
    closing=activations,
)

SD3 = Report(
    title="Style tuning of Stable Diffusion 3",
    amount="data",
    amounts="{}%",
    unit="",
    result=lambda record: (
        f"FID {record.measures['fid']:.4g} (not adapted {record.measures['base_fid']:.4g}), "
        f"CLIP-Score {record.measures['clip_score']:.3f} "
        f"({record.measures['base_clip_score']:.3f})"
    ),
    columns=(
        _PARAMETERS,
        _measure_column("FID", "fid", spread=True, form="{:.4g}"),
        _measure_column("KID", "kid"),
        _measure_column("CLIP-Score", "clip_score"),
        _measure_column("in style", "style_share", form="{:.0%}"),
        _SEEDS,
        _SECONDS,
    ),
    paper=_paper_cell("Table II", "{}%", "{:g}"),
    baselines=(("real pictures", "real_"), ("not adapted", "base_")),
    caption="FID and KID to held-out pictures of the style: lower is better. CLIP-Score, and the "
    "share that a style classifier takes for the style: higher is better.",
    closing=activations,
)

REPORTS = {"clip": CLIP, "sam": SAM, "sd3": SD3}
