"""Which training pictures a run learns from: the same for ever, nested, apart from the test."""

import hashlib
from collections import Counter

import pytest

from serial_lora.errors import SerialLoRAError
from serial_lora_course.data.emoji_sets import EMOJI_SETS
from serial_lora_course.data.registry import load_classification
from serial_lora_course.data.subsets import few_shot_split, training_subset

#: SHA-256 over the 16 shots of seeds 1 to 5 of all the tiny sets: records were made with them.
FIRST_SHOTS = "955aee3c0b9ac9e8ab09d780b7622d95546a1771dc3e77e9add5ab4fc73475d0"


def test_the_shots_of_the_tiny_sets_never_change():
    digest = hashlib.sha256()
    for name in EMOJI_SETS:
        data = load_classification(name)
        for seed in range(1, 6):
            split = few_shot_split(data, 16, seed)
            shots = [(data.train.labels[i], data.train.picture_ids[i]) for i in split.indices]
            digest.update(f"{name}\t{seed}\t{shots}\n".encode())
    assert digest.hexdigest() == FIRST_SHOTS


def test_a_class_with_fewer_pictures_gives_all_and_is_named():
    data = load_classification("symbols")
    there = Counter(data.train.labels)
    fewest, most = min(there.values()), max(there.values())
    for shots, short in ((fewest, 0), (fewest + 1, 1), (most + 1, len(there))):
        split = few_shot_split(data, shots, seed=1)
        given = Counter(data.train.labels[i] for i in split.indices)
        assert given == {label: min(shots, count) for label, count in there.items()}
        named = {data.class_names[label]: n for label, n in there.items() if n < shots}
        assert split.short_classes == named and len(named) >= short


def test_shares_are_nested_and_rounded():
    data = load_classification("nature")
    whole = training_subset(data, 100, seed=1)
    assert sorted(whole) == list(range(len(data.train)))
    for percent in (1, 20, 50):
        part = training_subset(data, percent, seed=1)
        assert len(part) == max(1, round(len(data.train) * percent / 100))
        assert whole[: len(part)] == part
    assert training_subset(data, 20, seed=2) != training_subset(data, 20, seed=1)
    for percent in (0, 101):
        with pytest.raises(SerialLoRAError, match="percent"):
            training_subset(data, percent, 1)
