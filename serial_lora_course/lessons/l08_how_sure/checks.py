"""Checks of the exercises on how sure a result is: an interval, a margin, many questions, a rank.

Expected values come from Python's statistics module, from every value of an interval, and from Holm's
definition.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise

# ------------------------------------------------------------------ 8.1 an interval over data sets


def over(
    sample: Callable = lambda d: d.mean(axis=1),
    quantile: Callable = lambda n: stats.t.ppf(0.975, n - 1),
    error: Callable = lambda s: s.std(ddof=1) / len(s) ** 0.5,
    form: Callable = lambda mean, half: (mean, half),
) -> Callable:
    """Mean and half-width, with one thing changed."""

    def attempt(differences):
        values = sample(differences)
        half = quantile(len(values)) * error(values)
        return form(float(values.mean()), float(half))

    return attempt


@exercise(
    "8.1",
    "means and half-widths for two, five and twelve data sets, by another road",
    {
        "all runs are counted as independent: average each data set over its seeds first": (
            over(np.ravel),
            over(np.ravel, lambda n: 2),
            over(np.ravel, lambda n: 2, lambda s: s.std() / len(s) ** 0.5),
        ),
        "averaged over data sets: it's the seeds that are averaged, axis=1": over(
            lambda d: d.mean(axis=0)
        ),
        "two standard errors: with few data sets Student's t asks for more": over(
            quantile=lambda n: 2
        ),
        "1.96 is the quantile for endless data: take Student's t": (
            over(quantile=lambda n: 1.96),
            over(quantile=lambda n: stats.norm.ppf(0.975)),
        ),
        "the degrees of freedom are one fewer than the data sets": over(
            quantile=lambda n: stats.t.ppf(0.975, n)
        ),
        "runs are counted for the degrees of freedom: data sets are the sample": lambda d: over(
            quantile=lambda n: stats.t.ppf(0.975, d.size - 1)
        )(d),
        "the quantile leaves out 5% at each end: 2.5%, so 0.975": over(
            quantile=lambda n: stats.t.ppf(0.95, n - 1)
        ),
        "the standard deviation divides by n, numpy's default: ddof=1": over(
            error=lambda s: s.std() / len(s) ** 0.5
        ),
        "that is the deviation of the data sets, not of their mean: divide by the root of n": over(
            error=lambda s: s.std(ddof=1)
        ),
        "divided by n: by its root": over(error=lambda s: s.std(ddof=1) / len(s)),
        "divided by the root of n - 1: the deviation has its n - 1 already": over(
            error=lambda s: s.std(ddof=1) / (len(s) - 1) ** 0.5
        ),
        "that is the variance over the root of n: take the deviation": over(
            error=lambda s: s.var(ddof=1) / len(s) ** 0.5
        ),
        "the sizes of the differences are averaged: their signs matter": over(
            lambda d: abs(d).mean(axis=1)
        ),
        "divided by the root of the number of runs: data sets are the sample": lambda d: over(
            error=lambda s: s.std(ddof=1) / d.size**0.5
        )(d),
        "that is the spread of all runs: the data sets' means are the sample": lambda d: over(
            error=lambda s: d.std(ddof=1) / len(s) ** 0.5
        )(d),
        "that is the whole width: half of it": over(form=lambda mean, half: (mean, 2 * half)),
        "those are the two ends: the mean and half of the width are asked for": over(
            form=lambda mean, half: (mean - half, mean + half)
        ),
        "that is the standard error: times Student's quantile": over(quantile=lambda n: 1),
    },
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
            form="return two numbers: the mean, and half of the width",
        )


# --------------------------------------------------------------------------------- 8.2 comparable

HOLDS, FAILS, OPEN = "holds", "fails", "open"


def by_points(mean: float, half: float, margin: float) -> str:
    """By asking the values of the interval: all, none, or some of them are good enough."""
    good = [mean + half * step / 500 > -margin for step in range(-500, 501)]
    return HOLDS if all(good) else OPEN if any(good) else FAILS


def judged(
    holds: Callable = lambda low, high, margin: low > -margin,
    fails: Callable = lambda low, high, margin: high < -margin,
    words: Callable = lambda word: word,
) -> Callable:
    """The verdict by other conditions."""

    def attempt(mean, half, margin):
        low, high = mean - half, mean + half
        if holds(low, high, margin):
            return words(HOLDS)
        return words(FAILS if fails(low, high, margin) else OPEN)

    return attempt


def middle(low: float, high: float) -> float:
    """The mean that two ends have between them."""
    return (low + high) / 2


@exercise(
    "8.2",
    "fourteen cases, held against every value of their intervals",
    {
        "only the mean is looked at: the whole interval counts": judged(
            lambda low, high, m: middle(low, high) > -m, lambda low, high, m: True
        ),
        "open is taken for failed: it fails when the whole interval is below": judged(
            fails=lambda *_: True
        ),
        "open is taken for holds: the lower end must be above minus the margin": judged(
            holds=lambda low, high, m: high > -m
        ),
        "holding asks for better: above minus the margin is enough": (
            judged(lambda low, *_: low > 0, lambda low, high, m: high < 0),
            judged(lambda low, *_: low > 0),
        ),
        "that asks whether it's better by the margin: behind by it is minus the margin": (
            judged(lambda low, high, m: low > m, lambda low, high, m: high < m),
            judged(lambda low, high, m: low > m),
        ),
        "the mean decides whether it fails: the whole interval has to be below": judged(
            fails=lambda low, high, m: middle(low, high) < -m
        ),
        "an interval that leaves out zero is different, and may still be too far behind": judged(
            lambda low, high, m: low > 0 or high < 0, lambda *_: False
        ),
        "being better by more than the margin is refused: that is comparable too": (
            judged(lambda low, high, m: -m < low and high < m),
            judged(
                lambda low, high, m: -m < low and high < m,
                lambda low, high, m: high < -m or low > m,
            ),
        ),
        "it is called failed as soon as it is behind for sure: a small amount is allowed": judged(
            fails=lambda low, high, m: high < 0
        ),
        "an interval that leaves out zero isn't asked for: one above minus the margin is": judged(
            lambda low, high, m: low < 0 < high
        ),
        "half is half of the interval already: it isn't halved once more": judged(
            lambda low, high, m: (middle(low, high) + low) / 2 > -m,
            lambda low, high, m: (middle(low, high) + high) / 2 < -m,
        ),
        "holds and fails are exchanged": judged(
            words=lambda word: {HOLDS: FAILS, FAILS: HOLDS}.get(word, word)
        ),
    },
)
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
        advice = f"the words are {HOLDS}, {FAILS}, {OPEN}; draw the interval and the margin"
        yield Case(what, (mean, half, margin), by_points(mean, half, margin), advice=advice)


# ---------------------------------------------------------------------------------------- 8.3 Holm


def by_definition(ps: list[float]) -> list[float]:
    """A p value's corrected one is the largest of (how many are not smaller) x p, of it and all smaller."""
    return [
        min(1.0, max(p * sum(other >= p for other in ps) for p in ps if p <= mine)) for mine in ps
    ]


