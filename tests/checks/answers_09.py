"""Right and wrong answers to the exercises of lesson 09."""

import math

import numpy as np
import pandas as pd
import torch
from scipy import stats


def budget(shapes, rank):
    return rank * sum(map(sum, shapes))


def sweep_choice(errors=1.0, divide=True, largest=False, own=False, ddof=1, strictly=False):
    """The rule of 9.2 with one thing changed."""

    def attempt(sweep):
        ranks = sorted(sweep)
        table = np.array([sweep[rank] for rank in ranks])
        means = table.mean(axis=1)
        spread = table.std(axis=1, ddof=ddof) / (math.sqrt(table.shape[1]) if divide else 1)
        bar = means.max() - errors * (spread if own else spread[means.argmax()])
        enough = means > bar if strictly else means >= bar
        good = [rank for rank, fine in zip(ranks, enough, strict=True) if fine]
        return good[-1] if largest else good[0]

    return attempt


def first_good(sweep):
    means = {rank: np.mean(values) for rank, values in sweep.items()}
    best = max(means, key=means.get)
    bar = means[best] - np.std(sweep[best], ddof=1) / math.sqrt(len(sweep[best]))
    return next(rank for rank in sweep if means[rank] >= bar)


def median_choice(sweep):
    medians = {rank: np.median(values) for rank, values in sweep.items()}
    best = max(sweep, key=lambda rank: np.mean(sweep[rank]))
    bar = max(medians.values()) - stats.sem(sweep[best])
    return min(rank for rank in sweep if medians[rank] >= bar)


def paired_choice(sweep):
    best = max(sweep, key=lambda rank: np.mean(sweep[rank]))
    gaps = {rank: np.subtract(sweep[best], values) for rank, values in sweep.items()}
    return min(rank for rank, gap in gaps.items() if gap.mean() <= stats.sem(gap))


def subtract_in_place(one, other):
    one -= other
    return errors(lambda m, e, d: (m, e))(one, 0 * other)


def errors(change, sample=None):
    """9.3 with one thing changed: ``change(mean, error, sample)``, or the sample itself."""

    def attempt(one, other):
        difference = (one - other).numpy()
        d = (sample or sample_of)(difference)
        return change(float(d.mean()), float(stats.sem(d)), d)

    return attempt


def sample_of(difference):
    """The sets' means; of a single set its seeds."""
    return difference.mean(axis=1) if len(difference) > 1 else difference[0]


def two_groups(one, other):
    first, second = (sample_of(values.numpy()) for values in (one, other))
    return first.mean() - second.mean(), math.hypot(stats.sem(first), stats.sem(second))


def sizes(one, other):
    d = sample_of((one - other).abs().numpy())
    return d.mean(), stats.sem(d)


def two_tails(wins, losses):
    return stats.binomtest(wins, wins + losses).pvalue


def tail(wins, losses, start=None):
    n = wins + losses
    return stats.binom.sf((max(wins, losses) if start is None else start) - 1, n, 0.5)


def half_of(error, count):
    low, high = stats.t.interval(0.95, count - 1, scale=error)
    return (high - low) / 2


def by_interval(mean, half, margin, bar=None):
    bar = -margin if bar is None else bar
    return "holds" if mean - half > bar else "does not hold" if mean + half < bar else "undecided"


def two_sided(mean, error, count, margin):
    half = half_of(error, count)
    if abs(mean) + half < margin:
        return "holds"
    return "does not hold" if abs(mean) - half > margin else "undecided"


RIGHT = {
    "9.1": lambda shapes, width, rank: int(np.sum(shapes)) * rank // (width + width),
    "9.2": sweep_choice(),
    "9.3": errors(lambda mean, error, sample: (mean, error)),
    "9.4": two_tails,
    "9.5": lambda mean, error, count, margin: {2: "holds", 1: "undecided", 0: "does not hold"}[
        sum(mean + margin > side * half_of(error, count) for side in (-1, 1))
    ],
}

