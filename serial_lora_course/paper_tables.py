"""The paper's tables: its numbers as printed, nothing corrected."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd

from serial_lora.errors import require_choice
from serial_lora_course.labs.methods import METHOD_TITLES


@cache
def _paper() -> dict[str, Any]:
    asset = resources.files("serial_lora_course") / "assets" / "paper_tables.json"
    return json.loads(asset.read_text(encoding="utf-8"))


def paper_results() -> pd.DataFrame:
    """Tables II-IV in long form.

    Columns: where, model, dataset, method, amount, metric, better ("higher" or "lower", as the
    paper says), value. Nothing is corrected.
    """
    return pd.DataFrame(_paper()["results"])


def paper_table(where: str) -> pd.DataFrame:
    """One of "Table II", "Table III" and "Table IV", laid out as the paper lays it out.

    Raises:
        SerialLoRAError: there is no such table of results.
    """
    results = paper_results()
    require_choice("table of results", where, sorted(set(results["where"])))
    rows = results[results["where"] == where]
    columns = ["dataset"] if rows["metric"].nunique() == 1 else ["dataset", "metric"]
    order = [tuple(pair) for pair in rows[["amount", "method"]].drop_duplicates().to_numpy()]
    wide = rows.pivot(index=["amount", "method"], columns=columns, values="value").loc[order]
    named = [(amount, METHOD_TITLES[method]) for amount, method in wide.index]
    wide.index = pd.MultiIndex.from_tuples(named, names=["amount", "method"])
    return wide