def largest_so_far(values: list[float]) -> list[float]:
    """Each the largest up to there."""
    return np.maximum.accumulate(values).tolist()


def stepwise(
    factor: Callable = lambda rank, count: count - rank,
    running: Callable = largest_so_far,
    cap: float = 1.0,
    back: Callable = lambda values, ps, order: [values[order.index(i)] for i in range(len(ps))],
    times: Callable = lambda factor, p: factor * p,
) -> Callable:
    """The smallest first: each times its factor, never below the one before; one thing changed."""

    def attempt(ps):
        order = sorted(range(len(ps)), key=ps.__getitem__)
        values = [times(factor(rank, len(ps)), ps[place]) for rank, place in enumerate(order)]
        return back(running([min(cap, value) for value in values]), ps, order)

    return attempt


def by_index(values: list[float], ps: list[float], order: list[int]) -> list[float]:
    """Each written to where its p value is first found, as ``ps.index`` does."""
    found = dict(zip((ps.index(ps[place]) for place in order), values, strict=True))
    return [found.get(i, 0.0) for i in range(len(ps))]


@exercise(
    "8.3",
    "six families of p values, sorted and unsorted, held against the definition",
    {
        "that is Bonferroni's: each further p value has one comparison fewer beside it": (
            lambda ps: [min(1.0, len(ps) * p) for p in ps]
        ),
        "a p value may not end below a smaller one's: keep the largest so far": (
            stepwise(running=list),
            stepwise(running=lambda v: [max(pair) for pair in zip(v, [0.0, *v], strict=False)]),
        ),
        "a probability stops at 1": stepwise(cap=float("inf")),
        "they are given back sorted: keep the order that came in": stepwise(
            back=lambda values, *_: values
        ),
        "the order is undone the wrong way: corrected[order] = values puts each back": stepwise(
            back=lambda values, ps, order: [values[place] for place in order]
        ),
        "the largest so far is kept in the order given, not from the smallest p": lambda ps: (
            largest_so_far(stepwise(running=list)(ps))
        ),
        "the p values are not sorted: the smallest gets the largest factor, wherever it stands": (
            lambda ps: largest_so_far([min(1.0, (len(ps) - i) * p) for i, p in enumerate(ps)])
        ),
        "equal p values share a place: each has its own, so enumerate the places": stepwise(
            back=by_index
        ),
        "the factors run the wrong way: the smallest p gets the largest": stepwise(
            lambda rank, count: rank + 1
        ),
        "that is Benjamini and Hochberg's, for another promise": (
            stepwise(lambda rank, count: count / (rank + 1)),
            stepwise(
                lambda rank, count: count / (rank + 1),
                running=lambda values: np.minimum.accumulate(values[::-1])[::-1].tolist(),
            ),
        ),
        "that is Hochberg's, from the largest p down: Holm goes up from the smallest": stepwise(
            running=lambda values: np.minimum.accumulate(values[::-1])[::-1].tolist()
        ),
        "each factor is one too small: the smallest is multiplied by their number": stepwise(
            lambda rank, count: count - rank - 1
        ),
        "that is Šidák's way, 1 - (1 - p)^n: Holm multiplies": (
            lambda ps: [1 - (1 - p) ** len(ps) for p in ps],
            stepwise(times=lambda factor, p: 1 - (1 - p) ** factor),
        ),
    },
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
        what, form = f"the corrected p values of {ps}", "a list with one corrected p value for each"
        yield Case(what, (ps,), by_definition(ps), form=form)


# ------------------------------------------------------------------------- 8.4 one standard error

SWEEPS: dict[str, dict[int, list[float]]] = {
    "a sweep that rises and stays": {
        1: [0.30, 0.31, 0.29],
        2: [0.46, 0.55, 0.64],
        3: [0.577, 0.578, 0.579],
        4: [0.580, 0.582, 0.584],
        8: [0.588, 0.590, 0.592],
        16: [0.591, 0.592, 0.593],
        32: [0.50, 0.58, 0.68],
        64: [0.58, 0.60, 0.62],
        128: [0.589, 0.589, 0.590],
    },
    "a sweep in another order of ranks": {
        16: [0.685, 0.68, 0.69],
        64: [0.69, 0.69, 0.69],
        32: [0.70, 0.74, 0.66],
        8: [0.682, 0.678, 0.686],
        4: [0.61, 0.60, 0.62],
        2: [0.69, 0.69, 0.55],
    },
    "a sweep whose best rank is clearly best": {
        4: [0.40, 0.42, 0.41],
        16: [0.60, 0.61, 0.60],
        8: [0.50, 0.51, 0.52],
    },
    "a sweep whose best rank has the same accuracy in every run": {
        4: [0.50, 0.50, 0.625],
        8: [0.75, 0.75, 0.75],
        16: [0.625, 0.625, 0.75],
    },
}


def within_bar(
    errors: float = 1.0,
    pick: Callable = min,
    middle: Callable = statistics.fmean,
    spread: Callable = lambda best, own: stats.sem(best),
    strictly: bool = False,
) -> Callable:
    """The rule of one standard error with one thing changed."""

    def attempt(sweep):
        means = {rank: statistics.fmean(runs) for rank, runs in sweep.items()}
        best = max(means, key=means.__getitem__)
        above = {
            rank: middle(sweep[rank])
            - middle(sweep[best])
            + errors * spread(sweep[best], sweep[rank])
            for rank in sweep
        }
        return pick(
            rank for rank, by in above.items() if by > 0 or (abs(by) < 1e-12 and not strictly)
        )

    return attempt


@exercise(
    "8.4",
    "the smallest rank within one standard error of the best, in four sweeps",
    {
        "that is the rank with the best mean: the smallest within one standard error of it is "
        "wanted": within_bar(errors=0),
        "the standard deviation is taken for the standard error: divide by the square root of the "
        "number of runs": within_bar(spread=lambda best, _: statistics.stdev(best)),
        "two standard errors are allowed: the rule allows one": within_bar(errors=2),
        "the spread divides by n, numpy's default: ddof=1": (
            within_bar(spread=lambda best, _: stats.sem(best, ddof=0))
        ),
        "each rank's own error is used: the bar is set by the best rank's": within_bar(
            spread=lambda _, own: stats.sem(own)
        ),
        "that is the rank of the best single run: compare means": (
            lambda sweep: max(sweep, key=lambda rank: max(sweep[rank]))
        ),
        "medians are compared: compare means": within_bar(middle=statistics.median),
        "the largest rank that is good enough is taken": within_bar(pick=max),
        "the first in the list is taken: ranks come in any order": within_bar(pick=next),
        "that is the smallest of all ranks: it has to come within one standard error of the best": (
            min
        ),
        "with no spread the best mean is the bar itself, and it is good enough: take a mean that "
        "is not below the bar": within_bar(strictly=True),
    },
)
def one_error_rank() -> Iterator[Case]:
    """Against means and errors from Python's statistics module."""
    for name, sweep in SWEEPS.items():
        means = {rank: statistics.fmean(runs) for rank, runs in sweep.items()}
        best = max(means, key=means.__getitem__)
        bar = means[best] - statistics.stdev(sweep[best]) / math.sqrt(len(sweep[best]))
        expected = min(rank for rank, mean in means.items() if mean >= bar)
        error = "a rank whose mean is on the bar is not below the bar: the best rank's own, for one"
        yield Case(f"the rank chosen from {name}", (sweep,), expected, error=error)
