"""Records as tables: what was run, method beside method, and how the records were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.methods import METHOD_TITLES, get_method
from serial_lora_course.labs.records import Record
from serial_lora_course.measures.intervals import half_width

RUN = ("task", "scale", "dataset", "method", "amount", "unit", "seed", "rank")
SWEPT = ("lab_rank", "ratio", "lr")


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record: what was run, and each measure and size as a column.

    ``rank`` is the adapter's, ``lab_rank`` the lab's; ``lr`` is the rate of A, ``ratio`` that of B
    over it.
    """
    columns = (*RUN, *SWEPT, "seconds")
    return pd.DataFrame(
        {name: getattr(record, name) for name in columns} | record.measures | record.sizes
        for record in records
    )


def swept(records: Iterable[Record]) -> list[str]:
    """Which of ``lab_rank``, ``ratio``, ``lr`` (the rate of A) differ between a method's runs."""
    found = frame(records).groupby("method")[list(SWEPT)].nunique().max()
    return [name for name, values in found.items() if values > 1]


def describe_records(records: Sequence[Record]) -> str:
    """What records of one lab are and how they were made: runs, command, settings, machine.

    Raises:
        SerialLoRAError: there are no records.
    """
    if not records:
        raise SerialLoRAError("There are no records to describe; run the lab first.")
    results = frame(records)
    first, *others = (record.settings.items() for record in records)
    shared = {k: v for k, v in first if k != "data" and all((k, v) in other for other in others)}
    if all(get_method(r.method).plus and r.settings.get("plus_lr") is not None for r in records):
        shared.pop("lr", None)  # no run used it: they have a rate of their own
    commands = dict.fromkeys(record.command or "not noted" for record in records)
    machines = {record.environment.get("device", "not noted") for record in records}
    lines = [
        f"{_number(len(records), 'run')}: {_number(results['dataset'].nunique(), 'data set')}, "
        f"{_number(results['method'].nunique(), 'method')}, "
        f"{records[0].unit} {sorted(results['amount'].unique().tolist())}, "
        f"{_number(results['seed'].nunique(), 'seed')}, "
        f"{results['seconds'].sum() / 60:.0f} minutes of training",
        *(f"command: {command}" for command in commands),
        "settings:",
        json.dumps(shared, sort_keys=True),
        f"machine: {' '.join(sorted(machines))}",
    ]
    return "\n".join(lines)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


# ------------------------------------------------------------------------- methods beside methods


def by_method(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure with one column a method; a row is what methods share: data set, amount and seed.

    Raises:
        SerialLoRAError: two runs share a cell, such as two ranks of one method.
    """
    index = ["dataset", "amount", "seed"]
    if results.duplicated([*index, "method"]).any():
        raise SerialLoRAError(
            "Some runs share data set, amount, seed and method; pick one rank before comparing."
        )
    return results.pivot(index=index, columns="method", values=measure)


def paired(results: pd.DataFrame, one: str, other: str, measure: str) -> pd.Series:
    """A measure of method ``one`` minus that of ``other``, a value for each run of both.

    Two runs with the same data set, amount and seed saw the same training pictures, so their
    difference is free of most of the luck of the draw.

    Raises:
        SerialLoRAError: the two methods have no runs to pair.
    """
    wide = by_method(results, measure)
    missing = [method for method in (one, other) if method not in wide.columns]
    difference = pd.Series(dtype=float) if missing else (wide[one] - wide[other]).dropna()
    if difference.empty:
        raise SerialLoRAError(
            f"{one} and {other} have no run with the same data set, amount and seed; run both."
        )
    return difference


def methods_table(
    results: pd.DataFrame, measure: str, write: Callable[[float, float], str]
) -> pd.DataFrame:
    """One row a method: its parameters, and the mean over data sets for each amount of data.

    Only combinations that every method ran are averaged, so that all averages are over the same.

    Args:
        results: as :func:`frame` gives them, of one lab and rank.
        measure: the column to average.
        write: (mean, standard deviation over seeds) -> what stands in the table.
    """
    everywhere = by_method(results, measure).dropna()
    by_seed = everywhere.groupby(["amount", "seed"]).mean().groupby("amount")
    mean, spread = by_seed.mean(), by_seed.std()  # rows: amounts, columns: methods
    parameters = results.groupby("method")["parameters"].first()
    rows = {
        METHOD_TITLES[method]: {"parameters": f"{parameters[method]:,}"}
        | {n: write(mean.loc[n, method], spread.loc[n, method]) for n in mean.index}
        for method in METHOD_TITLES
        if method in mean.columns
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis(columns=results["unit"].iloc[0])


def sample_of(values: pd.Series | pd.DataFrame) -> pd.Series | pd.DataFrame:
    """What an interval counts as one measurement each: data sets, each the mean of its runs.

    Runs on one data set are no independent sample of data sets. Of a single set the seeds are the
    sample.

    Args:
        values: a row for each data set and seed (and amount), which are levels of its index.
    """
    several = values.index.get_level_values("dataset").nunique() > 1
    return values.groupby(level="dataset" if several else "seed").mean()


def sample_in_words(sample: pd.Series | pd.DataFrame) -> str:
    """How many measurements :func:`sample_of` found, and of what: such as ``6 sets``."""
    return _number(len(sample), "set" if sample.index.name == "dataset" else "seed")


def paired_difference(results: pd.DataFrame, one: str, other: str, measure: str) -> pd.DataFrame:
    """How far method ``one`` is above ``other`` on the same pictures, by amount of data.

    Runs on one data set are no independent sample of data sets, so the sample is the sets, each the
    mean of its seeds; of a single set it is the seeds.

    Args:
        results: as :func:`frame` gives them, of one rank.
        measure: a column of which more is better.

    Returns:
        Columns ``methods`` (both in words), ``amount``, ``mean`` difference, its standard error
        ``sem``, ``sample`` in words, and ``verdict``: "ahead" or "behind" where the 95% interval by
        Student's t is above or below 0, else "not significant".

    Raises:
        SerialLoRAError: the two methods have no runs to pair.
    """
    each = paired(results, one, other, measure)
    what = "sets" if each.index.get_level_values("dataset").nunique() > 1 else "seeds"
    by = ["amount", "dataset"] if what == "sets" else each.index.names
    table = each.groupby(by).mean().groupby("amount").agg(["mean", "sem", "count"])
    mean, bound = table["mean"], half_width(table["sem"], table["count"] - 1)
    table["sample"] = table.pop("count").map(lambda count: f"{count} {what}")
    clear = [mean > bound, mean < -bound]
    table["verdict"] = np.select(clear, ["ahead", "behind"], "not significant")
    table.insert(0, "methods", f"{METHOD_TITLES[one]} against {METHOD_TITLES[other]}")
    return table.reset_index()


def on_front(table: pd.DataFrame, measure: str, cost: str = "parameters") -> pd.DataFrame:
    """The rows that no other one beats at the same cost or less, from the cheapest.

    Args:
        measure: a column of which more is better.
        cost: one of which less is.
    """
    ordered = table.dropna(subset=[cost]).sort_values([cost, measure], ascending=[True, False])
    best = ordered[measure].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered[measure] > best]


def as_text(table: pd.DataFrame, formats: Mapping[str, str]) -> pd.DataFrame:
    """The table with some columns written out, each in its own format, such as ``{:.1%}``."""
    return table.assign(**{name: table[name].map(text.format) for name, text in formats.items()})
