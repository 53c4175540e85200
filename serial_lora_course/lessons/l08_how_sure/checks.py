"""Checks of the exercises on how sure a result is: an interval, a margin, false positives, how many sets.

Expected values come from Python's statistics module, from every value of an interval, and from the normal
distribution.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator

import numpy as np
from scipy import special, stats

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


@exercise(
    "8.1",
    "means and half-widths equal those of Python's statistics module, for two, five and twelve data sets",
)
def interval() -> Iterator[Case]:
    """Against the statistics module, Student's quantiles from scipy."""
    chance = np.random.default_rng(11)
    for sets, seeds in ((5, 3), (2, 4), (12, 2)):
        given = chance.normal(size=(sets, 1)) + 0.4 + 0.3 * chance.normal(size=(sets, seeds))
        sample = [statistics.fmean(row) for row in given.tolist()]
        half = stats.t.isf(0.025, sets - 1) * statistics.stdev(sample) / math.sqrt(sets)
        yield Case(
            f"the interval of {sets} data sets with {seeds} seeds each",
            (given,),
            Parts({"the mean": statistics.fmean(sample), "half of the width": float(half)}),
            form="return two numbers: the mean, and half of the interval's width",
        )


def by_points(mean: float, half: float, margin: float) -> str:
    """By asking the values of the interval: all, none, or some of them are good enough."""
    good = [mean + half * step / 500 > -margin for step in range(-500, 501)]
    return "holds" if all(good) else "open" if any(good) else "fails"


@exercise("8.2", "sixteen verdicts agree with a test of many values of each interval")
def comparable() -> Iterator[Case]:
    """Against asking every value of the interval."""
    for mean, half, margin in (
        (0.1, 0.8, 1.0),
        (-0.6, 0.3, 1.0),
        (-0.7, 0.8, 1.0),
        (-0.9, 0.5, 1.0),
        (-1.3, 0.8, 1.0),
        (-2.3, 0.8, 1.0),
        (3.0, 1.0, 1.0),
        (0.5, 2.2, 0.5),
        (-0.1, 0.3, 0.5),
        (-4.5, 2.0, 2.0),
        (1.5, 0.2, 1.0),
        (0.8, 0.5, 1.0),
        (-0.4, 0.8, 1.0),
        (-1.6, 0.8, 1.0),
        (-0.4, 0.3, 0.0),
        (0.4, 0.3, 0.0),
    ):
        what = f"the verdict on {mean:+} ± {half}, margin {margin}"
        advice = (
            "the words are holds, fails and open: draw the interval and the margin for this case"
        )
        yield Case(what, (mean, half, margin), by_points(mean, half, margin), advice=advice)


def fixed(half: float) -> Callable:
    """An interval of a fixed width around the mean."""
    return lambda study: (study.mean(), half)


def half_the_sets(study: np.ndarray) -> tuple[float, float]:
    """The 50% interval over data sets by Student's t."""
    sample = study.mean(axis=1)
    error = sample.std(ddof=1) / math.sqrt(len(sample))
    return sample.mean(), special.stdtrit(len(sample) - 1, 0.75) * error


class Notes:
    """An interval that keeps the studies that it was asked about."""

    def __init__(self) -> None:
        self.studies: list[np.ndarray] = []

    def __call__(self, study: np.ndarray) -> tuple[float, float]:
        self.studies.append(np.array(study, dtype=float))
        return 2.0, 1.0


SHAPE, SETS, RUNS, ALL, SHARE = (
    "the shape of a study",
    "the mean square of the data sets' means",
    "the variance of the runs of a data set",
    "the mean square of the studies' means",
    "the share, where every interval leaves out zero",
)


def read_notes(share: float, notes: Notes, *_: object) -> dict[str, object]:
    """What the simulated studies were like."""
    studies = np.stack(notes.studies)
    return {
        SHAPE: list(studies.shape[1:]),
        SETS: float((studies.mean(axis=2) ** 2).mean()),
        RUNS: float(studies.var(axis=2, ddof=1).mean()),
        ALL: float((studies.mean(axis=(1, 2)) ** 2).mean()),
        SHARE: share,
    }


@exercise(
    "8.3",
    "the simulated studies vary as they should between data sets and between seeds, and the share of false "
    "positives agrees with the normal distribution",
)
def false_positives() -> Iterator[Case]:
    """Against variances, and shares that are known exactly; of so many studies, within five standard errors."""
    for half, sets, seeds, between, within in ((0.5, 4, 3, 1.0, 0.5), (0.3, 9, 2, 0.2, 1.0)):
        error = math.sqrt(between**2 / sets + within**2 / (sets * seeds))
        yield Case(
            f"the share of false positives of a fixed interval, ± {half}, with {sets} data sets and {seeds} seeds",
            (fixed(half), sets, seeds, between, within, 2500),
            2 * statistics.NormalDist().cdf(-half / error),
            tolerance=0.2,
        )
    yield Case(
        "the share of false positives of a 50% interval over five data sets",
        (half_the_sets, 5, 10, 0.3, 0.2, 2500),
        0.5,
        tolerance=0.08,
    )
    sets, seeds, between, within = 5, 4, 2.0, 1.0
    of_sets = between**2 + within**2 / seeds
    yield Case(
        "the simulated studies",
        (Notes(), sets, seeds, between, within, 1500),
        Parts(
            {
                SHAPE: [sets, seeds],
                SETS: of_sets,
                RUNS: within**2,
                ALL: of_sets / sets,
                SHARE: 1.0,
            }
        ),
        read=read_notes,
        tolerance=0.2,
        may_change=True,  # it keeps what it was given
    )


@exercise("8.4", "seven numbers of data sets are enough, and one set fewer is not")
def sets_needed() -> Iterator[Case]:
    """All numbers of data sets at once, from Student's distribution by its inverse in scipy.special."""
    n = np.arange(2, 1000)
    for spread, distance, questions in (
        (0.2, 1.0, 1),
        (2.0, 1.0, 1),
        (2.0, 1.0, 6),
        (11.0, 5.0, 3),
        (0.5, 1.5, 1),
        (0.01, 5.0, 1),
        (2.5, 0.5, 1),
    ):
        room = special.stdtrit(n - 1, 1 - 0.05 / questions / 2) + special.stdtrit(n - 1, 0.8)
        expected = int(n[room <= distance * np.sqrt(n) / spread].min())
        what = f"the sets needed for a spread of {spread:g}, a distance of {distance:g} and {questions} question(s)"
        yield Case(what, (spread, distance, questions), expected)
