"""Checks of the exercises on your own model: a split without a leak, a proof of a merge, and the whole way.

What is judged is what a split and a trained model must have in common, since many are right.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from serial_lora import SerialLoRAConfig, eject, inject
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


def split(chosen: Callable, by_class: bool = True, side: Callable = lambda train, test: None):
    """A split that holds out the objects ``chosen(names, share)`` of each class, or of all."""

    def attempt(objects, labels, share):
        held = set()
        for label in sorted(set(labels)) if by_class else [None]:
            own = [name for name, of in zip(objects, labels, strict=True) if label in (None, of)]
            held |= set(chosen(own, share))
        test = [i for i, name in enumerate(objects) if name in held]
        train = [i for i, name in enumerate(objects) if name not in held]
        return side(train, test) or (train, test)

    return attempt


def some(
    count: Callable = lambda share, objects: min(max(round(share * objects), 1), objects - 1),
    order: Callable = lambda own: sorted(set(own)),
) -> Callable:
    """So many of a class's objects, in an order that ``order`` makes of the names of its pictures."""

    def chosen(own, share):
        names = list(order(own))
        return names[: count(share, len(names))]

    return chosen


def share_of_pictures(own: list[str], share: float) -> set[str]:
    """Objects until they have that share of the class's pictures."""
    held: set[str] = set()
    for name in sorted(set(own))[:-1]:
        if sum(each in held for each in own) < share * len(own):
            held.add(name)
    return held


def by_picture(objects, labels, share):
    """Pictures are held out, whatever they show."""
    names = [hashlib.sha256(f"{i} {name}".encode()).hexdigest() for i, name in enumerate(objects)]
    order = sorted(range(len(objects)), key=names.__getitem__)
    count = round(share * len(order))
    return order[count:], order[:count]


def on_listings(attempt: Callable) -> Callable:
    """An answer for each of several orders of the same files."""
    return lambda listings, share: [attempt(*listing, share) for listing in listings]


def judged_split(results: list, listings: list, share: float) -> dict[str, Any]:
    """What is required of a split: each picture once, objects whole, their numbers, any order."""
    chosen = []
    for result, (objects, _) in zip(results, listings, strict=True):
        form = (
            "return the two lists: train, test, in that order; .tolist() makes a list of an array"
        )
        good = isinstance(result, (tuple, list)) and len(result) == 2
        if not good or not all(isinstance(side, (list, tuple, set)) for side in result):
            raise CheckFailed("the split", "two lists of positions", result, form, sure=True)
        places = [place for side in result for place in side]
        if any(not isinstance(place, int) or isinstance(place, bool) for place in places):
            form = "positions in the list are wanted, not names: enumerate(objects) gives both"
            raise CheckFailed("the split", "whole numbers", result, form, sure=True)
        train, test = ({objects[i] for i in side if i < len(objects)} for side in result)
        chosen.append(test)
    objects, labels = listings[0]
    train, test = map(list, results[0])
    every = sorted(train + test)
    twice, lost = len(every) - len(set(every)), len(objects) - len(set(every))
    both = {objects[i] for i in train} & {objects[i] for i in test}
    held = [len({objects[i] for i in test if labels[i] == label}) for label in OBJECTS]
    found = [
        f"{twice} twice, {lost} not at all",
        "some" if both else "none",
        held,
        "the same" if all(names == chosen[0] for names in chosen) else "others",
    ]
    return dict(zip(split_parts(share), found, strict=True))


def split_parts(share: float) -> list[str]:
    """What is compared of a split."""
    sizes = ", ".join(map(str, OBJECTS.values()))
    return [
        "how often each picture is there",
        "objects that train and test",
        f"how many objects of classes of {sizes} test, at a share of {share}",
        "the objects that test, when the same files are listed in another order",
    ]


def advice_on_places(found: str) -> str:
    """What a picture that is twice there, or not at all, most likely means."""
    if found.startswith("0 twice"):
        return "pictures are lost: each goes to one side, those of held-out objects to test"
    return "a picture is on both sides: the plainest leak there is"