WRONG = {
    "9.1": {
        ("four times", "right for four square matrices alone"): lambda s, d, r: 4 * r,
        ("width squared", "width is squared"): lambda s, d, r: budget(s, r) // d**2,
        ("matrices times", "only right for square ones"): lambda s, d, r: len(s) * r,
        ("only A", "only A is counted"): lambda s, d, r: r * sum(i for i, _ in s) // (2 * d),
        ("only B", "only B is counted"): lambda s, d, r: r * sum(o for _, o in s) // (2 * d),
        ("half a pair", "one matrix of Serial LoRA's pair"): lambda s, d, r: budget(s, r) // d,
        ("a budget", "not yet a rank"): lambda s, d, r: budget(s, r),
        ("no rank", "rank of LoRA is missing"): lambda s, d, r: budget(s, 1) // (2 * d),
        ("turned round", "turned round"): lambda s, d, r: 2 * d * r // budget(s, 1),
        ("rounded", "rounded up"): lambda s, d, r: round(budget(s, r) / (2 * d)),
        ("products", "outputs are multiplied"): lambda s, d, r: (
            sum(r * a * b for a, b in s) // (2 * d)
        ),
        ("down for each", "divide once"): lambda s, d, r: sum(r * (a + b) // (2 * d) for a, b in s),
        ("rounded up", "rounded up"): lambda s, d, r: -(-budget(s, r) // (2 * d)),
        ("a share", "right in value|whole number"): lambda s, d, r: budget(s, r) / (2 * d),
    },
    "9.2": {
        ("the best", "rank with the best mean"): sweep_choice(errors=0),
        ("deviation", "standard deviation is taken"): sweep_choice(divide=False),
        ("by n", "divides by n"): sweep_choice(ddof=0),
        ("above the bar", "not below the bar"): sweep_choice(strictly=True),
        ("two errors", "two standard errors"): sweep_choice(errors=2),
        ("own errors", "each rank's own error"): sweep_choice(own=True),
        ("best run", "best single run"): lambda s: max(s, key=lambda r: max(s[r])),
        ("medians", "medians are compared"): median_choice,
        ("paired bar", "error of the paired differences"): paired_choice,
        ("largest good", "largest rank"): sweep_choice(largest=True),
        ("largest", "largest rank"): lambda s: max(s),
        ("in order", "any order"): first_good,
        ("smallest", "smallest of all ranks"): lambda s: min(s),
        ("a mean", "a mean, not a rank"): lambda s: max(sum(v) / len(v) for v in s.values()),
    },
    "9.3": {
        ("sign", "sign is turned round"): errors(lambda m, e, d: (-m, e)),
        ("deviation", "standard deviation"): errors(lambda m, e, d: (m, d.std(ddof=1))),
        ("over n", "not by its square root"): errors(lambda m, e, d: (m, d.std(ddof=1) / len(d))),
        ("two groups", "two separate groups"): two_groups,
        ("population", "n - 1 is needed"): errors(lambda m, e, d: (m, d.std() / math.sqrt(len(d)))),
        ("variance", "square root is missing"): errors(lambda m, e, d: (m, e**2)),
        ("sizes", "signs matter"): sizes,
        ("n - 1 twice", "root of n - 1"): errors(
            lambda m, e, d: (m, d.std(ddof=1) / math.sqrt(len(d) - 1))
        ),
        ("runs as sample", "counted as independent"): errors(
            lambda m, e, d: (m, e), sample=np.ravel
        ),
        ("seeds as sample", "several sets are the sample"): errors(
            lambda m, e, d: (m, e), sample=lambda difference: difference.mean(axis=0)
        ),
        ("root of runs", "root of the number of runs"): lambda a, b: (
            (a - b).mean().item(),
            np.std(sample_of((a - b).numpy()), ddof=1) / math.sqrt(a.numel()),
        ),
        ("a single set", "of a single set the seeds"): lambda a, b: (
            (a - b).mean().item(),
            float(pd.Series((a - b).mean(1).numpy()).sem()),  # nan of one number
        ),
        ("in place", "changed in place"): subtract_in_place,
        ("tensors", "still a tensor"): lambda a, b: tuple(
            map(torch.tensor, errors(lambda m, e, d: (m, e))(a, b))
        ),
        ("twice", "twice the error"): errors(lambda m, e, d: (m, 2 * e)),
        ("interval", "half of an interval"): errors(
            lambda m, e, d: (m, stats.t.ppf(0.975, len(d) - 1) * e)
        ),
        ("hundredths", "in hundredths"): errors(lambda m, e, d: (100 * m, 100 * e)),
        ("median", "that is the median"): errors(
            lambda m, e, d: (float(torch.tensor(d).median()), e)
        ),
        ("swapped", "mean first"): errors(lambda m, e, d: (e, m)),
        ("one number", "return both"): lambda a, b: (a - b).mean(),
        ("one a run", "one number is wanted"): lambda a, b: (a - b, (a - b).std()),
    },
    "9.4": {
        ("one tail", "one tail is counted"): tail,
        ("from the wins", "start at the larger"): lambda w, x: min(1.0, 2 * tail(w, x, w)),
        ("one tail from the wins", "one tail"): lambda w, x: tail(w, x, w),
        ("exactly", "exactly this outcome"): lambda w, x: math.comb(w + x, w) / 2 ** (w + x),
        ("exactly, twice", "twice the chance of exactly"): lambda w, x: (
            2 * math.comb(w + x, w) / 2 ** (w + x)
        ),
        ("range stops", "range stops before its end"): lambda w, x: (
            2 * (tail(w, x) - 0.5 ** (w + x))
        ),
        ("outcomes", "number of outcomes"): lambda w, x: 2 * tail(w, x) * 2 ** (w + x),
        ("two tails", "one number is wanted"): lambda w, x: (tail(w, x), tail(w, x)),
        ("above", "outcome itself is left out"): lambda w, x: 2 * tail(w, x, max(w, x) + 1),
        ("not stopped", "stop at 1"): lambda w, x: 2 * tail(w, x),
        ("a share", "share of wins"): lambda w, x: w / (w + x),
        ("a sequence", "one sequence"): lambda w, x: 0.5 ** (w + x),
        ("normal", "normal approximation"): lambda w, x: (
            2 * stats.norm.sf(abs(w - x) / math.sqrt(w + x))
        ),
        ("other side", "the other side"): lambda w, x: 1 - two_tails(w, x),
    },
    "9.5": {
        ("no open case", "open case is called"): lambda m, e, n, g: (
            "holds" if m - half_of(e, n) > -g else "does not hold"
        ),
        ("only the mean", "only the mean"): lambda m, e, n, g: (
            "holds" if m > -g else "does not hold"
        ),
        ("no margin", "margin is not used"): lambda m, e, n, g: by_interval(
            m, half_of(e, n), g, bar=0.0
        ),
        ("two errors", "two standard errors"): lambda m, e, n, g: by_interval(m, 2 * e, g),
        ("normal", "two standard errors"): lambda m, e, n, g: by_interval(m, 1.96 * e, g),
        ("one error", "one standard error"): lambda m, e, n, g: by_interval(m, e, g),
        ("freedom", "count - 1"): lambda m, e, n, g: by_interval(m, half_of(e, n + 1), g),
        ("one side", "5% on one side"): lambda m, e, n, g: by_interval(
            m, stats.t.ppf(0.95, n - 1) * e, g
        ),
        ("divided again", "a standard error already"): lambda m, e, n, g: by_interval(
            m, half_of(e, n) / math.sqrt(n), g
        ),
        ("deviation", "that is the standard deviation"): lambda m, e, n, g: by_interval(
            m, half_of(e, n) * math.sqrt(n), g
        ),
        ("no error", "error is not used|only the mean|one standard"): lambda m, e, n, g: (
            by_interval(m, 0, g)
        ),
        ("sign", "sign of the margin"): lambda m, e, n, g: by_interval(m, half_of(e, n), g, bar=g),
        ("two-sided", "comparable or better"): two_sided,
        ("other words", "the words are"): lambda m, e, n, g: (
            "yes" if m - half_of(e, n) > -g else "no"
        ),
        ("a boolean", "a text is wanted"): lambda m, e, n, g: m - half_of(e, n) > -g,
    },
}
