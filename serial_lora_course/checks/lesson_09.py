"""Checks of lesson 09: a rank for a budget, a rank for a sweep, errors, signs, a verdict.

Expected values come from counting entries of matrices, from Python's statistics module, from
listing every outcome of a few coins, and from drawing the interval on a grid.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence

import torch
from scipy import stats

from serial_lora_course.checks.cases import Case, Part
from serial_lora_course.checks.checking import exercise


def numel_of(*shapes: tuple[int, int]) -> int:
    """The elements of tensors of these shapes, counted by PyTorch on the meta device."""
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


def rank_by_growing(shapes: Sequence[tuple[int, int]], width: int, rank: int) -> int:
    """The largest rank of one (width, width) pair within LoRA's budget, one rank after another."""
    budget, own = sum(numel_of((rank, i), (o, rank)) for i, o in shapes), 0
    while numel_of((own + 1, width), (width, own + 1)) <= budget:
        own += 1
    return own


@exercise(
    "9.1", "the largest rank within the budgets of five placements, fused and uneven ones too"
)
def matching_rank() -> Iterator[Case]:
    """Against the largest rank that fits, found by growing it."""
    cases = {
        "q, k and v, four query heads to one key head": ([(64, 64), (64, 16), (64, 16)], 64, 9),
        "q, k, v and out": ([(64, 64)] * 4, 64, 8),
        "q, k and v": ([(48, 48)] * 3, 48, 5),
        "a fused qkv": ([(40, 120)], 40, 6),
        "a wide output": ([(32, 56), (56, 32)], 32, 5),
    }
    for name, (shapes, width, rank) in cases.items():
        inputs, outputs = (sum(side) for side in zip(*shapes, strict=True))
        budget = rank * (inputs + outputs)
        causes = {
            "four times the rank is right for four square matrices alone: add up inputs + "
            "outputs of all matrices": 4 * rank,
            "the rank times the number of matrices is only right for square ones: a pair has "
            "rank x (inputs + outputs) entries": len(shapes) * rank,
            "only A is counted on LoRA's side: B has as many rows as the matrix has outputs": (
                rank * inputs // (2 * width)
            ),
            "only B is counted on LoRA's side: A has as many columns as the matrix has inputs": (
                rank * outputs // (2 * width)
            ),
            "only one matrix of Serial LoRA's pair is counted: it has A and B, each as wide as "
            "the tokens": budget // width,
            "that is LoRA's budget, not yet a rank: divide by what one rank of Serial LoRA "
            "costs": budget,
            "the rank of LoRA is missing": (inputs + outputs) // (2 * width),
            "turned round: that is LoRA's rank within Serial LoRA's budget": (
                rank * 2 * width // (inputs + outputs)
            ),
            "inputs and outputs are multiplied: a pair has rank x (inputs + outputs) entries": (
                sum(rank * a * b for a, b in shapes) // (2 * width)
            ),
            "the tokens' width is squared: one rank of Serial LoRA costs 2 x width": (
                budget // (width * width)
            ),
            "rounded down for each matrix: add up LoRA's parameters first, then divide once": sum(
                rank * (a + b) // (2 * width) for a, b in shapes
            ),
            "rounded up: that is more than the budget": -(-budget // (2 * width)),
            "rounded to the nearest, and so rounded up here: that is more than the budget": round(
                budget / (2 * width)
            ),
            "a rank is a whole number: // rounds down": budget / (2 * width),
        }
        what = f"the rank within the budget of LoRA of rank {rank} on {name}"
        expected = rank_by_growing(shapes, width, rank)
        yield Case(what, (shapes, width, rank), expected, causes)


# --------------------------------------------------------------------------- one standard error

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


@exercise("9.2", "the smallest rank within one standard error of the best, in six sweeps")
def one_error_rank() -> Iterator[Case]:
    """Against means and errors from Python's statistics module."""
    for name, sweep in SWEEPS.items():
        means = {rank: statistics.fmean(values) for rank, values in sweep.items()}
        medians = {rank: statistics.median(values) for rank, values in sweep.items()}
        best = max(means, key=means.__getitem__)
        spread, root = statistics.stdev(sweep[best]), math.sqrt(len(sweep[best]))

        def within(allowance: float, means=means) -> list[int]:
            bar = max(means.values()) - allowance
            return [rank for rank, mean in means.items() if mean >= bar]

        def error_of(rank: int, best: int = best, sweep=sweep, root=root) -> float:
            """The standard error of a rank's differences from the best."""
            pairs = zip(sweep[best], sweep[rank], strict=True)
            return statistics.stdev(a - b for a, b in pairs) / root

        on_the_bar = (
            "with no spread the best mean is the bar itself, and it is good enough: take a mean "
            "that is not below the bar"
        )
        causes = {
            "that is the rank with the best mean: the smallest within one standard error of it "
            "is wanted": best,
            "the standard deviation is taken for the standard error: divide by the square root "
            "of the number of runs": min(within(spread)),
            "two standard errors are allowed: the rule allows one": min(within(2 * spread / root)),
            "the spread divides by n: with few runs n - 1 is needed, torch's default and not "
            "numpy's": min(within(statistics.pstdev(sweep[best]) / root)),
            "each rank's own error is used: the bar is set by the best rank's": min(
                r for r in sweep if means[r] + statistics.stdev(sweep[r]) / root >= means[best]
            ),
            "the error of the paired differences is used: the bar is set by the best rank's own "
            "runs": min(r for r in sweep if means[r] + error_of(r) >= means[best]),
            "medians are compared: the rule is about means": min(
                r for r in sweep if medians[r] >= max(medians.values()) - spread / root
            ),
            "that is the rank of the best single run: compare means": max(
                sweep, key=lambda rank, sweep=sweep: max(sweep[rank])
            ),
            "the largest rank is taken: the smallest that is good enough is wanted": max(sweep),
            "the largest rank that is good enough is taken": max(within(spread / root)),
            "the first in the list is taken: ranks come in any order": within(spread / root)[0],
            "that is the smallest of all ranks: it has to come within one standard error of "
            "the best": min(sweep),
            "that is a mean, not a rank": means[best],
        }
        what = f"the rank chosen from {name}"
        expected = min(within(spread / root))
        yield Case(what, (sweep,), expected, causes, error="" if spread else on_the_bar)


# --------------------------------------------------------------------------- paired differences


@exercise("9.3", "mean and standard error over six sets, over four, and over the seeds of one")
def paired_error() -> Iterator[Case]:
    """Against the mean and the standard error by Python's statistics module."""
    for sets, seeds in ((6, 3), (4, 2), (1, 5)):
        luck, first, second = torch.rand(3, sets, seeds, dtype=torch.float64)
        one = 0.6 + 0.1 * luck + 0.01 * first + 0.03 * torch.rand(sets, 1, dtype=torch.float64)
        other = 0.57 + 0.1 * luck + 0.02 * second
        other[0, 0] = one[0, 0] + 0.01  # one pair falls the other way
        rows = [[float(value) for value in row] for row in one - other]
        runs = [value for row in rows for value in row]
        means = [statistics.fmean(row) for row in rows]
        d = means if sets > 1 else runs
        by_method = [values.mean(1) if sets > 1 else values[0] for values in (one, other)]
        by_seed = [statistics.fmean(column) for column in zip(*rows, strict=True)]
        n, mean, spread = len(d), statistics.fmean(d), statistics.stdev(d)
        error, root = spread / math.sqrt(n), math.sqrt(n)
        apart = sum(statistics.variance(values.tolist()) for values in by_method)
        sizes = (one - other).abs()
        sizes = (sizes.mean(1) if sets > 1 else sizes[0]).tolist()
        of_one = "of a single set the seeds are the sample: one number has no deviation"
        parts = [
            Part(
                "the mean",
                mean,
                {
                    "the sign is turned round: one minus other": -mean,
                    "the sizes of the differences are averaged: their signs matter": (
                        statistics.fmean(sizes)
                    ),
                    "that is in hundredths: return it in the unit in which it came": 100 * mean,
                    "that is the median: the mean of the differences is wanted": (
                        statistics.median_low(d)
                    ),
                    "turned round: the mean first, then its error": error,
                },
            ),
            Part(
                "the standard error",
                error,
                {
                    "that is the standard deviation: divide by the square root of n": spread,
                    "divided by n, not by its square root": spread / n,
                    "divided by the root of n - 1: the deviation has its n - 1 already, the error is "
                    "divided by the root of n": spread / math.sqrt(n - 1),
                    "the spread divides by n: with few measurements n - 1 is needed, torch's "
                    "default": statistics.pstdev(d) / root,
                    "all runs are counted as independent: those of one data set are not, so average "
                    "them first": statistics.stdev(runs) / math.sqrt(len(runs)),
                    "that is over the seeds, averaged over sets: several sets are the sample": (
                        statistics.stdev(by_seed) / math.sqrt(seeds)
                    ),
                    "divided by the root of the number of runs: of several sets there are as many "
                    "measurements as sets": spread / math.sqrt(len(runs)),
                    "that is the error of two separate groups: take the differences first, run by "
                    "run": math.sqrt(apart) / root,
                    "that is the variance over n: the square root is missing": error**2,
                    "the sizes of the differences are averaged: their signs matter": (
                        statistics.stdev(sizes) / root
                    ),
                    "that is twice the error: return one": 2 * error,
                    "that is half of an interval: return the standard error itself": (
                        stats.t.ppf(0.975, n - 1) * error
                    ),
                    "that is in hundredths: return it in the unit in which it came": 100 * error,
                    "turned round: the mean first, then its error": mean,
                },
                nan=of_one,
                otherwise="write out two sets of two seeds and work them by hand",
            ),
        ]
        what = f"mean and standard error of {sets} x {seeds} paired differences"
        yield Case(what, (one, other), parts, form="return both, as a tuple: mean, error")


# --------------------------------------------------------------------------- signs


def share_of_outcomes(wins: int, losses: int, far: bool = True) -> float:
    """Of all outcomes of fair coins, the share that is as uneven, or more; by listing them all."""
    flips, gap = wins + losses, abs(wins - losses)
    outcomes = itertools.product((0, 1), repeat=flips)
    gaps = [abs(2 * sum(outcome) - flips) for outcome in outcomes]
    return sum(value >= gap if far else value > gap for value in gaps) / len(gaps)


@exercise("9.4", "equal to listing every outcome of the coins, for five scores and a tie")
def sign_test() -> Iterator[Case]:
    """Against a list of every outcome of that many coins."""
    for wins, losses in ((8, 3), (11, 1), (3, 9), (5, 4), (6, 6), (4, 0)):
        cells, most = wins + losses, max(wins, losses)
        expected = share_of_outcomes(wins, losses)

        def from_on(start: int, cells: int = cells) -> float:
            return sum(math.comb(cells, k) for k in range(start, cells + 1)) / 2**cells

        tail, exactly = from_on(most), math.comb(cells, most) / 2**cells
        causes = {
            "more than 1: at a tie both tails hold the middle, so stop at 1": 2 * tail,
            "one tail is counted: luck may favour either method, so both tails": tail,
            "the tail starts at the wins even where the losses are more: start at the larger": min(
                1.0, 2 * from_on(wins)
            ),
            "one tail, from the wins on: luck may favour either method": from_on(wins),
            "that is the chance of exactly this outcome: add the more uneven ones": exactly,
            "twice the chance of exactly this outcome: add the more uneven ones": 2 * exactly,
            "the last outcome, all coins alike, is left out: range stops before its end": (
                2 * (tail - 0.5**cells)
            ),
            "the outcome itself is left out: as uneven, or more": share_of_outcomes(
                wins, losses, far=False
            ),
            "that is the share of wins: a probability under luck is wanted": wins / cells,
            "that is the chance of one sequence: many sequences have as many wins": 0.5**cells,
            "that is the other side: the chance of less uneven outcomes": 1 - expected,
            "that is a number of outcomes: divide by all of them, 2^n": 2 * tail * 2**cells,
            "that is the normal approximation: with so few coins count the outcomes": math.erfc(
                abs(wins - losses) / math.sqrt(2 * cells)
            ),
            "1 would be an even score: divide the sum by 2^n, and start it at the larger number": 1,
        }
        what = f"the share of luck as uneven as {wins} to {losses}"
        advice = {
            "form": "one number is wanted: the probability of both tails together",
            "otherwise": "list all outcomes of four coins; count those as uneven as 3 to 1 or more",
        }
        yield Case(what, (wins, losses), expected, causes, **advice)


# --------------------------------------------------------------------------- a verdict


def verdict_on_a_grid(mean: float, half: float, margin: float) -> str:
    """The verdict by asking the values of the interval: all, none or some are good enough."""
    values = [mean + half * step / 500 for step in range(-500, 501)]
    good = [value > -margin for value in values]
    return "holds" if all(good) else "undecided" if any(good) else "does not hold"


@exercise("9.5", "twelve cases, held against every value of their intervals")
def say_comparable() -> Iterator[Case]:
    """Against asking every value of the interval."""
    words = ("holds", "does not hold", "undecided")
    cases = [
        (0.1, 0.3, 6, 1.0),
        (-0.9, 0.3, 6, 1.0),
        (-0.3, 0.3, 4, 1.0),
        (-1.8, 0.3, 4, 1.0),
        (-1.7, 0.2, 6, 1.0),
        (-0.1, 0.25, 3, 1.0),
        (0.0, 0.33, 3, 1.0),
        (0.0, 0.4, 3, 1.0),
        (3.0, 0.4, 5, 1.0),
        (0.5, 1.0, 12, 0.5),
        (-0.1, 0.15, 12, 0.5),
        (-4.5, 0.9, 9, 2.0),
    ]
    for mean, error, count, margin in cases:

        def within(half: float, mean=mean, margin=margin) -> str:
            return verdict_on_a_grid(mean, half, margin)

        def say(holds: bool, fails: bool) -> str:
            return words[0] if holds else words[1] if fails else words[2]

        half = stats.t.ppf(0.975, count - 1) * error
        low, high = mean - half, mean + half
        causes = {
            "two standard errors: with few measurements Student's t asks for more": (
                within(2 * error)
            ),
            "one standard error is used: Student's t says how many": within(error),
            "the degrees of freedom are count - 1": within(stats.t.ppf(0.975, count) * error),
            "the quantile leaves 5% on one side: 2.5% on each, so 0.975": within(
                stats.t.ppf(0.95, count - 1) * error
            ),
            "the error is divided by the root of the count: it is a standard error already": within(
                half / math.sqrt(count)
            ),
            "the error is multiplied by the root of the count: that is the standard deviation, and "
            "the mean is surer": within(half * math.sqrt(count)),
            "an open case is called refuted: only an interval that lies below minus the margin "
            "as a whole does that": say(low > -margin, True),
            "only the mean is looked at, and the error is not used: the whole interval counts": say(
                mean > -margin, True
            ),
            "the margin is not used: not behind by more than it": say(low > 0, high < 0),
            "the sign of the margin is turned round: behind by the margin is minus it": say(
                low > margin, high < margin
            ),
            "being better than by the margin is called a failure: comparable or better": say(
                -margin < low and high < margin, high < -margin or low > margin
            ),
        }
        what = f"the verdict on {mean:+} with standard error {error}, of {count}, margin {margin}"
        otherwise = f"the words are {', '.join(words)}; work the interval out on paper"
        arguments = (mean, error, count, margin)
        yield Case(what, arguments, within(half), causes, otherwise=otherwise)
