"""What costs no adapter: a linear probe on the unadapted tiny CLIP's features, with the same shots.

Its strength is chosen as the arms' rates are: on the validation pictures of the same sets, from as many
tries. Zero-shot accuracy and the filled box need no run of their own; every record has them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from serial_lora_course.data.subsets import few_shot_split
from serial_lora_course.data.types import ClassificationData
from serial_lora_course.labs.clip import picture_features
from serial_lora_course.labs.linear_probe import probe_accuracy
from serial_lora_course.models.clip import CLIPBackbone
from serial_lora_course.study.plan import CHOOSING_SEED, PLANS, STEP, TRIED
from serial_lora_course.study.sets import CLIP_SETS, VALIDATION, load_classes

STRENGTHS = [10 * STEP**power for power in range(-(TRIED // 2), TRIED // 2 + 1)]
"""Inverse weights of the penalty: scikit-learn's C, of normalised features."""


def probe_table(backbone: CLIPBackbone, seeds: int = 5) -> pd.DataFrame:
    """A row for each set: mean accuracy over seeds, at the strength that was chosen."""
    plan = PLANS["clip"]
    reached = {
        strength: np.mean(
            [
                _probe(backbone, load_classes(name + VALIDATION), strength, CHOOSING_SEED)
                for name in plan.chosen_on
            ]
        )
        for strength in STRENGTHS
    }
    best = max(STRENGTHS, key=reached.__getitem__)
    return pd.DataFrame(
        {
            "dataset": name,
            "C": best,
            "accuracy": np.mean(
                [_probe(backbone, load_classes(name), best, s) for s in range(1, seeds + 1)]
            ),
        }
        for name in CLIP_SETS
    )


def _probe(backbone: CLIPBackbone, data: ClassificationData, strength: float, seed: int) -> float:
    """Accuracy of a probe that saw the shots of a seed."""
    shots = few_shot_split(data, PLANS["clip"].amount, seed).indices
    (known, labels), (asked, truth) = _features(backbone, data)
    return probe_accuracy((known[shots], labels[shots]), (asked, truth), strength)


_kept: dict[str, tuple] = {}


def _features(backbone: CLIPBackbone, data: ClassificationData) -> tuple:
    """Features and labels of the training pictures and of those to be measured on."""
    if data.name not in _kept:
        turned = replace(data, train=data.test, test=data.train)
        pairs = [picture_features(backbone, part) for part in (turned, data)]
        _kept[data.name] = tuple((x.cpu().numpy(), y.numpy()) for x, y in pairs)
    return _kept[data.name]
