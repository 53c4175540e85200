"""Differences between methods, run by run, and how sure they are.

Tables have a row a run, as ``labs.frames.frame`` gives them. Two runs with the same data set, amount
and seed saw the same training pictures, so their difference is free of most of the luck of the draw.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from serial_lora.errors import SerialLoRAError
from serial_lora_course.measures.intervals import half_width

RUN = ["dataset", "amount", "seed"]


def by_method(results: pd.DataFrame, measure: str) -> pd.DataFrame:
    """A measure with one column a method; a row is what methods share: data set, amount and seed.

    Raises:
        SerialLoRAError: two runs share a cell, such as two ranks of one method.
    """
    if results.duplicated([*RUN, "method"]).any():
        raise SerialLoRAError(
            "Some runs share data set, amount, seed and method; pick one rank before comparing."
        )
    return results.pivot(index=RUN, columns="method", values=measure)


def paired(results: pd.DataFrame, one: str, other: str, measure: str) -> pd.Series:
    """A measure of method ``one`` minus that of ``other``, a value for each run of both.

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


def compare(results: pd.DataFrame, one: str, other: str, measure: str) -> pd.DataFrame:
    """How far method ``one`` is above ``other`` on the same pictures, a row an amount of data.

    Args:
        results: of one rank.
        measure: a column of which more is better.

    Returns:
        Columns ``amount``, ``mean`` difference, its standard error ``sem``, ``sample`` in words, and
        ``verdict``: "ahead" or "behind" where the 95% interval by Student's t is above or below 0,
        else "not significant".

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
    return table.reset_index()
