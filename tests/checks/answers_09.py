"""Right and wrong answers to the exercises of lesson 09."""

import math

import numpy as np
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
    return one.mean().item(), one.std().item() / math.sqrt(len(one))


def errors(one, other, change):
    d = one - other
    return change(d.mean().item(), d.std().item() / math.sqrt(len(d)), d)


def two_tails(wins, losses):
    return stats.binomtest(wins, wins + losses).pvalue


def tail(wins, losses, start=None):
    n = wins + losses
    return stats.binom.sf((max(wins, losses) if start is None else start) - 1, n, 0.5)


def by_interval(mean, error, margin, errors=2.0, bar=None):
    bar = -margin if bar is None else bar
    low, high = mean - errors * error, mean + errors * error
    return "holds" if low > bar else "does not hold" if high < bar else "undecided"


RIGHT = {
    "9.1": lambda shapes, width, rank: int(np.sum(shapes)) * rank // (width + width),
    "9.2": sweep_choice(),
    "9.3": lambda one, other: (
        float(np.mean(one.numpy() - other.numpy())),
        float(stats.sem(one.numpy() - other.numpy())),
    ),
    "9.4": two_tails,
    "9.5": lambda mean, error, margin: {(True, True): "holds", (False, True): "undecided"}.get(
        (mean + margin > 2 * error, mean + margin > -2 * error), "does not hold"
    ),
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
        ("sign", "sign is turned round"): lambda a, b: errors(b, a, lambda m, e, d: (m, e)),
        ("deviation", "standard deviation"): lambda a, b: errors(
            a, b, lambda m, e, d: (m, d.std().item())
        ),
        ("over n", "not by its square root"): lambda a, b: errors(
            a, b, lambda m, e, d: (m, d.std().item() / len(d))
        ),
        ("two groups", "two separate groups"): (
            lambda a, b: (
                (a.mean() - b.mean()).item(),
                ((a.var() + b.var()) / len(a)).sqrt().item(),
            )
        ),
        ("population", "n - 1 is needed"): (
            lambda a, b: errors(
                a, b, lambda m, e, d: (m, d.std(unbiased=False).item() / math.sqrt(len(d)))
            )
        ),
        ("variance", "square root is missing"): lambda a, b: errors(
            a, b, lambda m, e, d: (m, e**2)
        ),
        ("sizes", "signs matter"): lambda a, b: (
            (a - b).abs().mean(),
            (a - b).abs().std() / math.sqrt(len(a)),
        ),
        ("n - 1 twice", "root of n - 1"): lambda a, b: errors(
            a, b, lambda m, e, d: (m, d.std().item() / math.sqrt(len(d) - 1))
        ),
        ("in place", "changed in place"): subtract_in_place,
        ("tensors", "still a tensor"): lambda a, b: (
            (a - b).mean(),
            (a - b).std() / math.sqrt(len(a)),
        ),
        ("twice", "twice the error"): lambda a, b: errors(a, b, lambda m, e, d: (m, 2 * e)),
        ("hundredths", "in hundredths"): lambda a, b: errors(
            a, b, lambda m, e, d: (100 * m, 100 * e)
        ),
        ("median", "that is the median"): lambda a, b: errors(
            a, b, lambda m, e, d: (d.median().item(), e)
        ),
        ("swapped", "mean first"): lambda a, b: errors(a, b, lambda m, e, d: (e, m)),
        ("one number", "return both"): lambda a, b: (a - b).mean(),
        ("one a pair", "one number is wanted"): lambda a, b: (a - b, (a - b).std()),
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
        ("no open case", "open case is called"): lambda m, e, g: (
            "holds" if m - 2 * e > -g else "does not hold"
        ),
        ("only the mean", "only the mean"): lambda m, e, g: "holds" if m > -g else "does not hold",
        ("no margin", "margin is not used"): lambda m, e, g: by_interval(m, e, g, bar=0.0),
        ("one error", "one standard error"): lambda m, e, g: by_interval(m, e, g, errors=1),
        ("no error", "error is not used|only the mean|one standard"): lambda m, e, g: by_interval(
            m, 0, g
        ),
        ("sign", "sign of the margin"): lambda m, e, g: by_interval(m, e, g, bar=g),
        ("two-sided", "comparable or better"): (
            lambda m, e, g: (
                "holds"
                if abs(m) + 2 * e < g
                else "does not hold"
                if abs(m) - 2 * e > g
                else "undecided"
            )
        ),
        ("other words", "the words are"): lambda m, e, g: "yes" if m - 2 * e > -g else "no",
        ("a boolean", "a text is wanted"): lambda m, e, g: m - 2 * e > -g,
    },
}