def advice_on_numbers(held: list[int]) -> str:
    """What the numbers of objects that test most likely mean."""
    if 0 in held:
        return "a class is never tested: choose within each class, and at least one object of it"
    if any(number == OBJECTS[label] for label, number in enumerate(held)):
        return "a whole class tests: nothing is left to learn it from"
    return "choose within each class, that share of its objects, not of its pictures"


@exercise(
    "12.1",
    "every picture once, objects whole, every class on both sides, in any order of files",
    {
        "a picture is on both sides: the plainest leak there is": split(
            some(), side=lambda train, test: (sorted(train + test), test)
        ),
        "pictures are lost: each goes to one side, those of held-out objects to test": split(
            some(), side=lambda train, test: (train, test[::2])
        ),
        "pictures are divided, not objects: choose among the objects, then send all pictures of a "
        "chosen object to test": by_picture,
        "the sides are exchanged: train comes first, test is smaller": split(
            some(), side=lambda train, test: (test, train)
        ),
        "the share is cut off, not rounded: round(share * objects)": split(
            some(lambda share, n: max(int(share * n), 1))
        ),
        "the share is rounded up: round(share * objects)": split(
            some(lambda share, n: min(math.ceil(share * n), n - 1))
        ),
        "a class is never tested: choose within each class, and at least one object of it": split(
            some(lambda share, n: min(round(share * n), n - 1))
        ),
        "a whole class tests: nothing is left to learn it from": split(
            some(lambda share, n: max(round(share * n), 1))
        ),
        "that is a share of the pictures: it is one of the objects": split(share_of_pictures),
        "choose within each class, that share of its objects": split(some(), by_class=False),
        "the choice depends on the order in which files are listed, which differs from machine to "
        "machine: sort the objects of a class by name before you choose, and fix the seed": (
            split(some(order=dict.fromkeys)),
            split(some(order=set)),
        ),
    },
    through=on_listings,
)
def split_without_leak() -> Iterator[Case]:
    """Properties of three shares, and the same files in three orders."""
    counts = {0.3: [2, 1, 4, 1], 0.1: [1, 1, 1, 1], 0.9: [6, 2, 11, 1]}
    for share, held in counts.items():
        listing = listed_pictures(1, collide=False)
        values = ["0 twice, 0 not at all", "none", held, "the same"]
        what = f"the split of {len(listing[0])} pictures of {sum(OBJECTS.values())} objects"
        parts = split_parts(share)
        yield Case(
            what,
            ([listing], share),
            Parts(dict(zip(parts, values, strict=True))),
            read=judged_split,
            advice={parts[0]: advice_on_places, parts[2]: advice_on_numbers},
        )
    listings = [listed_pictures(seed, collide=True) for seed in (1, 2, 3)]
    parts = split_parts(0.3)[3:]
    yield Case(
        "the split of the same files in three orders",
        (listings, 0.3),
        Parts({parts[0]: "the same"}),
        read=lambda *given: {parts[0]: judged_split(*given)[parts[0]]},
        advice={parts[0]: "sort the objects of a class before you choose, and fix the seed"},
    )


# ------------------------------------------------------------------------ 12.2 proof of a merge


def proof(
    near: Callable = lambda a, m, limit: (m - a).abs().max() <= limit,
    effect: Callable = lambda b, a, limit: (a - b).abs().max() > limit,
    limit: Callable = lambda a, tolerance: tolerance * a.abs().max(),
) -> Callable:
    """The proof with one of its parts changed."""

    def attempt(base, adapted, merged, tolerance):
        allowed = limit(adapted, tolerance)
        return bool(near(adapted, merged, allowed) and effect(base, adapted, allowed))

    return attempt


