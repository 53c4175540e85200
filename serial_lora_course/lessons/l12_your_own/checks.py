"""Checks of the exercises on your own model: a split, a leak, which way to take.

Of a split, what all right ones have in common is judged, since many are right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise

# ------------------------------------------------------------------ 12.1 a split without a leak

OBJECTS = {0: 7, 1: 3, 2: 12, 3: 2}  # class -> objects


@cache
def object_names(label: int, count: int, collide: bool) -> list[str]:
    """Names of a class's objects: the same everywhere, or such that their hashes collide.

    A set of names that collide comes in the order in which it was filled. So a choice from a set
    that nobody sorted is found out here, not on another machine. Python draws its hashes anew for
    each process, and so these names differ: how many objects test is judged by the others.
    """
    names = (f"class{label}/object{number}" for number in itertools.count())
    wanted = (name for name in names if not collide or hash(name) % 128 == 0)
    return list(itertools.islice(wanted, count))


def listed_pictures(seed: int, collide: bool) -> tuple[list[str], list[int]]:
    """The object and the class of each picture, in an order that the seed shuffles.

    One object of a class has two thirds of its pictures, so that a share of the pictures is not
    that share of the objects.
    """
    rows = [
        (name, label)
        for label, objects in OBJECTS.items()
        for number, name in enumerate(object_names(label, objects, collide))
        for _ in range(2 * objects if number == objects // 2 else 1)
    ]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    objects, labels = zip(*(rows[position] for position in order), strict=True)
    return list(objects), list(labels)


def on_listings(attempt: Callable) -> Callable:
    """An answer for each of several orders of the same files, or for each of several seeds."""
    return lambda listings, share, seeds: [
        attempt(*listing, share, seed) for listing, seed in zip(listings, seeds, strict=True)
    ]


def sides_of(result: Any) -> list[list[int]]:
    """The positions on both sides of a split, of the right kind."""
    form = "return two lists, train and test, in that order: list(...) or .tolist() makes one"
    good = isinstance(result, (tuple, list)) and len(result) == 2
    if not good or not all(isinstance(side, list) for side in result):
        raise CheckFailed("the split", "two lists of positions", result, form, sure=True)
    if any(type(place) is not int for side in result for place in side):
        form = "return positions in the list, not names: enumerate(objects) gives both"
        raise CheckFailed("the split", "whole numbers", result, form, sure=True)
    return list(result)


def judged_split(results: list, listings: list, *_: Any) -> list:
    """What is required of a split: each picture once, objects whole, and their numbers."""
    (train, test), (objects, labels) = sides_of(results[0]), listings[0]
    places, both = set(train + test), {objects[i] for i in train} & {objects[i] for i in test}
    twice, lost = len(train + test) - len(places), len(objects) - len(places)
    held = [len({objects[i] for i in test if labels[i] == label}) for label in OBJECTS]
    return [f"{twice} twice, {lost} not at all", f"{len(both)} of {sum(OBJECTS.values())}", held]


def judged_objects(results: list, listings: list, *_: Any) -> str:
    """Whether the same objects test each time."""
    pairs = zip(map(sides_of, results), listings, strict=True)
    tests = [{objects[i] for i in test} for (_, test), (objects, _) in pairs]
    return "the same" if all(names == tests[0] for names in tests) else "different ones"


def advice_on_places(found: str) -> str:
    """What a picture that is twice there, or not at all, most likely means."""
    if found.startswith("0 twice"):
        return "some pictures are in neither list: those of held-out objects go to test, all others to train"
    return "a picture is in both train and test, which is the most direct leak: put it into one of them"


def advice_on_numbers(held: list[int]) -> str:
    """What the numbers of objects that test most likely mean."""
    if 0 in held:
        return "a class has no object in test: choose within each class, at least one object"
    if any(number == OBJECTS[label] for label, number in enumerate(held)):
        return "all objects of a class are in test, so nothing is left to learn it from"
    return "the number of objects is wrong: choose within each class that share of its objects, not of its pictures"


@exercise(
    "12.1",
    "every picture is used once, no object is in both train and test, every class is in both, in any order of files; another seed holds out others",
    through=on_listings,
)
def split_without_leak() -> Iterator[Case]:
    """Properties of four shares, and the same files in three orders."""
    often, both = "how often each picture is used", "objects in both train and test"
    sizes = ", ".join(map(str, OBJECTS.values()))
    held_out = {0.3: [2, 1, 4, 1], 0.1: [1, 1, 1, 1], 0.9: [6, 2, 11, 1]}
    held_out |= {0.375: [3, 1, 4, 1]}  # of 12 objects 4.5, which round() makes even
    for share, right in held_out.items():
        listing = listed_pictures(1, collide=False)
        held = f"how many objects of each class, of {sizes}, are in test at a share of {share}"
        yield Case(
            f"the split of {len(listing[0])} pictures of {sum(OBJECTS.values())} objects",
            ([listing], share, [0]),
            Parts(
                {often: "0 twice, 0 not at all", both: f"0 of {sum(OBJECTS.values())}", held: right}
            ),
            read=judged_split,
            advice={
                often: advice_on_places,
                both: "pictures of one object are on both sides: choose objects, and all pictures of a chosen "
                "one test",
                held: advice_on_numbers,
            },
        )
    yield Case(
        "the objects in test, when the same files are listed in another order",
        ([listed_pictures(seed, collide=True) for seed in (1, 4, 8)], 0.3, [2] * 3),
        "the same",
        read=judged_objects,
        advice="sort the objects of a class before you choose, and choose by the seed alone",
    )
    yield Case(
        "the objects in test, at three seeds",
        ([listed_pictures(1, collide=False)] * 3, 0.3, [0, 1, 2]),
        "different ones",
        read=judged_objects,
        advice="another seed has to hold out other objects",
    )


# ------------------------------------------------------------------------------ 12.2 find the leak


@exercise(
    "12.2",
    "every test picture, and no other, that is nearer to a training picture than training pictures of different classes are to each other",
)
def pictures_that_leak() -> Iterator[Case]:
    """Random splits of sheets with two or three frames each; distances one by one."""
    for seed, classes, width, apart in ((0, 2, 3, 0), (1, 3, 4, 0), (2, 4, 2, 0), (3, 2, 3, 9)):
        chance = torch.Generator().manual_seed(seed)
        sheet = torch.arange(26) // 2 % 11
        corners = 6 * torch.rand(11, width, generator=chance)
        features = corners[sheet] + 0.4 * torch.rand(26, width, generator=chance)
        labels = sheet % classes
        features += apart * labels[:, None]
        places = torch.randperm(26, generator=chance).tolist()
        train, test = places[:16], places[16:]
        features[test[0]] += 100  # it shows nothing that training shows
        pairs = itertools.combinations(train, 2)
        far = [math.dist(features[i], features[j]) for i, j in pairs if labels[i] != labels[j]]
        near = {i: min(math.dist(features[i], features[j]) for j in train) for i in test}
        yield Case(
            f"the suspects of {len(test)} test pictures, with {classes} classes in training",
            (features, labels, train, test),
            [i for i in test if near[i] < min(far)],
            form="return a list of positions in the order of test",
        )


# ------------------------------------------------------------------------ 12.3 which way to take


@exercise(
    "12.3",
    "the cheapest way that is good enough on every draw, and a dearer one only if it is ahead of the way at hand on "
    "every draw by more than its ±; for true and false and for scores",
)
def way_to_take() -> Iterator[Case]:
    """Ways by their number of right answers on two draws of 100 sheets, easy sheets first."""
    for what, ways, bar, taken in (
        ("the first way is good enough", {"a": (80, 90), "b": (100, 100)}, 0.75, ("a", True)),
        ("the first way is just good enough", {"a": (80, 75), "b": (100, 100)}, 0.75, ("a", True)),
        (
            "the first way misses the bar on one draw",
            {"a": (90, 70), "b": (97, 93)},
            0.75,
            ("b", True),
        ),
        ("the second is hardly ahead", {"a": (60, 60), "b": (61, 61)}, 0.75, ("a", False)),
        (
            "the second is ahead on one draw only",
            {"a": (60, 60), "b": (60, 90)},
            0.75,
            ("a", False),
        ),
        ("the second is behind", {"a": (60, 60), "b": (30, 30)}, 0.75, ("a", False)),
        (
            "the third is ahead of the first, but hardly of the second",
            {"a": (30, 30), "b": (60, 60), "c": (62, 62), "d": (70, 70)},
            0.9,
            ("d", False),
        ),
        (
            "the third is behind the second, and ahead of the first",
            {"a": (30, 30), "b": (60, 60), "c": (45, 45)},
            0.9,
            ("b", False),
        ),
    ):
        right = {
            way: torch.stack([torch.arange(100) < count for count in counts])
            for way, counts in ways.items()
        }
        yield Case(f"the way to take: {what}", (right, bar), taken)
    gains = torch.tensor([0.1, 0.2]).repeat(2, 50)
    scores = {"a": torch.full((2, 100), 0.5), "b": 0.5 + gains, "c": 0.3 + gains}
    yield Case("the way to take, of scores from 0 to 1", (scores, 1), ("b", False))
