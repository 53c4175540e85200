"""Records as tables: what was run, and what no other row beats."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from serial_lora_course.labs.records import Record

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


def separate_sets(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of a frame without CLIP's set ``everything``: it holds five of the other sets, so it
    is no measurement of its own."""
    return runs[runs["dataset"] != "everything"]


def swept(records: Iterable[Record]) -> list[str]:
    """Which of ``lab_rank``, ``ratio``, ``lr`` (the rate of A) differ between a method's runs."""
    found = frame(records).groupby("method")[list(SWEPT)].nunique().max()
    return [name for name, values in found.items() if values > 1]


def on_front(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The rows that no other one with as many parameters or fewer beats, from the smallest.

    Args:
        measure: a column of which more is better.
    """
    ordered = table.sort_values(["parameters", measure], ascending=[True, False])
    best = ordered[measure].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered[measure] > best]
