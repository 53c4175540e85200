"""Checks of the exercises on how sure a result is: an interval, a margin, many questions, how many sets.

Expected values come from Python's statistics module, from every value of an interval, and from Holm's
definition.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

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


@exercise("8.2", "fourteen verdicts agree with a test of many values of each interval")
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
    ):
        what = f"the verdict on {mean:+} ± {half}, margin {margin}"
        advice = (
            "the words are holds, fails and open: draw the interval and the margin for this case"
        )
        yield Case(what, (mean, half, margin), by_points(mean, half, margin), advice=advice)


def by_definition(ps: list[float]) -> list[float]:
    """A p value's corrected one is the largest of (how many are not smaller) x p, of it and all smaller."""
    return [
        min(1.0, max(p * sum(other >= p for other in ps) for p in ps if p <= mine)) for mine in ps
    ]


@exercise(
    "8.3", "six lists of p values, sorted and unsorted, are corrected as in Holm's definition"
)
def holm() -> Iterator[Case]:
    """Against Holm's definition, value by value."""
    for ps in (
        [0.01, 0.04, 0.03, 0.005],
        [0.5, 0.012, 0.011, 0.4, 0.6],
        [0.001, 0.02, 0.021, 0.9],
        [0.04],
        [0.03, 0.2, 0.03, 0.011],
        [0.1, 0.101, 0.102, 0.103, 0.9],
    ):
        what, form = (
            f"the corrected p values of {ps}",
            "return a list with one corrected p value for each",
        )
        yield Case(what, (ps,), by_definition(ps), form=form)


@exercise("8.4", "seven numbers of data sets are enough, and one set fewer is not")
def sets_needed() -> Iterator[Case]:
    """All numbers of data sets at once, from Student's distribution by its inverse in scipy.special."""
    n = np.arange(2, 1000)
    for spread, distance, questions, share in (
        (0.2, 1.0, 1, 0.8),
        (2.0, 1.0, 1, 0.8),
        (2.0, 1.0, 6, 0.9),
        (11.0, 5.0, 3, 0.8),
        (0.5, 1.5, 1, 0.6),
        (0.01, 5.0, 1, 0.8),
        (2.5, 0.5, 1, 0.95),
    ):
        room = special.stdtrit(n - 1, 1 - 0.05 / questions / 2) + special.stdtrit(n - 1, share)
        expected = int(n[room <= distance * np.sqrt(n) / spread].min())
        what = f"the sets needed for a spread of {spread:g}, a distance of {distance:g}, {questions} question(s) and a share of {share:.0%}"
        yield Case(what, (spread, distance, questions, share), expected)
