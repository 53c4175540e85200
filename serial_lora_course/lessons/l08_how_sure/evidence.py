"""What methods are compared by: the records that the course ships, and the paper's own tables.

Measures come in different units and directions. Here each is turned into a *score* of which more is
better, so that a difference between two methods reads the same everywhere: above zero speaks for
the first one. Distances (FID) are compared by their ratio, since one style's may be ten times
another's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from serial_lora_course.labs.frames import frame
from serial_lora_course.labs.records import shipped_records
from serial_lora_course.measures.differences import by_method
from serial_lora_course.measures.differences import paired as paired_runs
from serial_lora_course.measures.intervals import Interval, sets_like_these, these_sets
from serial_lora_course.paper_tables import paper_results

Score = Callable[[pd.Series], pd.Series]


@dataclass(frozen=True)
class Measure:
    """One measure, in the records and in the paper's tables.

    Attributes:
        task: the lab whose records hold it.
        column, printed: its name in the records and in the paper's tables.
        unit: of a difference between two scores, in words.
        margin: the difference that is still called comparable, in that unit.
        score, printed_score: from the numbers there to scores, more being better.
    """

    task: str
    column: str
    printed: str
    unit: str
    margin: float
    score: Score = field(repr=False)
    printed_score: Score = field(repr=False)


def _times(factor: float) -> Score:
    return lambda values: factor * values


def _negative_log_percent(values: pd.Series) -> pd.Series:
    return -100 * np.log(values)


MEASURES = {
    "accuracy": Measure(
        "clip", "accuracy", "accuracy_percent", "points", 1.0, _times(100), _times(1)
    ),
    "dice": Measure(
        "sam", "dice", "dice_as_printed", "hundredths of Dice", 1.0, _times(100), _times(-100)
    ),
    "fid": Measure("sd3", "fid", "fid", "% of FID", 5.0, *[_negative_log_percent] * 2),
    "style": Measure(
        "sd3", "style_share", "clip_score", "points of style share", 5.0, *[_times(100)] * 2
    ),
}
"""The measures of the paper's Tables II-IV. Its Dice is read as it says: lower is more accurate."""


@dataclass(frozen=True)
class Evidence:
    """The shipped records by name, a row a run, and the paper's tables in long form."""

    records: Mapping[str, pd.DataFrame]
    paper: pd.DataFrame

    def runs(self, name: str) -> pd.DataFrame:
        """The records of one name."""
        return self.records[name]


def load_evidence() -> Evidence:
    """The shipped records and the paper's tables."""
    names = ("clip", "sam", "sd3", "clip_rank")
    return Evidence({name: frame(shipped_records(name)) for name in names}, paper_results())


def scores(runs: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Scores with a row for each data set, amount and seed, and a column for each method."""
    return by_method(_scored(runs, measure), "score")


def paired(runs: pd.DataFrame, measure: Measure, one: str, other: str) -> pd.Series:
    """Score of ``one`` minus score of ``other``, for each data set, amount and seed of both.

    Raises:
        SerialLoRAError: the two have no such run in common.
    """
    return paired_runs(_scored(runs, measure), one, other, "score")


def _scored(runs: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    return runs.assign(score=measure.score(runs[measure.column]))


def intervals(pairs: pd.Series) -> dict[str, Interval | None]:
    """95% intervals for sets ``like`` these and for ``these`` sets, from one number a set and seed.

    None where there are not two sets, or two seeds in each.
    """
    by_set = {name: each.to_numpy()[None] for name, each in pairs.groupby(level="dataset")}
    return {
        "like": sets_like_these(by_set) if len(by_set) > 1 else None,
        "these": these_sets(by_set) if min(each.size for each in by_set.values()) > 1 else None,
    }


def printed_scores(paper: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """The paper's cells as scores: a row for each data set and amount, a column a method."""
    rows = paper[paper["metric"] == measure.printed]
    amounts = rows["amount"].str.extract(r"(\d+)", expand=False).astype(int)
    table = rows.assign(amount=amounts, score=measure.printed_score(rows["value"]))
    return table.pivot(index=["dataset", "amount"], columns="method", values="score")
