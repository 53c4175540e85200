"""The paper's tables: its numbers as printed, nothing corrected."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import pandas as pd


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
