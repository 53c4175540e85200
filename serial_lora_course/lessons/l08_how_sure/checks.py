"""Checks of the exercises on how sure a result is: budgets, one standard error, pairs, signs, a margin.

Expected values come from counting entries of matrices, from Python's statistics module, from
listing every outcome of a few coins, and from asking every value of an interval.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy import stats

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise

# ---------------------------------------------------------------------- 9.1 a rank for a budget


def numel_of(*shapes: tuple[int, int]) -> int:
    """The elements of tensors of these shapes, counted by PyTorch on the meta device."""
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


def rank_by_growing(shapes: Sequence[tuple[int, int]], width: int, rank: int) -> int:
    """The largest rank of one (width, width) pair within LoRA's budget, one rank after another."""
    budget, own = sum(numel_of((rank, i), (o, rank)) for i, o in shapes), 0
    while numel_of((own + 1, width), (width, own + 1)) <= budget:
        own += 1
    return own


def budget(shapes: Sequence[tuple[int, int]], rank: int) -> int:
    """The entries of LoRA's pairs."""
    return rank * sum(map(sum, shapes))


@exercise(
    "8.1",
    "the largest rank within the budgets of five placements, fused and uneven ones too",
    {
        "four times the rank is right for four square matrices alone: add up inputs + outputs": (
            lambda shapes, width, rank: 4 * rank
        ),
        "the rank times the number of matrices is only right for square ones: a pair has "
        "rank x (inputs + outputs) entries": lambda shapes, width, rank: len(shapes) * rank,
        "only A is counted on LoRA's side: B has as many rows as the matrix has outputs": (
            lambda shapes, width, rank: rank * sum(i for i, _ in shapes) // (2 * width)
        ),
        "only B is counted on LoRA's side: A has as many columns as the matrix has inputs": (
            lambda shapes, width, rank: rank * sum(o for _, o in shapes) // (2 * width)
        ),
        "only one matrix of Serial LoRA's pair is counted: it has A and B": (
            lambda shapes, width, rank: budget(shapes, rank) // width
        ),
        "that is LoRA's budget, not yet a rank: divide by what one rank of Serial LoRA costs": (
            lambda shapes, width, rank: budget(shapes, rank)
        ),
        "the rank of LoRA is missing": lambda shapes, width, rank: budget(shapes, 1) // (2 * width),
        "turned round: that is LoRA's rank within Serial LoRA's budget": (
            lambda shapes, width, rank: rank * 2 * width // budget(shapes, 1)
        ),
        "inputs and outputs are multiplied: a pair has rank x (inputs + outputs) entries": (
            lambda shapes, width, rank: sum(rank * i * o for i, o in shapes) // (2 * width)
        ),
        "the tokens' width is squared: one rank of Serial LoRA costs 2 x width": (
            lambda shapes, width, rank: budget(shapes, rank) // width**2
        ),
        "rounded down for each matrix: add up LoRA's parameters first, then divide once": (
            lambda shapes, width, rank: sum(rank * (i + o) // (2 * width) for i, o in shapes)
        ),
        "a rank is a whole number: // rounds down": (
            lambda shapes, width, rank: budget(shapes, rank) / (2 * width)
        ),
        "rounded up: that is more than the budget": (
            lambda shapes, width, rank: -(-budget(shapes, rank) // (2 * width)),
            lambda shapes, width, rank: round(budget(shapes, rank) / (2 * width)),
        ),
    },
)
def matching_rank() -> Iterator[Case]:
    """Against the largest rank that fits, found by growing it."""
    for name, shapes, width, rank in (
        ("q, k and v, four query heads to one key head", [(64, 64), (64, 16), (64, 16)], 64, 9),
        ("q, k, v and out", [(64, 64)] * 4, 64, 8),
        ("q, k and v", [(48, 48)] * 3, 48, 5),
        ("a fused qkv", [(40, 120)], 40, 6),
        ("a wide output", [(32, 56), (56, 32)], 32, 5),
    ):
        what = f"the rank within the budget of LoRA of rank {rank} on {name}"
        yield Case(what, (shapes, width, rank), rank_by_growing(shapes, width, rank))


# ------------------------------------------------------------------------ 9.2 one standard error

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
    },
    "a sweep with runs that fell out of line": {
        8: [0.52, 0.53, 0.66],
        4: [0.50, 0.56, 0.57],
        2: [0.59, 0.60, 0.30],
    },
    "a sweep whose runs rise and fall together": {
        16: [0.50, 0.60, 0.70],
        8: [0.48, 0.58, 0.68],
        4: [0.47, 0.55, 0.63],
    },
    "a sweep whose best rank is clearly best": {
        4: [0.40, 0.42, 0.41, 0.41],
        16: [0.60, 0.61, 0.60, 0.61],
        8: [0.50, 0.51, 0.52, 0.51],
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
    spread: Callable = lambda best, own: stats.sem(best),
    centre: Callable = statistics.fmean,
    strictly: bool = False,
) -> Callable:
    """The rule of one standard error with one thing changed."""

    def attempt(sweep):
        best = max(sweep, key=lambda rank: statistics.fmean(sweep[rank]))
        highest = max(map(centre, sweep.values()))
        bars = {rank: highest - errors * spread(sweep[best], runs) for rank, runs in sweep.items()}
        return pick(
            rank
            for rank, runs in sweep.items()
            if centre(runs) > bars[rank] or (centre(runs) == bars[rank] and not strictly)
        )

    return attempt


@exercise(
    "8.2",
    "the smallest rank within one standard error of the best, in six sweeps",
    {
        "that is the rank with the best mean: the smallest within one standard error of it is "
        "wanted": within_bar(errors=0),
        "the standard deviation is taken for the standard error: divide by the square root of the "
        "number of runs": within_bar(spread=lambda best, _: statistics.stdev(best)),
        "two standard errors are allowed: the rule allows one": within_bar(errors=2),
        "the spread divides by n: with few runs n - 1 is needed, torch's default and not numpy's": (
            within_bar(spread=lambda best, _: stats.sem(best, ddof=0))
        ),
        "each rank's own error is used: the bar is set by the best rank's": within_bar(
            spread=lambda _, own: stats.sem(own)
        ),
        "the error of the paired differences is used: the bar is set by the best rank's own runs": (
            within_bar(spread=lambda best, own: stats.sem(np.subtract(best, own)))
        ),
        "medians are compared: the rule is about means": within_bar(centre=statistics.median),
        "that is the rank of the best single run: compare means": (
            lambda sweep: max(sweep, key=lambda rank: max(sweep[rank]))
        ),
        "the largest rank is taken: the smallest that is good enough is wanted": max,
        "the largest rank that is good enough is taken": within_bar(pick=max),
        "the first in the list is taken: ranks come in any order": within_bar(pick=next),
        "that is the smallest of all ranks: it has to come within one standard error of the best": (
            min
        ),
        "that is a mean, not a rank": lambda sweep: max(map(statistics.fmean, sweep.values())),
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


# ------------------------------------------------------------------------ 9.3 paired differences


def paired(
    change: Callable = lambda mean, error, sample: (mean, error), sample: Callable | None = None
) -> Callable:
    """Mean and error of the differences, changed, or of another sample of them."""

    def attempt(one, other):
        d = (sample or sets_or_seeds)((one - other).numpy())
        return tuple(map(float, change(d.mean(), stats.sem(d), d)))

    return attempt


def sets_or_seeds(difference: np.ndarray) -> np.ndarray:
    """The sets' means; of a single set its seeds."""
    return difference.mean(axis=1) if len(difference) > 1 else difference[0]


def two_groups(one, other):
    """As if the runs were not paired."""
    first, second = (sets_or_seeds(values.numpy()) for values in (one, other))
    return float(first.mean() - second.mean()), math.hypot(stats.sem(first), stats.sem(second))


@exercise(
    "8.3",
    "mean and standard error over six sets, over four, and over the seeds of one",
    {
        "the sign is turned round: one minus other": paired(lambda m, e, d: (-m, e)),
        "the sizes of the differences are averaged: their signs matter": paired(
            sample=lambda d: sets_or_seeds(abs(d))
        ),
        "that is in hundredths: return it in the unit in which it came": paired(
            lambda m, e, d: (100 * m, 100 * e)
        ),
        "that is the median: the mean of the differences is wanted": paired(
            lambda m, e, d: (statistics.median_low(d), e)
        ),
        "turned round: the mean first, then its error": paired(lambda m, e, d: (e, m)),
        "that is the standard deviation: divide by the square root of n": paired(
            lambda m, e, d: (m, d.std(ddof=1))
        ),
        "divided by n, not by its square root": paired(lambda m, e, d: (m, d.std(ddof=1) / len(d))),
        "divided by the root of n - 1: the deviation has its n - 1 already, the error is divided by "
        "the root of n": paired(lambda m, e, d: (m, d.std(ddof=1) / math.sqrt(len(d) - 1))),
        "the spread divides by n: with few measurements n - 1 is needed, torch's default": paired(
            lambda m, e, d: (m, stats.sem(d, ddof=0))
        ),
        "all runs are counted as independent: those of one data set are not, so average them first": (
            paired(sample=np.ravel)
        ),
        "that is over the seeds, averaged over sets: several sets are the sample": paired(
            sample=lambda d: d.mean(axis=0)
        ),
        "divided by the root of the number of runs: of several sets there are as many measurements "
        "as sets": lambda one, other: (
            float((one - other).mean()),
            float(sets_or_seeds((one - other).numpy()).std(ddof=1)) / math.sqrt(one.numel()),
        ),
        "that is the error of two separate groups: take the differences first, run by run": (
            two_groups
        ),
        "that is the variance over n: the square root is missing": paired(
            lambda m, e, d: (m, e**2)
        ),
        "that is twice the error: return one": paired(lambda m, e, d: (m, 2 * e)),
        "that is half of an interval: return the standard error itself": paired(
            lambda m, e, d: (m, stats.t.ppf(0.975, len(d) - 1) * e)
        ),
        "of a single set the seeds are the sample: one number has no deviation": (
            lambda one, other: (
                float((one - other).mean()),
                float((one - other).mean(1).std()) / math.sqrt(len(one)),
            )
        ),
    },
)
def paired_error() -> Iterator[Case]:
    """Against the mean and the standard error by Python's statistics module."""
    for sets, seeds in ((6, 3), (4, 2), (1, 5)):
        luck, first, second = torch.rand(3, sets, seeds, dtype=torch.float64)
        one = 0.6 + 0.1 * luck + 0.01 * first + 0.03 * torch.rand(sets, 1, dtype=torch.float64)
        other = 0.57 + 0.1 * luck + 0.02 * second
        other[0, 0] = one[0, 0] + 0.01  # one pair falls the other way
        rows = (one - other).tolist()
        sample = [statistics.fmean(row) for row in rows] if sets > 1 else rows[0]
        error = statistics.stdev(sample) / math.sqrt(len(sample))
        yield Case(
            f"mean and standard error of {sets} x {seeds} paired differences",
            (one, other),
            Parts({"the mean": statistics.fmean(sample), "the standard error": error}),
            form="return both, as a tuple: mean, error",
            nan="of a single set the seeds are the sample: one number has no deviation",
            advice={"the standard error": "write out two sets of two seeds, work them by hand"},
        )


# ------------------------------------------------------------------------------------- 9.4 signs


def share_of_outcomes(wins: int, losses: int) -> float:
    """Of all outcomes of fair coins, the share that is as uneven, or more; by listing them all."""
    flips, gap = wins + losses, abs(wins - losses)
    outcomes = itertools.product((0, 1), repeat=flips)
    return sum(abs(2 * sum(outcome) - flips) >= gap for outcome in outcomes) / 2**flips


def tail(wins: int, losses: int, start: int | None = None) -> float:
    """The chance of so many wins or more; of the larger of the two numbers when none is given."""
    start = max(wins, losses) if start is None else start
    return float(stats.binom.sf(start - 1, wins + losses, 0.5))


def exactly(wins: int, losses: int) -> float:
    """The chance of just this outcome."""
    return float(stats.binom.pmf(wins, wins + losses, 0.5))


@exercise(
    "8.4",
    "equal to listing every outcome of the coins, for five scores and a tie",
    {
        "more than 1: at a tie both tails hold the middle, so stop at 1": lambda w, x: (
            2 * tail(w, x)
        ),
        "one tail is counted: luck may favour either method, so both tails": tail,
        "the tail starts at the wins even where the losses are more: start at the larger": (
            lambda w, x: min(1.0, 2 * tail(w, x, w))
        ),
        "one tail, from the wins on: luck may favour either method": lambda w, x: tail(w, x, w),
        "that is the chance of exactly this outcome: add the more uneven ones": exactly,
        "twice the chance of exactly this outcome: add the more uneven ones": lambda w, x: (
            2 * exactly(w, x)
        ),
        "the last outcome, all coins alike, is left out: range stops before its end": (
            lambda w, x: 2 * (tail(w, x) - 0.5 ** (w + x))
        ),
        "the outcome itself is left out: as uneven, or more": lambda w, x: (
            2 * tail(w, x, max(w, x) + 1)
        ),
        "that is the share of wins: a probability under luck is wanted": lambda w, x: w / (w + x),
        "that is the chance of one sequence: many sequences have as many wins": (
            lambda w, x: 0.5 ** (w + x)
        ),
        "that is the other side: the chance of less uneven outcomes": lambda w, x: (
            1 - share_of_outcomes(w, x)
        ),
        "that is a number of outcomes: divide by all of them, 2^n": (
            lambda w, x: 2 * tail(w, x) * 2 ** (w + x),
            lambda w, x: min(1.0, 2 * tail(w, x) * 2 ** (w + x)),
        ),
        "that is the normal approximation: with so few coins count the outcomes": (
            lambda w, x: 2 * float(stats.norm.sf(abs(w - x) / math.sqrt(w + x)))
        ),
    },
)
def sign_test() -> Iterator[Case]:
    """Against a list of every outcome of that many coins."""
    for wins, losses in ((8, 3), (11, 1), (3, 9), (5, 4), (6, 6), (4, 0)):
        yield Case(
            f"the share of luck as uneven as {wins} to {losses}",
            (wins, losses),
            share_of_outcomes(wins, losses),
            form="one number is wanted: the probability of both tails together",
            advice="list all outcomes of four coins; count those as uneven as 3 to 1 or more",
        )


# ------------------------------------------------------------------------------ 9.5 a verdict

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"


def verdict_on_a_grid(mean: float, half: float, margin: float) -> str:
    """The verdict by asking the values of the interval: all, none or some are good enough."""
    values = [mean + half * step / 500 for step in range(-500, 501)]
    good = [value > -margin for value in values]
    return HOLDS if all(good) else OPEN if any(good) else FAILS


def interval(
    half: Callable = lambda error, count: stats.t.ppf(0.975, count - 1) * error,
    holds: Callable = lambda low, high, margin: low > -margin,
    fails: Callable = lambda low, high, margin: high < -margin,
) -> Callable:
    """The verdict with another half-width, or other conditions."""

    def attempt(mean, error, count, margin):
        low, high = mean - half(error, count), mean + half(error, count)
        if holds(low, high, margin):
            return HOLDS
        return FAILS if fails(low, high, margin) else OPEN

    return attempt


@exercise(
    "8.5",
    "thirteen cases, held against every value of their intervals",
    {
        "two standard errors: with few measurements Student's t asks for more": (
            interval(lambda error, count: 2 * error),
            interval(lambda error, count: 1.96 * error),
        ),
        "one standard error is used: Student's t says how many": interval(
            lambda error, count: error
        ),
        "the degrees of freedom are count - 1": interval(
            lambda error, count: stats.t.ppf(0.975, count) * error
        ),
        "the quantile leaves 5% on one side: 2.5% on each, so 0.975": interval(
            lambda error, count: stats.t.ppf(0.95, count - 1) * error
        ),
        "the error is divided by the root of the count: it is a standard error already": interval(
            lambda error, count: stats.t.ppf(0.975, count - 1) * error / math.sqrt(count)
        ),
        "the error is multiplied by the root of the count: that is the standard deviation, and the "
        "mean is surer": interval(
            lambda error, count: stats.t.ppf(0.975, count - 1) * error * math.sqrt(count)
        ),
        "an open case is called refuted: only an interval that lies below minus the margin as a "
        "whole does that": interval(fails=lambda *_: True),
        "only the mean is looked at, and the error is not used: the whole interval counts": (
            interval(lambda error, count: 0.0)
        ),
        "the margin is not used: not behind by more than it": interval(
            holds=lambda low, high, margin: low > 0, fails=lambda low, high, margin: high < 0
        ),
        "the sign of the margin is turned round: behind by the margin is minus it": interval(
            holds=lambda low, high, margin: low > margin,
            fails=lambda low, high, margin: high < margin,
        ),
        "being better than by the margin is called a failure: comparable or better": interval(
            holds=lambda low, high, margin: -margin < low and high < margin,
            fails=lambda low, high, margin: high < -margin or low > margin,
        ),
    },
)
def say_comparable() -> Iterator[Case]:
    """Against asking every value of the interval."""
    for mean, error, count, margin in (
        (0.1, 0.3, 6, 1.0),
        (-0.9, 0.3, 6, 1.0),
        (-0.3, 0.3, 4, 1.0),
        (-0.5, 0.3, 4, 1.0),
        (-1.8, 0.3, 4, 1.0),
        (-1.7, 0.2, 6, 1.0),
        (-0.1, 0.25, 3, 1.0),
        (0.0, 0.33, 3, 1.0),
        (0.0, 0.4, 3, 1.0),
        (3.0, 0.4, 5, 1.0),
        (0.5, 1.0, 12, 0.5),
        (-0.1, 0.15, 12, 0.5),
        (-4.5, 0.9, 9, 2.0),
    ):
        half = float(stats.t.ppf(0.975, count - 1)) * error
        yield Case(
            f"the verdict on {mean:+} with standard error {error}, of {count}, margin {margin}",
            (mean, error, count, margin),
            verdict_on_a_grid(mean, half, margin),
            advice=f"the words are {HOLDS}, {FAILS}, {OPEN}; work the interval out on paper",
        )
