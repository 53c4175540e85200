"""What the study's intervals are of, and how small a difference they can see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from serial_lora_course.measures.intervals import (  # noqa: F401
    CONFIDENCE,
    Interval,
    holm,
    sets_like_these,
    these_sets,
    verdict,
)

KEPT_SHARE = 0.9
"""Of LoRA's gain over the unadapted model: what is called keeping it."""


def kept_gain(method: np.ndarray, lora: np.ndarray, base: np.ndarray) -> np.ndarray:
    """How far a method is above 90% of LoRA's gain, on each picture: a plain contrast of outcomes.

    Args:
        method, lora: (seeds, pictures).
        base: (pictures,) of the unadapted model.
    """
    return (method - base) - KEPT_SHARE * (lora - base)


@dataclass(frozen=True)
class Spread:
    """What makes differences between two methods vary.

    Attributes:
        between: standard deviation of the sets' own means, for endless pictures and seeds.
        within: that of one run's difference about its set's, with ``pictures`` test pictures.
    """

    between: float
    within: float
    pictures: float

    def planned(self, sets: int, seeds: int, pictures: float, mean: float = 0.0) -> Interval:
        """The interval of a study with so many; pictures are drawn anew in every seed's run.

        The pictures of a set are the same for each seed, so the larger part of what they bring is in
        ``between`` already, and stays there: more pictures make the study better than it says here.
        """
        variance = self.between**2 + self.within**2 * (self.pictures / pictures) / seeds
        return Interval(mean, math.sqrt(variance / sets), sets - 1, sets)


def spread_of(differences: Mapping[str, Sequence[float]], pictures: float) -> Spread:
    """From the differences of finished runs: set -> one a seed, equally many in each."""
    table = np.array(list(differences.values()), np.float64)  # (sets, seeds)
    within = table.var(axis=1, ddof=1).mean()
    between = max(0.0, table.mean(1).var(ddof=1) - within / table.shape[1])
    return Spread(math.sqrt(between), math.sqrt(within), pictures)


def detectable(interval: Interval, power: float = 0.8) -> float:
    """The smallest true difference that such a study finds with this probability."""
    wanted = stats.t.ppf((1 + CONFIDENCE) / 2, interval.freedom) + stats.t.ppf(
        power, interval.freedom
    )
    return float(wanted) * interval.error