@exercise(
    "12.2",
    "right merges pass and eight kinds of wrong ones do not, at three sizes of outputs",
    {
        "nothing is proved while the adapter does nothing: look at the effect too": proof(
            effect=lambda *_: True
        ),
        "the merged model must be compared with the adapted one, not with the base": (
            lambda b, a, m, t: (
                bool((b - m).abs().max() <= t * a.abs().max())
                and bool((a - b).abs().max() > t * a.abs().max())
            )
        ),
        "one output that changes is an effect, up or down: the largest difference counts, not a "
        "mean": proof(effect=lambda b, a, limit: (a - b).abs().mean() > limit),
        "the adapter's effect is within rounding: an effect has to be above what is allowed": (
            proof(effect=lambda b, a, limit: not torch.equal(a, b))
        ),
        "a mean hides one wrong number: take the largest difference": (
            proof(near=lambda a, m, limit: (m - a).abs().mean() <= limit),
            proof(near=lambda a, m, limit: (m - a).square().mean().sqrt() <= limit),
            lambda b, a, m, t: bool(
                (m - a).norm() <= t * a.norm() and (a - b).norm() > t * a.norm()
            ),
        ),
        "each output is measured by itself, and near zero every rounding is large: one limit for "
        "all, taken from the largest output": lambda b, a, m, t: (
            torch.allclose(m, a, rtol=t, atol=0) and proof()(b, a, a, t)
        ),
        "the largest output is the one that is furthest from zero: abs() before max()": proof(
            limit=lambda a, tolerance: tolerance * a.max()
        ),
        "the limit goes with the largest adapted output, not with the base's": (
            lambda b, a, m, t: proof(limit=lambda *_: t * b.abs().max())(b, a, m, t)
        ),
        "differences below zero count as well: abs() before max()": (
            proof(near=lambda a, m, limit: (m - a).max() <= limit),
            proof(near=lambda a, m, limit: (a - m).max() <= limit),
        ),
        "the tolerance is a share of the outputs' size: multiply it by that size, since rounding "
        "grows with it": proof(limit=lambda a, tolerance: tolerance),
        "it asks for equality to the last bit: sums in another order differ by rounding": proof(
            near=lambda a, m, limit: torch.equal(a, m)
        ),
        "every comparison with nan is False: ask whether the difference is within what is allowed, "
        "not whether it is above": (
            proof(near=lambda a, m, limit: not (m - a).abs().max() > limit),
            proof(near=lambda a, m, limit: (m.nan_to_num() - a).abs().max() <= limit),
        ),
    },
)
def proves_merge() -> Iterator[Case]:
    """True where the merged model is the adapted one and not the base, at any size of outputs."""
    base, effect = torch.randn(6, 5), torch.randn(6, 5)
    adapted, rounding = base + effect, 1e-6 * torch.randn(6, 5)
    little = 0.05 * adapted.abs().max()
    allowed = 1e-4 * adapted.abs().max()

    def changed(outputs: Tensor, place: tuple[int, int], number: Any) -> Tensor:
        return outputs.index_put(tuple(map(torch.tensor, place)), torch.as_tensor(number))

    with_zero, below = changed(adapted, (0, 0), 0.0), -1 - adapted.abs()
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
        (
            "a nan among the merged outputs",
            (base, with_zero, changed(with_zero, (0, 0), torch.nan)),
            False,
        ),
        ("a merge that is right", (base, adapted, adapted + rounding), True),
        (
            "a small base, right but for rounding",
            (base / 100, effect, effect + 20 * rounding),
            True,
        ),
        ("an output of zero, right but for rounding", (base, with_zero, with_zero + 1e-6), True),
        ("outputs below zero, right but for rounding", (base, below, below + rounding), True),
        ("an effect on one output only", (base, one_effect, one_effect + rounding), True),
        ("large outputs, right but for rounding", (*large[:2], large[1] + large[2]), True),
        ("tiny outputs, half of them wrong", (*tiny[:2], tiny[1] + 5e-7 * effect), False),
    ):
        yield Case(what, (*tensors, 1e-4), right, advice="work this case out on paper")


# ------------------------------------------------------------------------ 12.3 the whole way

LEFT = "adapters, hooks and other parameters that the model itself does not have"
DIFFERENT = "the weights that differ from the base, and the rank of the difference"
TESTED = "how many objects of each class test, of eight"
BOTH_SIDES = "objects that train and test"
UNSEEN = "trained without a look at the test pictures"
LEARNT = "the training pictures are told apart"
SMALL = "no batch has more than 32 pictures"
DRAWN = "batches are drawn anew"
ASKED = "the adapted model is asked about the test pictures before it is merged"
PROVED = "the merge is proved"


OBJECTS_APART = split(some())


