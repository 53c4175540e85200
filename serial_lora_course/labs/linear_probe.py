"""The linear probe: a logistic regression on frozen features, which costs no adapter.

Features and labels come as pairs of arrays, (N, d) and (N,). A strength is scikit-learn's C, the inverse
weight of the penalty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

Features = tuple[np.ndarray, np.ndarray]
STRENGTHS = (0.001, 0.01, 0.1, 1.0)


def probe_accuracy(train: Features, asked: Features, strength: float) -> float:
    """Share of the asked pictures that a probe of the training pictures puts into their class."""
    return float(LogisticRegression(C=strength, max_iter=5000).fit(*train).score(*asked))


def chosen_probe_accuracy(
    train: Features, validation: Features, test: Features, strengths: Sequence[float] = STRENGTHS
) -> float:
    """The same on the test pictures, at the strength that is best on the validation pictures."""
    best = max(strengths, key=lambda strength: probe_accuracy(train, validation, strength))
    return probe_accuracy(train, test, best)
