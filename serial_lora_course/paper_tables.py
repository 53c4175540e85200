"""The paper's tables: its numbers as printed, nothing corrected."""

from __future__ import annotations

import json
from importlib import resources

import pandas as pd


def paper_results() -> pd.DataFrame:
    """Tables II-IV in long form.

    Columns: where, model, dataset, method, amount, metric, better ("higher" or "lower", as the
    paper says), value.
    """
    asset = resources.files("serial_lora_course") / "assets" / "paper_tables.json"
    return pd.DataFrame(json.loads(asset.read_text(encoding="utf-8"))["results"])
