"""Intervals for a difference between two methods, for two questions.

Outcomes are numbers for each set, seed and test picture: how far one method is above another there, or
any other contrast of what the methods came to on the same picture. Two questions can be asked.

*Sets like these.* Sets are a sample; their means are independent, and their spread holds all that
differs from set to set, its pictures and seeds included. With equally many of both in every set, the
mixed model with sets and pictures as random effects has this closed form: a t interval over the sets'
means. It needs no library, and has the stated rate of false positives with a dozen sets, which a
bootstrap over so few has not.

*These sets.* Sets are given; pictures and seeds are the samples, crossed in each set. The mean's
variance follows from the two-way analysis of variance, with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from serial_lora.errors import SerialLoRAError

CONFIDENCE = 0.95
"""Of every interval by Student's t."""


def half_width(error: pd.Series | float, freedom: pd.Series | float) -> np.ndarray:
    """Half of the 95% interval by Student's t of a mean with this standard error; nan without freedom."""
    return stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error


@dataclass(frozen=True)
class Interval:
    """A mean with its uncertainty."""

    mean: float
    error: float  # standard error
    freedom: float  # its degrees of freedom
    count: int  # sets that it stands on

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half_width:.2f}"

    @property
    def half_width(self) -> float:
        return float(half_width(self.error, self.freedom))

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width

    @property
    def p(self) -> float:
        """Two-sided, of "the mean is 0"."""
        if self.error == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))


def sets_like_these(outcomes: Mapping[str, np.ndarray]) -> Interval:
    """For the population that the sets are a sample of, of ``outcomes``: set -> (seeds, pictures)."""
    means = np.array([np.mean(each, dtype=np.float64) for each in outcomes.values()])
    if len(means) < 2:
        raise SerialLoRAError("One set says nothing about sets like it; two at least are needed.")
    error = means.std(ddof=1) / math.sqrt(len(means))
    return Interval(float(means.mean()), float(error), len(means) - 1, len(means))


def these_sets(outcomes: Mapping[str, np.ndarray]) -> Interval:
    """For these sets, with other pictures like theirs and other seeds; of one seed, for that seed alone."""
    count, means, variances, freedoms = len(outcomes), [], [], []
    for each in outcomes.values():
        mean, variance, freedom = _crossed(np.asarray(each, np.float64))
        means.append(mean)
        variances.append(variance / count**2)
        freedoms.append(freedom)
    total = sum(variances)
    pieces = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    freedom = total**2 / pieces if pieces else sum(freedoms)
    return Interval(float(np.mean(means)), math.sqrt(total), freedom, count)


def _crossed(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, its variance and degrees of freedom of (seeds, pictures), both random."""
    seeds, pictures = values.shape
    mean = values.mean()
    by_picture = seeds * values.mean(0).var(ddof=1)  # mean squares
    if seeds == 1:
        return mean, by_picture / pictures, pictures - 1
    by_seed = pictures * values.mean(1).var(ddof=1)
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + mean
    left = (rest**2).sum() / ((seeds - 1) * (pictures - 1))
    # The seeds' share may come out below zero where it is none; then pictures are all there is.
    estimate = max(by_picture + by_seed - left, by_picture)
    squares = (
        (by_picture, pictures - 1),
        (by_seed, seeds - 1),
        (left, (seeds - 1) * (pictures - 1)),
    )
    if estimate == by_picture:
        squares = squares[:1]
    pieces = sum(square**2 / freedom for square, freedom in squares)
    freedom = estimate**2 / pieces if pieces else pictures - 1
    return mean, estimate / values.size, freedom


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: the family's false positives stay below the level."""
    order = np.argsort(ps)
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def verdict(interval: Interval) -> str:
    """Of "this is above 0": an interval on one side of 0 says so, one around it leaves it open."""
    if interval.low > 0:
        return "holds"
    return "fails" if interval.high < 0 else "open"
