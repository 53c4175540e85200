"""The linear probe: a logistic regression on frozen features, which costs no adapter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

Features = tuple[np.ndarray, np.ndarray]
"""(N, d) and the labels, (N,)."""
STRENGTHS = (0.001, 0.01, 0.1, 1.0)


def chosen_probe(
    train: Features,
    validation: Features,
    strengths: Sequence[float] = STRENGTHS,
    weights: str | None = None,
) -> LogisticRegression:
    """The probe of the training pictures that is best on the validation pictures.

    Args:
        strengths: scikit-learn's C, the inverse weight of the penalty.
        weights: ``balanced``, or all pictures alike.
    """
    probes = (
        LogisticRegression(C=each, max_iter=5000, class_weight=weights).fit(*train)
        for each in strengths
    )
    return max(probes, key=lambda probe: probe.score(*validation))
