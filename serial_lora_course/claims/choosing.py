"""What lesson 09 asks for, for whoever skips an exercise: ranks, errors, signs and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats
from torch import Tensor

from serial_lora_course.measures.intervals import half_width


def matching_rank(shapes: Sequence[tuple[int, int]], width: int, rank: int) -> int:
    """Serial LoRA's largest rank within the budget of LoRA pairs beside (inputs, outputs) matrices."""
    return rank * sum(map(sum, shapes)) // (2 * width)


def one_error_rank(sweep: Mapping[int, Sequence[float]]) -> int:
    """The smallest rank whose mean is within one standard error of the best rank's mean."""
    means = {rank: np.mean(values) for rank, values in sweep.items()}
    best = max(means, key=means.__getitem__)
    bar = means[best] - stats.sem(sweep[best])
    return min(rank for rank, mean in means.items() if mean >= bar)


def paired_error(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean of the differences ``one - other`` (sets, seeds), and its standard error over sets.

    Of a single set it is the error over seeds.
    """
    difference = (one - other).numpy()
    sample = difference.mean(axis=1) if len(difference) > 1 else difference[0]
    return float(sample.mean()), float(stats.sem(sample))


def sign_test(wins: int, losses: int) -> float:
    """The probability, under fair coins, of an outcome at least as uneven."""
    return float(stats.binomtest(wins, wins + losses).pvalue)


def say_comparable(mean: float, error: float, count: int, margin: float) -> str:
    """The verdict on "not behind by more than the margin", by the mean of ``count`` differences."""
    half = half_width(error, count - 1)
    if mean - half > -margin:
        return "holds"
    return "does not hold" if mean + half < -margin else "undecided"
