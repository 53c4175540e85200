"""Checks of lesson 09: a rank for a budget, a rank for a sweep, errors, signs, a verdict.

Expected values come from counting entries of matrices, from Python's statistics module, from
listing every outcome of a few coins, and from drawing the interval on a grid.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from serial_lora_course.checks.checking import (
    call,
    exercise,
    require,
    require_equal,
    require_returned,
)


def _entries(shapes: Sequence[tuple[int, int]], rank: int) -> int:
    """Entries of a pair beside every matrix, counted by PyTorch on the meta device."""
    return sum(
        torch.empty(rank, inputs, device="meta").numel()
        + torch.empty(outputs, rank, device="meta").numel()
        for inputs, outputs in shapes
    )


def rank_by_growing(shapes: Sequence[tuple[int, int]], width: int, rank: int) -> int:
    """The largest rank of one (width, width) pair within LoRA's budget, one rank after another."""
    budget, own = _entries(shapes, rank), 0
    while _entries([(width, width)], own + 1) <= budget:
        own += 1
    return own


@exercise("9.1")
def matching_rank(attempt) -> str:
    """Against the largest rank that fits, found by growing it."""
    cases = {
        "q, k and v, four query heads to one key head": ([(64, 64), (64, 16), (64, 16)], 64, 9),
        "q, k, v and out": ([(64, 64)] * 4, 64, 8),
        "q, k and v": ([(48, 48)] * 3, 48, 5),
        "a fused qkv": ([(40, 120)], 40, 6),
        "a wide output": ([(32, 56), (56, 32)], 32, 5),
    }
    for name, (shapes, width, rank) in cases.items():
        expected = rank_by_growing(shapes, width, rank)
        inputs, outputs = (sum(shape[side] for shape in shapes) for side in (0, 1))
        what = f"the rank within the budget of LoRA of rank {rank} on {name}"
        got = call(attempt, shapes, width, rank, what=what)
        suspects = {
            "four times the rank is right for four square matrices alone: add up inputs + outputs "
            "of all matrices": 4 * rank,
            "the rank times the number of matrices is only right for square ones: a pair has "
            "rank x (inputs + outputs) entries": len(shapes) * rank,
            "only A is counted on LoRA's side: B has as many rows as the matrix has outputs": (
                rank * inputs // (2 * width)
            ),
            "only B is counted on LoRA's side: A has as many columns as the matrix has inputs": (
                rank * outputs // (2 * width)
            ),
            "only one matrix of Serial LoRA's pair is counted: it has A and B, each as wide as "
            "the tokens": rank * (inputs + outputs) // width,
            "that is LoRA's budget, not yet a rank: divide by what one rank of Serial LoRA costs": (
                rank * (inputs + outputs)
            ),
            "the rank of LoRA is missing": (inputs + outputs) // (2 * width),
            "turned round: that is LoRA's rank within Serial LoRA's budget": (
                rank * 2 * width // (inputs + outputs)
            ),
            "inputs and outputs are multiplied: a pair has rank x (inputs + outputs) entries": (
                sum(rank * a * b for a, b in shapes) // (2 * width)
            ),
            "rounded down for each matrix: add up LoRA's parameters first, then divide once": sum(
                rank * (a + b) // (2 * width) for a, b in shapes
            ),
            "rounded up: that is more than the budget": -(
                -rank * (inputs + outputs) // (2 * width)
            ),
            "a rank is a whole number: // rounds down": rank * (inputs + outputs) / (2 * width),
        }
        suspects = {cause: value for cause, value in suspects.items() if value != expected}
        require_equal(what, got, expected, suspects)
        require(
            isinstance(got, int),
            "the kind of result",
            "a whole number",
            got,
            "right in value, but a float: // of whole numbers gives a whole number",
        )
    return "the largest rank within the budgets of five placements, fused and uneven ones too"


# --------------------------------------------------------------------------- one standard error

