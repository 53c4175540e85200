"""Checks of the exercises on your own model: a split without a leak, a proof of a merge, and the whole way.

What is judged is what a split and a trained model must have in common, since many are right.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

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
    """An answer for each of several orders of the same files."""
    return lambda listings, share: [attempt(*listing, share) for listing in listings]


def sides_of(result: Any) -> list[list[int]]:
    """The positions on both sides of a split, of the right kind."""
    form = "return two lists, train and test, in that order; .tolist() converts an array"
    good = isinstance(result, (tuple, list)) and len(result) == 2
    if not good or not all(isinstance(side, (list, tuple, set)) for side in result):
        raise CheckFailed("the split", "two lists of positions", result, form, sure=True)
    if any(type(place) is not int for side in result for place in side):
        form = "return positions in the list, not names: enumerate(objects) gives both"
        raise CheckFailed("the split", "whole numbers", result, form, sure=True)
    return [list(side) for side in result]


def judged_split(results: list, listings: list, share: float) -> list:
    """What is required of a split: each picture once, objects whole, and their numbers."""
    (train, test), (objects, labels) = sides_of(results[0]), listings[0]
    places, both = set(train + test), {objects[i] for i in train} & {objects[i] for i in test}
    twice, lost = len(train + test) - len(places), len(objects) - len(places)
    held = [len({objects[i] for i in test if labels[i] == label}) for label in OBJECTS]
    return [f"{twice} twice, {lost} not at all", "some" if both else "none", held]


def judged_orders(results: list, listings: list, share: float) -> str:
    """Whether the same objects test in each order of the files."""
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
    "every picture is used once, no object is in both train and test, every class is in both, in any order of files",
    through=on_listings,
)
def split_without_leak() -> Iterator[Case]:
    """Properties of three shares, and the same files in three orders."""
    often, both = "how often each picture is used", "objects in both train and test"
    sizes = ", ".join(map(str, OBJECTS.values()))
    for share, right in {0.3: [2, 1, 4, 1], 0.1: [1, 1, 1, 1], 0.9: [6, 2, 11, 1]}.items():
        listing = listed_pictures(1, collide=False)
        held = f"how many objects of each class, of {sizes}, are in test at a share of {share}"
        yield Case(
            f"the split of {len(listing[0])} pictures of {sum(OBJECTS.values())} objects",
            ([listing], share),
            Parts({often: "0 twice, 0 not at all", both: "none", held: right}),
            read=judged_split,
            advice={often: advice_on_places, held: advice_on_numbers},
        )
    yield Case(
        "the objects in test, when the same files are listed in another order",
        ([listed_pictures(seed, collide=True) for seed in (1, 2, 3)], 0.3),
        "the same",
        read=judged_orders,
        advice="sort the objects of a class before you choose, and fix the seed",
    )


# ------------------------------------------------------------------------ 12.2 proof of a merge


@exercise(
    "12.2",
    "correct merges pass and eight kinds of wrong ones do not, for outputs of three sizes",
)
def proves_merge() -> Iterator[Case]:
    """True where the merged model is the adapted one and not the base, at any size of outputs."""
    base, effect = torch.randn(6, 5), torch.randn(6, 5)
    adapted, rounding = base + effect, 1e-6 * torch.randn(6, 5)
    little = 0.05 * adapted.abs().max()
    allowed = 1e-4 * adapted.abs().max()

    def changed(outputs: Tensor, place: tuple[int, int], number: Any) -> Tensor:
        return outputs.index_put(tuple(map(torch.tensor, place)), torch.as_tensor(number))

    with_zero, below, small = (
        changed(adapted, (0, 0), 0.0),
        -1 - adapted.abs(),
        (base / 100, effect),
    )
    with_nan = changed(with_zero, (0, 0), torch.nan)
    one_effect = changed(base, (0, 0), base[0, 0] + 4 * allowed)
    one_off = changed(adapted, (2, 3), adapted[2, 3] + 1.5 * allowed)
    large, tiny = ([size * each for each in (base, adapted, rounding)] for size in (1e4, 1e-6))
    for what, tensors, right in (
        ("a merge that only restored the base", (base, adapted, base.clone()), False),
        ("an adapter without effect", (base, base.clone(), base + rounding), False),
        ("outputs that are all a little too low", (base, adapted, adapted - little), False),
        ("outputs that are all a little too high", (base, adapted, adapted + little), False),
        ("one wrong number among right ones", (base, adapted, one_off), False),
        ("an effect as small as rounding", (base, base + rounding, base.clone()), False),
        ("a nan among the merged outputs", (base, with_zero, with_nan), False),
        ("a merge that is right", (base, adapted, adapted + rounding), True),
        ("a small base, right but for rounding", (*small, effect + 20 * rounding), True),
        ("an output of zero, right but for rounding", (base, with_zero, with_zero + 1e-6), True),
        ("outputs below zero, right but for rounding", (base, below, below + rounding), True),
        ("an effect on one output only", (base, one_effect, one_effect + rounding), True),
        ("large outputs, right but for rounding", (*large[:2], large[1] + large[2]), True),
        ("tiny outputs, half of them wrong", (*tiny[:2], tiny[1] + 5e-7 * effect), False),
    ):
        yield Case(what, (*tensors, 1e-4), right, advice="work this case out on paper")


# ------------------------------------------------------------------------ 12.3 the whole way

DIFFERENT = "the weights that differ from the base, and the rank of the difference"
PROVED = "the merge is proved"
WAY: dict[str, tuple[Any, str]] = {
    "adapters, hooks and parameters that are left in the model": (
        0,
        "eject(adapted, keep_merged=True)",
    ),
    DIFFERENT: (
        ["blocks.0.attn.qkv.weight: 2"],
        "only the weights of q, k and v may differ, by the rank of the pair",
    ),
    "objects in both train and test": ("none", ""),
    "objects of each class in test, of eight": ([2, 2, 2], "a share of 0.25 of each class"),
    "the training does not use the test pictures": (True, ""),
    "the model classifies the training pictures": (True, "train both the pairs and the head"),
    "the gradient is reset in each step": (
        True,
        "call zero_grad() before backward(), in each step",
    ),
    "no batch has more than 32 pictures": (True, "draw at most 32 training pictures per step"),
    "batches are drawn anew": (True, "draw new pictures in each step"),
    "the adapted model is run on the test pictures": (True, "run it before you merge"),
    PROVED: (True, ""),
}
"""What counts in an answer: what is right, and advice where it is not."""


def seeded(attempt: Callable, *given: Any) -> Any:
    """What an attempt returns when every usual source of random numbers starts anew."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002, which learners use too
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        return attempt(*given)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


