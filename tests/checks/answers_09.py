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
    return "holds" if low > bar else "does not hold" if high < bar else "not told apart"


RIGHT = {
    "9.1": lambda shapes, width, rank: int(np.sum(shapes)) * rank // (width + width),
    "9.2": sweep_choice(),
    "9.3": lambda one, other: (
        float(np.mean(one.numpy() - other.numpy())),
        float(stats.sem(one.numpy() - other.numpy())),
    ),
    "9.4": two_tails,
    "9.5": lambda mean, error, margin: {(True, True): "holds", (False, True): "not told apart"}.get(
        (mean + margin > 2 * error, mean + margin > -2 * error), "does not hold"
    ),
}

WRONG = {
    "9.1": {
        "four times": (lambda s, d, r: 4 * r, "right for four square matrices alone"),
        "matrices times": (lambda s, d, r: len(s) * r, "only right for square ones"),
        "only A": (lambda s, d, r: r * sum(i for i, _ in s) // (2 * d), "only A is counted"),
        "only B": (lambda s, d, r: r * sum(o for _, o in s) // (2 * d), "only B is counted"),
        "half a pair": (lambda s, d, r: budget(s, r) // d, "one matrix of Serial LoRA's pair"),
        "a budget": (lambda s, d, r: budget(s, r), "not yet a rank"),
        "no rank": (lambda s, d, r: budget(s, 1) // (2 * d), "rank of LoRA is missing"),
        "turned round": (lambda s, d, r: 2 * d * r // budget(s, 1), "turned round"),
        "rounded": (lambda s, d, r: round(budget(s, r) / (2 * d)), "rounded up"),
        "products": (
            lambda s, d, r: sum(r * a * b for a, b in s) // (2 * d),
            "outputs are multiplied",
        ),
        "down for each": (lambda s, d, r: sum(r * (a + b) // (2 * d) for a, b in s), "divide once"),
        "rounded up": (lambda s, d, r: -(-budget(s, r) // (2 * d)), "rounded up"),
        "a share": (lambda s, d, r: budget(s, r) / (2 * d), "right in value|whole number"),
    },
    "9.2": {
        "the best": (sweep_choice(errors=0), "rank with the best mean"),
        "deviation": (sweep_choice(divide=False), "standard deviation is taken"),
        "by n": (sweep_choice(ddof=0), "divides by n"),
        "above the bar": (sweep_choice(strictly=True), "not below the bar"),
        "two errors": (sweep_choice(errors=2), "two standard errors"),
        "own errors": (sweep_choice(own=True), "each rank's own error"),
        "best run": (lambda s: max(s, key=lambda r: max(s[r])), "best single run"),
        "medians": (median_choice, "medians are compared"),
        "paired bar": (paired_choice, "error of the paired differences"),
        "largest good": (sweep_choice(largest=True), "largest rank"),
        "largest": (lambda s: max(s), "largest rank"),
        "in order": (first_good, "any order"),
        "smallest": (lambda s: min(s), "smallest of all ranks"),
        "a mean": (lambda s: max(sum(v) / len(v) for v in s.values()), "a mean, not a rank"),
    },
    "9.3": {
        "sign": (lambda a, b: errors(b, a, lambda m, e, d: (m, e)), "sign is turned round"),
        "deviation": (
            lambda a, b: errors(a, b, lambda m, e, d: (m, d.std().item())),
            "standard deviation",
        ),
        "over n": (
            lambda a, b: errors(a, b, lambda m, e, d: (m, d.std().item() / len(d))),
            "not by its square root",
        ),
        "two groups": (
            lambda a, b: (
                (a.mean() - b.mean()).item(),
                ((a.var() + b.var()) / len(a)).sqrt().item(),
            ),
            "two separate groups",
        ),
        "population": (
            lambda a, b: errors(
                a, b, lambda m, e, d: (m, d.std(unbiased=False).item() / math.sqrt(len(d)))
            ),
            "n - 1 is needed",
        ),
        "variance": (
            lambda a, b: errors(a, b, lambda m, e, d: (m, e**2)),
            "square root is missing",
        ),
        "sizes": (
            lambda a, b: ((a - b).abs().mean(), (a - b).abs().std() / math.sqrt(len(a))),
            "signs matter",
        ),
        "n - 1 twice": (
            lambda a, b: errors(a, b, lambda m, e, d: (m, d.std().item() / math.sqrt(len(d) - 1))),
            "root of n - 1",
        ),
        "in place": (subtract_in_place, "changed in place"),
        "tensors": (
            lambda a, b: ((a - b).mean(), (a - b).std() / math.sqrt(len(a))),
            "still a tensor",
        ),
        "twice": (lambda a, b: errors(a, b, lambda m, e, d: (m, 2 * e)), "twice the error"),
        "swapped": (lambda a, b: errors(a, b, lambda m, e, d: (e, m)), "mean first"),
        "one number": (lambda a, b: (a - b).mean(), "return both"),
        "one a pair": (lambda a, b: (a - b, (a - b).std()), "one number is wanted"),
    },
    "9.4": {
        "one tail": (tail, "one tail is counted"),
        "from the wins": (lambda w, x: min(1.0, 2 * tail(w, x, w)), "start at the larger"),
        "one tail from the wins": (lambda w, x: tail(w, x, w), "one tail"),
        "exactly": (lambda w, x: math.comb(w + x, w) / 2 ** (w + x), "exactly this outcome"),
        "exactly, twice": (
            lambda w, x: 2 * math.comb(w + x, w) / 2 ** (w + x),
            "twice the chance of exactly",
        ),
        "range stops": (
            lambda w, x: 2 * (tail(w, x) - 0.5 ** (w + x)),
            "range stops before its end",
        ),
        "outcomes": (lambda w, x: 2 * tail(w, x) * 2 ** (w + x), "number of outcomes"),
        "two tails": (lambda w, x: (tail(w, x), tail(w, x)), "one number is wanted"),
        "above": (lambda w, x: 2 * tail(w, x, max(w, x) + 1), "outcome itself is left out"),
        "not stopped": (lambda w, x: 2 * tail(w, x), "stop at 1"),
        "a share": (lambda w, x: w / (w + x), "share of wins"),
        "a sequence": (lambda w, x: 0.5 ** (w + x), "one sequence"),
        "other side": (lambda w, x: 1 - two_tails(w, x), "the other side"),
    },
    "9.5": {
        "no open case": (
            lambda m, e, g: "holds" if m - 2 * e > -g else "does not hold",
            "open case is called",
        ),
        "only the mean": (lambda m, e, g: "holds" if m > -g else "does not hold", "only the mean"),
        "no margin": (lambda m, e, g: by_interval(m, e, g, bar=0.0), "margin is not used"),
        "one error": (lambda m, e, g: by_interval(m, e, g, errors=1), "one standard error"),
        "no error": (
            lambda m, e, g: by_interval(m, 0, g),
            "error is not used|only the mean|one standard",
        ),
        "sign": (lambda m, e, g: by_interval(m, e, g, bar=g), "sign of the margin"),
        "two-sided": (
            lambda m, e, g: (
                "holds"
                if abs(m) + 2 * e < g
                else "does not hold"
                if abs(m) - 2 * e > g
                else "not told apart"
            ),
            "comparable or better",
        ),
        "other words": (lambda m, e, g: "yes" if m - 2 * e > -g else "no", "the words are"),
        "a boolean": (lambda m, e, g: m - 2 * e > -g, "a text is wanted"),
    },
}