_SWEEPS: dict[str, dict[int, list[float]]] = {
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

_ON_THE_BAR = (
    "with no spread the best mean is the bar itself, and it is good enough: take a mean that is "
    "not below the bar"
)


def _chosen(sweep: Mapping[int, Sequence[float]], allowance: float) -> int:
    means = {rank: statistics.fmean(values) for rank, values in sweep.items()}
    return min(rank for rank in sweep if means[rank] >= max(means.values()) - allowance)


@exercise("9.2")
def one_error_rank(attempt) -> str:
    """Against means and errors from Python's statistics module."""
    for name, sweep in _SWEEPS.items():
        means = {rank: statistics.fmean(values) for rank, values in sweep.items()}
        best = max(means, key=means.__getitem__)
        spread, runs = statistics.stdev(sweep[best]), len(sweep[best])
        expected = _chosen(sweep, spread / math.sqrt(runs))
        given = {rank: list(values) for rank, values in sweep.items()}
        got = call(attempt, given, what=name, cause="" if spread else _ON_THE_BAR)
        lucky = max(sweep, key=lambda rank: max(sweep[rank]))
        own = [
            rank
            for rank in sweep
            if means[rank] + statistics.stdev(sweep[rank]) / math.sqrt(runs) >= means[best]
        ]
        suspects = {
            "that is the rank with the best mean: the smallest within one standard error of it is "
            "wanted": best,
            "the standard deviation is taken for the standard error: divide by the square root of "
            "the number of runs": _chosen(sweep, spread),
            "two standard errors are allowed: the rule allows one": (
                _chosen(sweep, 2 * spread / math.sqrt(runs))
            ),
            "the spread divides by n: with few runs n - 1 is needed, torch's default and not "
            "numpy's": _chosen(sweep, statistics.pstdev(sweep[best]) / math.sqrt(runs)),
            "each rank's own error is used: the bar is set by the best rank's": min(own),
            "that is the rank of the best single run: compare means": lucky,
            "the largest rank is taken: the smallest that is good enough is wanted": max(sweep),
            "the first rank in the list is taken: the ranks may come in any order": next(
                rank for rank in sweep if means[rank] >= means[best] - spread / math.sqrt(runs)
            ),
            "that is the smallest of all ranks: it has to come within one standard error of the "
            "best": min(sweep),
            "that is a mean, not a rank": means[best],
        }
        suspects = {cause: value for cause, value in suspects.items() if value != expected}
        require_equal(f"the rank chosen from {name}", got, expected, suspects)
    return "the smallest rank within one standard error of the best, in four sweeps"


# --------------------------------------------------------------------------- paired differences


@exercise("9.3")
def paired_error(attempt) -> str:
    """Against the mean and the standard error by Python's statistics module."""
    for runs in (3, 9):
        luck = torch.randn(runs, dtype=torch.float64)
        one = 0.6 + 0.05 * luck + 0.01 * torch.rand(runs, dtype=torch.float64)
        other = 0.57 + 0.05 * luck + 0.02 * torch.rand(runs, dtype=torch.float64)
        other[0] = one[0] + 0.01  # one pair falls the other way
        what = f"mean and standard error of {runs} paired differences"
        got = _two_numbers(what, call(attempt, one, other, what=what))
        difference = [float(a - b) for a, b in zip(one, other, strict=True)]
        mean, spread = statistics.fmean(difference), statistics.stdev(difference)
        error = spread / math.sqrt(runs)
        sizes = [abs(value) for value in difference]
        unpaired = math.sqrt((_variance(one) + _variance(other)) / runs)
        suspects = {
            "the sign is turned round: one minus other": (-mean, error),
            "that is the standard deviation: divide by the square root of the number of pairs": (
                mean,
                spread,
            ),
            "divided by the number of pairs, not by its square root": (mean, spread / runs),
            "that is the error of two separate groups: take the differences first, pair by pair": (
                mean,
                unpaired,
            ),
            "the spread divides by n: with few pairs n - 1 is needed, torch's default": (
                mean,
                statistics.pstdev(difference) / math.sqrt(runs),
            ),
            "that is the variance over n: the square root is missing": (mean, error**2),
            "the sizes of the differences are averaged: their signs matter": (
                statistics.fmean(sizes),
                statistics.stdev(sizes) / math.sqrt(runs),
            ),
            "that is twice the error: return one": (mean, 2 * error),
            "turned round: the mean first, then its error": (error, mean),
        }
        _require_numbers(
            what, got, (mean, error), suspects, "write out three pairs and work them by hand"
        )
    return "mean and standard error of the differences, for three pairs and for nine"


def _variance(values: Tensor) -> float:
    return statistics.variance(values.tolist())


def _two_numbers(what: str, got: Any) -> tuple[float, float]:
    require_returned(what, got, "two numbers")
    require(
        isinstance(got, (tuple, list)) and len(got) == 2,
        what,
        "two numbers: the mean, and its standard error",
        got,
        "return both, as a tuple: mean, error",
    )
    require(
        all(not isinstance(value, Tensor) or value.numel() == 1 for value in got),
        what,
        "two numbers",
        got,
        "that is one value a pair: take the mean over all pairs",
    )
    return float(got[0]), float(got[1])


def _require_numbers(
    what: str,
    got: tuple[float, ...],
    expected: tuple[float, ...],
    suspects: Mapping[str, tuple[float, ...]],
    otherwise: str,
) -> None:
    def same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        return all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(one, other, strict=True))

    if not same(got, expected):
        matching = [cause for cause, value in suspects.items() if same(got, value)]
        cause = matching[0] if matching else otherwise
        shown = [tuple(float(f"{value:.5g}") for value in values) for values in (expected, got)]
        shown = [values if len(values) > 1 else values[0] for values in shown]
        require(False, what, *shown, cause)


# --------------------------------------------------------------------------- signs


def share_of_outcomes(wins: int, losses: int, far: bool = True) -> float:
    """Of all outcomes of fair coins, the share that is as uneven, or more; by listing them all."""
    flips, gap = wins + losses, abs(wins - losses)
    outcomes = itertools.product((0, 1), repeat=flips)
    gaps = [abs(2 * sum(outcome) - flips) for outcome in outcomes]
    return sum(value >= gap if far else value > gap for value in gaps) / len(gaps)


