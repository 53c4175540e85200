"""Tables in a notebook, and what a table must have before it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from serial_lora.errors import SerialLoRAError


def display_table(frame: pd.DataFrame) -> None:
    """Show a table in a notebook with its words to the left and its numbers to the right.

    pandas' own form sets everything to the right, which makes a column of sentences hard to read.
    Cells may hold Markdown; the index is not shown.
    """
    from IPython.display import display

    words = [str(name) for name in frame.columns]
    rules = ["---:" if _holds_numbers(frame[name]) else ":---" for name in frame.columns]
    rows = [[_cell_text(cell) for cell in row] for row in frame.itertuples(index=False)]
    lines = ["| " + " | ".join(row) + " |" for row in (words, rules, *rows)]
    data = {"text/markdown": "\n".join(lines), "text/plain": frame.to_string(index=False)}
    display(data, raw=True)


def _holds_numbers(column: pd.Series) -> bool:
    """Whether every cell is a number, be it as text or in bold."""
    texts = column.astype(str).str.strip("*").str.replace(",", "")
    return bool(pd.to_numeric(texts, errors="coerce").notna().all())


def _cell_text(cell: Any) -> str:
    if isinstance(cell, (float, np.floating)):
        return f"{cell:,.2f}"
    if isinstance(cell, (int, np.integer)) and not isinstance(cell, bool):
        return f"{cell:,}"
    return str(cell).replace("|", "\\|")


def require_columns(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Refuse a table without rows or without one of the columns.

    Raises:
        SerialLoRAError: a column is missing or there are no rows.
    """
    columns = list(columns)
    missing = [name for name in columns if name not in frame.columns]
    if missing or frame.empty:
        what = f"lacks {', '.join(missing)}" if missing else "has no rows"
        raise SerialLoRAError(f"the table {what}; it needs rows with {', '.join(columns)}.")
