"""What the paper's claims are judged by: its own tables, and the records that the course ships.

Measures come in different units and directions. Here each is turned into a *score* of which more is
better, so that a difference between two methods reads the same everywhere: above zero speaks for
the first one. Distances (FID) are compared by their ratio, since one style's may be ten times
another's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs import frames
from serial_lora_course.labs.frames import by_method, frame
from serial_lora_course.labs.records import Record, shipped_records
from serial_lora_course.paper_tables import paper_results
from serial_lora_course.study.found import Answer, read_found
from serial_lora_course.study.statistics import Interval, sets_like_these, these_sets

Score = Callable[[pd.Series], pd.Series]


@dataclass(frozen=True)
class Measure:
    """One measure, in the records and in the paper's tables.

    Attributes:
        task: the lab whose records hold it.
        column, base: its column in the records, and that of the unadapted model.
        printed: its name in the paper's tables.
        unit: of a difference between two scores, in words.
        margin: the difference that is still called comparable, in that unit.
        printed_unit, printed_margin: the same of the paper's tables, where those have another measure.
        score, printed_score: from the numbers there to scores, more being better.
    """

    task: str
    column: str
    base: str
    printed: str
    unit: str
    margin: float
    score: Score = field(repr=False)
    printed_score: Score = field(repr=False)
    printed_unit: str | None = None
    printed_margin: float | None = None


def _hundredfold(values: pd.Series) -> pd.Series:
    return 100 * values


def _negative_log_percent(values: pd.Series) -> pd.Series:
    return -100 * np.log(values)


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(
        task="clip",
        column="accuracy",
        base="zero_shot_dataset",
        printed="accuracy_percent",
        unit="points",
        margin=1.0,
        score=_hundredfold,
        printed_score=lambda percent: percent,
    ),
    "dice": Measure(
        task="sam",
        column="dice",
        base="base_dice",
        printed="dice_as_printed",
        unit="hundredths of Dice",
        margin=1.0,
        score=_hundredfold,
        printed_score=lambda loss: -100 * loss,
    ),
    "fid": Measure(
        task="sd3",
        column="fid",
        base="base_fid",
        printed="fid",
        unit="% of FID",
        margin=5.0,
        score=_negative_log_percent,
        printed_score=_negative_log_percent,
    ),
    "style": Measure(
        task="sd3",
        column="style_share",
        base="base_style_share",
        printed="clip_score",
        unit="points of style share",
        margin=5.0,
        score=_hundredfold,
        printed_score=_hundredfold,
        printed_unit="hundredths of CLIP-Score",
        printed_margin=1.0,
    ),
}
"""The measures of the paper's Tables II-IV. Its Dice is read as it says: lower is more accurate."""

RECORDS = ("clip", "sam", "sd3", "clip_rank", "spectra")
"""The shipped records that claims are judged by."""


class NoRecords(SerialLoRAError):
    """Records that a claim is judged by are not there."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"There are no records {name}_tiny.jsonl in serial_lora_course/assets/records; run the lab "
            "and put them there."
        )


@dataclass(frozen=True)
class Evidence:
    """Everything that verdicts are computed from.

    Attributes:
        records: one row a run for each of `RECORDS`, as :func:`run_frame` gives it; empty where
            nothing is shipped.
        paper: the paper's tables, as :func:`serial_lora_course.paper_tables.paper_results` gives
            them.
        study: what is known of the study's questions by now.
    """

    records: Mapping[str, pd.DataFrame]
    paper: pd.DataFrame
    study: Sequence[Answer] = ()

    def runs(self, name: str) -> pd.DataFrame:
        """The records of one name.

        Raises:
            NoRecords: nothing is shipped under it.
        """
        runs = self.records.get(name)
        if runs is None or runs.empty:
            raise NoRecords(name)
        return runs


def run_frame(records: Sequence[Record]) -> pd.DataFrame:
    """Records as one row a run; also the ``lab`` that they come from."""
    rows = frame(records)
    if len(rows):
        rows["lab"] = [record.settings.get("lab", record.task) for record in records]
    return rows


def load_evidence() -> Evidence:
    """The shipped records and the paper's tables."""
    records = {name: run_frame(shipped_records(name)) for name in RECORDS}
    return Evidence(records, paper_results(), read_found().answers)


# --------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class Difference:
    """How far one method's score is above another's, over runs that saw the same pictures.

    Attributes:
        mean, error: over pairs, in the measure's unit, and its standard error; nan for one pair.
        pairs: how many; the unit is a data set and a seed, amounts of data averaged first, since
            a seed's small training sets lie inside its large ones.
        datasets, seeds: how many there are of each.
        like, these: 95% intervals for sets like these and for these sets; None where there are not two
            sets, or two seeds in each.
        above, cells: cells (a data set and an amount) whose mean over seeds is above, of how many.
        unit: in words.
    """

    mean: float
    error: float
    pairs: int
    datasets: int
    seeds: int
    above: int
    cells: int
    unit: str
    like: Interval | None = None
    these: Interval | None = None

    @property
    def decides(self) -> Interval | None:
        """The interval that a verdict follows."""
        return self.like or self.these

    def __str__(self) -> str:
        return f"{self.interval} {self.unit} ({self.size}; {self.above} of {self.cells} cells)"

    @property
    def interval(self) -> str:
        """The mean, and behind ± half of the interval for sets like these, and for these sets."""
        like = f" ± {self.like.half_width:.2f}" if self.like else ""
        these = f" (these sets ± {self.these.half_width:.2f})" if self.these else ""
        return f"{self.mean:+.2f}{like}{these}"

    @property
    def size(self) -> str:
        """How many data sets and seeds it stands on."""
        return (
            f"{self.datasets} set{'s' * (self.datasets > 1)} x "
            f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        )


def scores(runs: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Scores with a row for each data set, amount and seed, and a column for each method."""
    return by_method(_scored(runs, measure), "score")


def paired(
    runs: pd.DataFrame,
    measure: Measure,
    one: str,
    other: str,
    amounts: Collection[int] | None = None,
) -> pd.Series:
    """Score of ``one`` minus score of ``other``, for each data set, amount and seed of both.

    Raises:
        SerialLoRAError: the two have no such run in common.
    """
    if amounts is not None:
        runs = runs[runs["amount"].isin(amounts)]
    return frames.paired(_scored(runs, measure), one, other, "score")


def gains(runs: pd.DataFrame, measure: Measure, method: str) -> pd.Series:
    """How far a method's score is above the unadapted model's, a value a run."""
    own = runs[runs["method"] == method].set_index(["dataset", "amount", "seed"])
    return measure.score(own[measure.column]) - measure.score(own[measure.base])


def _scored(runs: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    return runs.assign(score=measure.score(runs[measure.column]))


def summarise(difference: pd.Series, unit: str) -> Difference:
    """Mean, standard error and cells of what :func:`paired` or :func:`gains` gives."""
    pairs = difference.groupby(level=["dataset", "seed"]).mean()
    cells = difference.groupby(level=["dataset", "amount"]).mean()
    return Difference(
        mean=float(pairs.mean()),
        error=float(pairs.sem()),
        pairs=len(pairs),
        datasets=pairs.index.get_level_values("dataset").nunique(),
        seeds=pairs.index.get_level_values("seed").nunique(),
        above=int((cells > 0).sum()),
        cells=len(cells),
        unit=unit,
        **intervals(pairs),
    )


def intervals(pairs: pd.Series) -> dict[str, Interval | None]:
    """``like`` and ``these`` of a :class:`Difference`, from one number for each data set and seed."""
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
