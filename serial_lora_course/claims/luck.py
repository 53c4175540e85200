"""How many best cells of a table luck gives, for the appendix, lesson 13."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from serial_lora_course.claims.evidence import MEASURES, printed_scores
from serial_lora_course.labs.methods import METHOD_TITLES


def best_cells(tables: np.ndarray) -> np.ndarray:
    """How many cells each method is best in: (tables, data sets, amounts, methods) -> (tables, methods)."""
    winners = tables.argmax(axis=-1)[..., None] == np.arange(tables.shape[-1])
    return winners.sum(axis=(1, 2))


def printed_wins(paper: pd.DataFrame, measure: str) -> pd.Series:
    """In how many of the paper's cells each method is best, by a measure; the most first."""
    return printed_scores(paper, MEASURES[measure]).idxmax(axis=1).value_counts()


def read_wins(wins: pd.Series, luck: Mapping[str, np.ndarray]) -> str:
    """The paper's best cells, and how often luck gives as many in each way to count."""
    most = int(wins.max())
    said = ", ".join(f"{METHOD_TITLES[name]} {count}" for name, count in wins.items())
    shares = "; ".join(f"{name} {(counts >= most).mean():.1%}" for name, counts in luck.items())
    return (
        f"The best cells of Table III are: {said}. By luck, {most} or more: {shares} of the tables."
    )
