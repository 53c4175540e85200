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
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from serial_lora.errors import SerialLoRAError, require_number
from serial_lora_course.data.types import ClassificationData, DividedData, Pictures

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


def first_by_hash(
    names: Sequence[str], count: int, purpose: str = "split"
) -> tuple[list[str], list[str]]:
    """Divide names in two for good: the first ``count`` in hashed order and the others, each sorted."""
    order = [names[position] for position in hash_order(names, SPLIT_SEED, purpose)]
    return sorted(order[:count]), sorted(order[count:])


def divided(
    pictures: Pictures,
    share: float,
    purpose: str = "split",
    pattern: str | None = None,
) -> tuple[Pictures, Pictures]:
    """Of each class the pictures to learn from, and a share, at least one, to judge by.

    Args:
        pictures: with labels.
        share: of each class's groups, between 0 and 1.
        purpose: as `hash_order` takes it.
        pattern: of groups, which are not divided, as `group_of` takes it.
    """
    groups = [group_of(name, pattern) for name in pictures.picture_ids]
    judged = set()
    for label in sorted(set(pictures.labels)):
        places = [place for place, of in enumerate(pictures.labels) if of == label]
        own = sorted({groups[place] for place in places})
        if len(own) < 2:
            raise SerialLoRAError(
                f"the class of {pictures.picture_ids[places[0]]} has one picture or group that is left, "
                "and needs one more, to learn from one and judge by the other; add pictures."
            )
        count = min(max(round(len(own) * share), 1), len(own) - 1)
        first = set(first_by_hash(own, count, purpose)[0])
        judged |= {place for place in places if groups[place] in first}
    learnt = [place for place in range(len(pictures)) if place not in judged]
    parts = pictures.some(learnt), pictures.some(sorted(judged))
    refuse_shared(*parts, pattern)
    return parts


def group_of(name: str, pattern: str | None) -> str:
    """What a picture shows, by its name: what a regular expression finds there, in its first brackets.

    Without a pattern, a picture is a group by itself.

    Raises:
        SerialLoRAError: nothing is found, or the pattern is no regular expression.
    """
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise SerialLoRAError(f"{pattern!r} is no regular expression ({error}).") from error
    if found is None or not found[min(1, found.re.groups)]:
        raise SerialLoRAError(
            f"{pattern!r} finds no group in {name!r}; give a regular expression that fits every picture."
        )
    return found[min(1, found.re.groups)]


def refuse_shared(learnt: Pictures, judged: Pictures, pattern: str | None) -> None:
    """Refuse two parts that have pictures of one group, which a model would know again."""
    parts = ({group_of(name, pattern) for name in part.picture_ids} for part in (learnt, judged))
    if shared := set.intersection(*parts):
        raise SerialLoRAError(
            f"the group {min(shared)!r} would lie in both parts of a division ({len(shared)} such "
            "groups); put its pictures into one class and part, or group them otherwise."
        )


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
    """Positions of ``percent`` % of the training pictures, rounded, at least one."""
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
