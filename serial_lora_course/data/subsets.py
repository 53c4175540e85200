"""Which training pictures a run learns from: the same ones on every machine, for ever.

The field's scripts draw the shots from Python's global random state, so the same seed gives other
pictures when another draw comes first. Here nothing is drawn. Pictures are *ordered* by
``sha256("PURPOSE:SEED:PICTURE_ID")`` and the first ones are taken. So the order depends on nothing but
the seed and the picture's own name: not on the platform, the library version, the order of files, or
the other pictures. And subsets are nested: the 16 shots of a seed contain its 4 shots, 50% contain 20%.
A curve then shows what more pictures bring, instead of mixing that with the luck of other pictures.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from serial_lora.errors import SerialLoRAError, require_number
from serial_lora_course.data.types import ClassificationData, DividedData

SPLIT_SEED = 1  # of every division into train and test that no publisher made


def hash_order(picture_ids: Sequence[str], seed: int, purpose: str = "shots") -> list[int]:
    """Positions of ``picture_ids`` in the order that a seed gives them.

    Args:
        picture_ids: unique names.
        seed: another seed, another order.
        purpose: keeps orders for different uses apart (the split into train and test must not
            foretell which training pictures become shots).
    """
    keys = [
        (hashlib.sha256(f"{purpose}:{seed}:{picture_id}".encode()).digest(), picture_id)
        for picture_id in picture_ids
    ]
    return sorted(range(len(keys)), key=keys.__getitem__)


def first_by_hash(names: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    """Divide names in two for good: the first ``count`` in hashed order and the others, each sorted."""
    order = [names[position] for position in hash_order(names, SPLIT_SEED, "split")]
    return sorted(order[:count]), sorted(order[count:])


class FewShotSplit(NamedTuple):
    """The pictures to learn from, and the classes that had fewer than asked for, and gave all."""

    indices: list[int]  # in the training data set, by class, then in hashed order
    short_classes: dict[str, int]  # class name -> number of pictures it has


def few_shot_indices(
    labels: Sequence[int], shots: int, seed: int, picture_ids: Sequence[str]
) -> list[int]:
    """Up to ``shots`` positions per class, by class and then in hashed order.

    Args:
        labels: (N,) class of each picture.
        shots: pictures per class; a class with fewer gives all it has.
        seed: of the order.
        picture_ids: (N,) unique names of the pictures.

    Raises:
        SerialLoRAError: ``shots`` is not a whole number of at least one.
    """
    require_number("shots", shots, whole=True, least=1)
    members: dict[int, list[int]] = {}
    for position in hash_order(picture_ids, seed):
        members.setdefault(labels[position], []).append(position)
    return [position for label in sorted(members) for position in members[label][:shots]]


def few_shot_split(data: ClassificationData, shots: int, seed: int) -> FewShotSplit:
    """The shots of a data set.

    Raises:
        SerialLoRAError: ``shots`` is not a whole number of at least one.
    """
    labels = data.train.labels
    indices = few_shot_indices(labels, shots, seed, data.train.picture_ids)
    available = Counter(labels)
    short = {
        name: available[label]
        for label, name in enumerate(data.class_names)
        if available[label] < shots
    }
    return FewShotSplit(indices, short)


def training_subset(data: DividedData, percent: int, seed: int) -> list[int]:
    """Positions of ``percent`` % of the training pictures, rounded, at least one.

    Raises:
        SerialLoRAError: ``percent`` is not between 1 and 100.
    """
    if not 1 <= percent <= 100:
        raise SerialLoRAError(f"percent must lie between 1 and 100, not {percent}.")
    count = max(1, round(len(data.train) * percent / 100))
    return hash_order(data.train.picture_ids, seed, data.purpose)[:count]


def with_few_tests(data: DividedData, most: int | None) -> DividedData:
    """The same data set with about so many of its test pictures: a shorter, coarser measurement.

    Which ones, their names decide; of a classification set, equally many of each class and at least
    one. None keeps all.
    """
    if most is None or len(data.test) <= most:
        return data
    names, labels = data.test.picture_ids, data.test.labels
    if labels is None:
        chosen = hash_order(names, 0, "few tests")[:most]
    else:
        chosen = few_shot_indices(labels, max(1, most // len(set(labels))), 0, names)
    return replace(data, test=data.test.some(sorted(chosen)))