def whole_way(
    divide: Callable = OBJECTS_APART,
    draw_from: Callable = lambda train, every: train,
    learning: Callable = lambda model: [p for p in model.parameters() if p.requires_grad],
    prepare: Callable = lambda model: model,
    finish: Callable = lambda adapted: eject(adapted, keep_merged=True),
    proof_of: Callable = lambda base, adapted, merged: proof()(base, adapted, merged, 1e-4),
    steps_of: Callable = lambda steps: steps,
    batch_of: Callable = lambda source: source[torch.randperm(len(source))[:32]],
    asked_after: bool = False,
    given_back: Callable = lambda model, train, test, proved: (model, test, proved),
) -> Callable:
    """The way from pictures to a merged model, with one of its parts changed."""

    def attempt(vision, pictures, labels, objects, steps, rank=8, lr=2e-3):
        every = list(range(len(objects)))
        train, test = divide(objects, labels.tolist(), 0.25)
        adapted = inject(copy.deepcopy(vision), SerialLoRAConfig(rank=rank))
        width = vision(pictures[:1]).shape[1]
        head = nn.Linear(width, int(labels.max()) + 1)
        model = nn.Sequential(adapted, nn.LayerNorm(width, elementwise_affine=False), head)
        optimizer = torch.optim.AdamW(learning(prepare(model)), lr=lr)
        source = torch.tensor(draw_from(train, every))
        for _ in range(steps_of(steps)):
            batch = batch_of(source)
            loss = nn.functional.cross_entropy(model(pictures[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            base = vision(pictures[test])
            trained = None if asked_after else adapted(pictures[test])
            finish(adapted)
            merged = adapted(pictures[test])
            proved = proof_of(base, merged if trained is None else trained, merged)
        return given_back(model, train, test, proved)

    return attempt


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


CALLS: list[tuple[Tensor, bool]] = []
"""Of each call of a model with an adapter in it: a pixel of each picture, and whether it may train."""


@cache
def watched_transformer() -> type[nn.Module]:
    """A small model of timm's, whose calls are noted while it has an adapter."""
    from timm.models.vision_transformer import VisionTransformer  # seconds, for this exercise alone

    class WatchedTransformer(VisionTransformer):
        def forward(self, x: Tensor) -> Tensor:
            if any("lora" in name for name, _ in self.named_parameters()):
                CALLS.append((x.detach()[:, 0, 0, 0], torch.is_grad_enabled()))
            return super().forward(x)

    return WatchedTransformer


def judged_way(attempt: Callable) -> Callable:
    """What counts of an answer: the model it gives, and whether other test pictures change it."""

    def ask(vision, pictures, labels, objects, steps, rank, lr):
        CALLS.clear()
        result = seeded(attempt, vision, pictures, labels, objects, steps, rank, lr)
        calls = CALLS.copy()
        good = isinstance(result, (tuple, list)) and len(result) == 3
        if not good or not isinstance(result[0], nn.Sequential) or len(result[0]) != 3:
            form = (
                "return three things: nn.Sequential(vision, norm, linear), test positions, proved"
            )
            raise CheckFailed("what is returned", "three things", result, form, sure=True)
        model, test, proved = result[0], [int(i) for i in result[1]], result[2]
        known, state = vision.state_dict(), model[0].state_dict()
        changed = [n for n in known if n in state and not torch.equal(known[n], state[n])]
        rank_of = torch.linalg.matrix_rank
        ranks = [int(rank_of(state[n] - known[n], rtol=1e-3)) for n in changed]
        different = [f"{n}: {r}" for n, r in zip(changed, ranks, strict=True)]
        if not steps:
            return {DIFFERENT: different, PROVED: proved}
        train = [i for i in range(len(objects)) if i not in set(test)]
        other = pictures.clone()
        other[test] = 1 - other[test]
        given = copy.deepcopy(vision), other, labels, objects, steps, rank, lr
        again = seeded(attempt, *given)[0]
        batches = [batch for batch, trains in calls if trains]
        asked = torch.cat([batch for batch, _ in calls]) if calls else torch.zeros(0)
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model[0].modules())
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(pictures[train]), labels[train])
        tested = [{objects[i] for i in test if labels[i] == label} for label in range(3)]
        return {
            LEFT: hooks + len(state.keys() - known.keys()),
            DIFFERENT: different,
            BOTH_SIDES: "some" if {objects[i] for i in train} & set().union(*tested) else "none",
            TESTED: [len(names) for names in tested],
            UNSEEN: all(map(torch.equal, model.state_dict().values(), again.state_dict().values())),
            LEARNT: bool(loss < 0.8),  # ln 3 is 1.1
            SMALL: all(len(batch) <= 32 for batch in batches),
            DRAWN: any(not torch.equal(batch, batches[0]) for batch in batches),
            ASKED: bool(torch.isin(pictures[test][:, 0, 0, 0], asked).all()),
            PROVED: proved,
        }

    return ask


def thawed(model: nn.Module) -> nn.Module:
    """Everything is trained."""
    return model.requires_grad_(True)


@exercise(
    "12.3",
    "objects apart, pairs and head trained on the training pictures alone, merged, and proved",
    {
        "the test pictures are trained on as well: draw the batches from `train` alone": whole_way(
            draw_from=lambda train, every: every
        ),
        "pictures are divided, not objects: use your split of 12.1": whole_way(divide=by_picture),
        "the whole model is trained: leave what inject froze frozen": whole_way(prepare=thawed),
        "the adapter is still there: eject(adapted, keep_merged=True)": whole_way(
            finish=lambda adapted: adapted
        ),
        "what the pairs learnt is not in the weights: the optimizer needs all that requires a gradient, and "
        "eject needs keep_merged=True": (
            whole_way(finish=eject),
            whole_way(learning=lambda model: model[2].parameters()),
        ),
        "proved is always True: nothing was trained in zero steps, so nothing is proved": whole_way(
            proof_of=lambda *_: True
        ),
        "the base's outputs are those of the model that came in, which has no adapter": whole_way(
            proof_of=lambda base, adapted, merged: proof()(adapted, adapted, merged, 1e-4)
        ),
        "the adapted outputs for the test pictures are needed before you merge: afterwards the merged model "
        "only equals itself": whole_way(asked_after=True),
        "one batch has all training pictures: at most 32": whole_way(
            batch_of=lambda source: source
        ),
        "the same 32 pictures every time: draw anew in each step": whole_way(
            batch_of=lambda source: source[:32]
        ),
        "`steps` is not used: so many times the optimizer steps": whole_way(
            steps_of=lambda steps: 15
        ),
        "those are the training positions: return the test's": whole_way(
            given_back=lambda model, train, test, proved: (model, train, proved)
        ),
    },
    through=judged_way,
)
def from_folder_to_model() -> Iterator[Case]:
    """Three colours, eight objects each, photographed twice; then no step at all."""
    sizes = dict(img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=2, num_classes=0)
    vision = watched_transformer()(**sizes).eval()
    labels = torch.arange(3).repeat_interleave(16)
    objects = [f"object {i // 2}" for i in range(48)]
    pictures = 0.2 * torch.rand(48, 3, 8, 8)
    pictures[torch.arange(48), labels] += 0.8
    order = torch.randperm(48)
    given = pictures[order], labels[order], [objects[i] for i in order.tolist()]
    right = [0, ["blocks.0.attn.qkv.weight: 2"], "none", [2, 2, 2], *[True] * 6]
    names = (LEFT, DIFFERENT, BOTH_SIDES, TESTED, UNSEEN, LEARNT, SMALL, DRAWN, ASKED, PROVED)
    advice = {
        LEFT: "merge with eject(adapted, keep_merged=True)",
        DIFFERENT: "only q, k and v may differ, by the rank of the pair",
        TESTED: "the share is 0.25, of each class's objects",
        LEARNT: "the loss has to fall: pairs and head both learn, by zero_grad, backward, step",
        SMALL: "draw at most 32 of the training pictures in each step",
        DRAWN: "draw other pictures in each step",
        ASKED: "prove it with the test pictures, and take the adapted outputs before you merge",
    }
    yield Case(
        "what is returned",
        (vision, *given, 15, 2, 3e-2),
        Parts(dict(zip(names, right, strict=True))),
        read=lambda found, *_: found,
        advice=advice,
    )
    yield Case(
        "what is returned after no step",
        (vision, *given, 0, 2, 3e-2),
        Parts({DIFFERENT: [], PROVED: False}),
        read=lambda found, *_: found,
    )
