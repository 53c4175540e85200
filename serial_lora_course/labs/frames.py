"""Records as tables: what was run, method beside method, and how the records were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.methods import METHOD_TITLES, get_method
from serial_lora_course.labs.records import Record
from serial_lora_course.measures.differences import by_method, compare

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


def compare_methods(
    results: pd.DataFrame, pairs: Iterable[tuple[str, str]], measure: str
) -> pd.DataFrame:
    """:func:`serial_lora_course.measures.differences.compare` of each pair that was run, ``methods`` first."""
    there = set(results["method"])
    found = [
        compare(results, *pair, measure).assign(
            methods=" against ".join(METHOD_TITLES[name] for name in pair)
        )
        for pair in pairs
        if set(pair) <= there
    ]
    return pd.concat(found, ignore_index=True).set_index("methods").reset_index()


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