@exercise("9.4")
def sign_test(attempt) -> str:
    """Against a list of every outcome of that many coins."""
    for wins, losses in ((8, 3), (11, 1), (3, 9), (5, 4), (6, 6), (4, 0)):
        cells, most = wins + losses, max(wins, losses)
        what = f"the share of luck as uneven as {wins} to {losses}"
        got = call(attempt, wins, losses, what=what)
        expected = share_of_outcomes(wins, losses)
        tail = sum(math.comb(cells, k) for k in range(most, cells + 1)) / 2**cells
        exactly = math.comb(cells, most) / 2**cells
        beyond = share_of_outcomes(wins, losses, far=False)
        above = sum(math.comb(cells, k) for k in range(wins, cells + 1)) / 2**cells
        suspects = {
            "more than 1: at a tie both tails hold the middle, so stop at 1": 2 * tail,
            "one tail is counted: luck may favour either method, so both tails": tail,
            "the tail starts at the wins even where the losses are more: start at the larger": min(
                1.0, 2 * above
            ),
            "one tail, from the wins on: luck may favour either method": above,
            "that is the chance of exactly this outcome: add the more uneven ones": exactly,
            "that is twice the chance of exactly this outcome: add the more uneven ones": (
                2 * exactly
            ),
            "the last outcome, all coins alike, is left out: range stops before its end": (
                2 * (tail - 0.5**cells)
            ),
            "the outcome itself is left out: as uneven, or more": beyond,
            "that is the share of wins: a probability under luck is wanted": wins / cells,
            "that is the chance of one sequence: many sequences have as many wins": 0.5**cells,
            "that is the other side: the chance of less uneven outcomes": 1 - expected,
            "that is a number of outcomes: divide by all of them, 2^n": 2 * tail * 2**cells,
            "1 would be an even score: divide the sum by 2^n, and start it at the larger number": 1,
        }
        require_returned(what, got, round(expected, 5))
        require(
            isinstance(got, (int, float, np.number, Tensor)) and torch.as_tensor(got).numel() == 1,
            what,
            "a number",
            got,
            "one number is wanted: the probability of both tails together",
        )
        _require_numbers(
            what,
            (float(got),),
            (expected,),
            {cause: (value,) for cause, value in suspects.items()},
            "list all outcomes of four coins and count those as uneven as 3 to 1, or more",
        )
    return "equal to listing every outcome of the coins, for five scores and a tie"


# --------------------------------------------------------------------------- a verdict


def verdict_on_a_grid(mean: float, error: float, margin: float, errors: float = 2.0) -> str:
    """The verdict by asking the values of the interval: all, none or some are good enough."""
    values = [mean + errors * error * step / 500 for step in range(-500, 501)]
    good = [value > -margin for value in values]
    return "holds" if all(good) else "not told apart" if any(good) else "does not hold"


@exercise("9.5")
def say_comparable(attempt) -> str:
    """Against asking every value of the interval."""
    words = {"holds", "does not hold", "not told apart"}
    cases = [
        (0.1, 0.3, 1.0),
        (-0.9, 0.3, 1.0),
        (-0.6, 0.3, 1.0),
        (-1.7, 0.2, 1.0),
        (-1.2, 0.3, 1.0),
        (3.0, 0.4, 1.0),
        (0.5, 1.0, 0.5),
        (-0.1, 0.15, 0.5),
        (0.2, 0.9, 2.0),
        (-4.0, 1.1, 2.0),
    ]
    for mean, error, margin in cases:
        what = f"the verdict on {mean:+} ± {error} with margin {margin}"
        got = call(attempt, mean, error, margin, what=what)
        expected = verdict_on_a_grid(mean, error, margin)
        low, high = mean - 2 * error, mean + 2 * error
        suspects = {
            "one standard error is used: the rule takes two": (
                verdict_on_a_grid(mean, error, margin, 1)
            ),
            "an open case is called refuted: only an interval that lies below minus the margin as "
            "a whole does that": "holds" if low > -margin else "does not hold",
            "only the mean is looked at: the whole interval counts": (
                "holds" if mean > -margin else "does not hold"
            ),
            "the margin is not used: comparable means not behind by more than it": (
                "holds" if low > 0 else "does not hold" if high < 0 else "not told apart"
            ),
            "the error is not used": verdict_on_a_grid(mean, error, margin, 0),
            "the sign of the margin is turned round: behind by the margin is minus it": (
                "holds" if low > margin else "does not hold" if high < margin else "not told apart"
            ),
            "being better than by the margin is called a failure: comparable or better": (
                "holds"
                if -margin < low and high < margin
                else "does not hold"
                if high < -margin or low > margin
                else "not told apart"
            ),
        }
        suspects = {cause: value for cause, value in suspects.items() if value != expected}
        if isinstance(got, str) and got not in words:
            require(False, what, expected, got, f"the words are {', '.join(sorted(words))}")
        require_equal(what, got, expected, suspects)
    return "ten cases, held against every value of their intervals"