class Watch:
    """Notes each call of a model while there is an adapter in it, and the gradients of one of its pairs."""

    def __init__(self) -> None:
        self.batches: list[Tensor] = []  # a pixel of each picture, where gradients flow
        self.asked: list[Tensor] = []  # ... of every call
        self.gradients: list[Tensor] = []
        self.pair: Tensor | None = None

    def __call__(self, model: nn.Module, given: tuple[Tensor]) -> None:
        """A forward pre-hook."""
        pairs = [p for name, p in model.named_parameters() if name.endswith("lora_B")]
        if not pairs:
            return
        self.asked.append(given[0].detach()[:, 0, 0, 0])
        if torch.is_grad_enabled():
            self.batches.append(self.asked[-1])
        if self.pair is None and pairs[0].requires_grad:
            self.pair = pairs[0]
            self.pair.register_hook(self.gradients.append)

    def __deepcopy__(self, memo: dict) -> Watch:
        """Copies of the model are watched by the same."""
        return self

    def each_step_by_itself(self) -> bool:
        """Whether the gradient that is left is not the sum of all."""
        left = None if self.pair is None else self.pair.grad
        return left is None or not torch.equal(left, sum(self.gradients))


def judged_way(attempt: Callable) -> Callable:
    """What counts of an answer: the model it gives, and whether other test pictures change it."""

    def ask(vision, pictures, labels, objects, steps, rank, lr):
        watch = Watch()
        handle = vision.register_forward_pre_hook(watch)
        result = seeded(attempt, vision, pictures, labels, objects, steps, rank, lr)
        handle.remove()
        good = isinstance(result, (tuple, list)) and len(result) == 3
        if not good or not isinstance(result[0], nn.Sequential) or len(result[0]) != 3:
            form = (
                "return three things: nn.Sequential(vision, norm, linear), test positions, proved"
            )
            raise CheckFailed("what is returned", "three things", result, form, sure=True)
        model, test, proved = result[0], [int(i) for i in result[1]], result[2]
        known, state = vision.state_dict(), model[0].state_dict()
        changed = [n for n in known if n in state and not torch.equal(known[n], state[n])]
        ranks = [torch.linalg.matrix_rank(state[n] - known[n], rtol=1e-3) for n in changed]
        different = [f"{name}: {rank}" for name, rank in zip(changed, ranks, strict=True)]
        if not steps:
            return [different, proved]
        train = [i for i in range(len(objects)) if i not in set(test)]
        other = pictures.clone()
        other[test] = 1 - other[test]
        given = copy.deepcopy(vision), other, labels, objects, steps, rank, lr
        again = seeded(attempt, *given)[0]
        asked = torch.cat([torch.zeros(0), *watch.asked])
        modules = model[0].modules()
        hooks = [h for m in modules for h in (m._forward_hooks | m._forward_pre_hooks).values()]
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(pictures[train]), labels[train])
        tested = [{objects[i] for i in test if labels[i] == label} for label in range(3)]
        return [
            sum(hook is not watch for hook in hooks) + len(state.keys() - known.keys()),
            different,
            "some" if {objects[i] for i in train} & set().union(*tested) else "none",
            [len(names) for names in tested],
            all(map(torch.equal, model.state_dict().values(), again.state_dict().values())),
            bool(loss < 0.8),  # ln 3 is 1.1
            watch.each_step_by_itself(),
            all(len(batch) <= 32 for batch in watch.batches),
            any(not torch.equal(batch, watch.batches[0]) for batch in watch.batches),
            bool(torch.isin(pictures[test][:, 0, 0, 0], asked).all()),
            proved,
        ]

    return ask


@exercise(
    "12.3",
    "the split is by object, pairs and head are trained on the training pictures only, and the merge is right and proved",
    through=judged_way,
)
def from_folder_to_model() -> Iterator[Case]:
    """Three colours, eight objects each, photographed twice; then no step at all."""
    from timm.models.vision_transformer import VisionTransformer  # seconds, for this exercise alone

    sizes = dict(img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=2, num_classes=0)
    vision = VisionTransformer(**sizes).eval()
    labels = torch.arange(3).repeat_interleave(16)
    objects = [f"object {i // 2}" for i in range(48)]
    pictures = 0.2 * torch.rand(48, 3, 8, 8)
    pictures[torch.arange(48), labels] += 0.8
    order = torch.randperm(48)
    given = pictures[order], labels[order], [objects[i] for i in order.tolist()]
    for what, steps, right in (
        ("what is returned", 10, {part: right for part, (right, _) in WAY.items()}),
        ("what is returned after no step", 0, {DIFFERENT: [], PROVED: False}),
    ):
        yield Case(
            what,
            (vision, *given, steps, 2, 6e-2),
            Parts(right),
            read=lambda found, *_: found,
            advice={part: advice for part, (_, advice) in WAY.items()},
        )
