"""Checks of the exercises on your own model: a split without a leak, a proof of a merge, a pair, sites.

The split is judged by its properties, since many are right. The sites are used: adapters are put
there, and the outputs are compared with a model whose weights were written by hand.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora import adapters, attention
from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.injection import inject
from serial_lora.sites import AttentionSite, Projection
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise
from serial_lora_course.models.parallel_vit import ParallelBlock, ParallelViT

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
    "right merges pass and nine kinds of wrong ones do not, at three sizes of outputs",
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
        "the adapter's effect is how far the adapted model is from the base, not the merged one": (
            lambda b, a, m, t: (
                bool((m - a).abs().max() <= t * a.abs().max())
                and bool((m - b).abs().max() > t * a.abs().max())
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
            proof(near=lambda a, m, limit: (m - a).abs().mean() <= 0.1),
        ),
        "each output is measured by itself, and near zero every rounding is large: one limit for "
        "all, taken from the largest output": lambda b, a, m, t: (
            torch.allclose(m, a, rtol=t, atol=0) and proof()(b, a, a, t)
        ),
        "the largest output is the one that is furthest from zero: abs() before max()": proof(
            limit=lambda a, tolerance: tolerance * a.max()
        ),
        "differences below zero count as well: abs() before max()": (
            proof(near=lambda a, m, limit: (m - a).max() <= limit),
            proof(near=lambda a, m, limit: (a - m).max() <= limit),
        ),
        "every output may be off by that limit: compare the largest difference, no norm": proof(
            near=lambda a, m, limit: (m - a).norm() <= limit / a.abs().max() * a.norm()
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
    allowed, limit_of_base = (1e-4 * each.abs().max() for each in (adapted, base))

    def changed(outputs: Tensor, place: tuple[int, int], number: Any) -> Tensor:
        return outputs.index_put(tuple(map(torch.tensor, place)), torch.as_tensor(number))

    with_zero, below = changed(adapted, (0, 0), 0.0), -1 - adapted.abs()
    one_effect = changed(base, (0, 0), base[0, 0] + 4 * allowed)
    one_off = changed(adapted, (2, 3), adapted[2, 3] + 3 * allowed)
    large, tiny = ([size * each for each in (base, adapted, rounding)] for size in (1e4, 1e-6))
    for what, tensors, right in (
        ("a merge that only restored the base", (base, adapted, base.clone()), False),
        ("an adapter without effect", (base, base.clone(), base + rounding), False),
        ("outputs that are all a little too low", (base, adapted, adapted - little), False),
        ("outputs that are all a little too high", (base, adapted, adapted + little), False),
        ("one wrong number among right ones", (base, adapted, one_off), False),
        ("an effect as small as rounding", (base, base + rounding, base.clone()), False),
        (
            "an effect within rounding, which the merge exceeds",
            (base, base + 0.6 * limit_of_base, base + 1.2 * limit_of_base),
            False,
        ),
        (
            "a nan among the merged outputs",
            (base, with_zero, changed(with_zero, (0, 0), torch.nan)),
            False,
        ),
        ("a merge that is right", (base, adapted, adapted + rounding), True),
        ("an output of zero, right but for rounding", (base, with_zero, with_zero + 1e-6), True),
        ("outputs below zero, right but for rounding", (base, below, below + rounding), True),
        ("an effect on one output only", (base, one_effect, one_effect + rounding), True),
        ("large outputs, right but for rounding", (*large[:2], large[1] + large[2]), True),
        ("tiny outputs, half of them wrong", (*tiny[:2], tiny[1] + 5e-7 * effect), False),
        ("every output off by nearly the limit", (base, adapted, adapted + 0.9 * allowed), True),
    ):
        yield Case(what, (*tensors, 1e-4), right, advice="work this case out on paper")


# --------------------------------------------------------------------------- 12.3 the same pair


def exported(
    up: Callable = lambda W, A, B, s: s * W @ B, down: Callable = lambda W, A, B, s: A
) -> Callable:
    """The two factors with one of them changed."""
    return lambda W, A, B, s: (down(W, A, B, s), up(W, A, B, s))


@exercise(
    "12.3",
    "B A is W (I + scale B A) - W, for a square weight and for q, k and v fused in one",
    {
        "the scale is lost: PEFT multiplies by its own, which is 1": exported(
            lambda W, A, B, s: W @ B
        ),
        "the scale is in both factors: it counts once": exported(down=lambda W, A, B, s: s * A),
        "the scale is divided by the rank: PEFT multiplies by 1 here": exported(
            lambda W, A, B, s: s / len(A) * W @ B
        ),
        "that is LoRA's own change, B A beside W: here W acts on what B gives": exported(
            lambda W, A, B, s: s * B
        ),
        "W is turned round: nn.Linear keeps (out, in), and W stands left of B": exported(
            lambda W, A, B, s: s * W.T @ B
        ),
        "the factors are exchanged: A reads the tokens, so first": lambda W, A, B, s: exported()(
            W, A, B, s
        )[::-1],
        "B is turned round: (out, r)": exported(lambda W, A, B, s: (s * W @ B).T),
        "A is (r, d) and B is (out, r): keep the change in two thin factors": lambda W, A, B, s: (
            B @ A,
            s * W,
        ),
        "return both factors: A first, then B": lambda W, A, B, s: s * W @ B @ A,
    },
)
def exported_pair() -> Iterator[Case]:
    """Two factors whose product is W (I + s B A) - W, for a square and for a fused weight."""

    def read(pair: Any, *_: Any) -> tuple:
        first, second = pair
        fits = first.shape[0] == second.shape[-1]
        return [tuple(first.shape), tuple(second.shape)], second @ first if fits else None

    for rows, width, rank, scale in ((8, 8, 2, 0.7), (24, 8, 3, 2.0)):
        weight, A, B = torch.randn(rows, width), torch.randn(rank, width), torch.randn(width, rank)
        what = f"the pair for a weight {rows}x{width} at rank {rank}"
        change = weight @ (torch.eye(width) + scale * B @ A) - weight
        shapes = [(rank, width), (rows, rank)]
        expected = Parts({f"{what}: the shapes of A and B": shapes, f"{what}: B times A": change})
        form = "return both factors: A first, then B"
        yield Case(what, (weight, A, B, scale), expected, read=read, form=form, error=form)


# ---------------------------------------------------------------------------- 12.4 the sites


def sites(
    model: nn.Module,
    entry: str = ".attention",
    argument: str | None = "tokens",
    number: Callable = lambda name: int(name.split(".")[-1]),
    named: Callable = lambda name: name,
    within: Callable = lambda name: f"{name}.attention",
    layers: Sequence[str] = ("query", "key_value", "key_value", "collect"),
    halves: Sequence[tuple[int, int]] = ((0, 1), (0, 1), (1, 1), (0, 1)),
    parts: str = "q k v out",
    parameter: str = "weight",
) -> list[AttentionSite]:
    """The sites of a ParallelViT, with one thing changed."""
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, ParallelBlock):
            continue
        width = module.norm.normalized_shape[0]
        every = {
            part: Projection(
                f"{within(name)}.{layer}", parameter, start * width, rows * width, width
            )
            for part, layer, (start, rows) in zip("q k v out".split(), layers, halves, strict=True)
        }
        found.append(
            AttentionSite(
                name=named(name),
                tower="image",
                block=number(name),
                width=width,
                entry=within(name) if entry == ".attention" else name + entry,
                argument=argument,
                projections={part: every[part] for part in parts.split()},
            )
        )
    return found


def changed(**options: Any) -> Callable:
    """An answer whose sites differ in one thing."""
    return lambda model: sites(model, **options)


def listed(attempt: Callable) -> Callable:
    """All sites that an answer gives."""

    def ask(model: nn.Module) -> list | None:
        found = attempt(model)
        if isinstance(found, AttentionSite):
            cause = "return ends the loop at the first block: yield each site instead"
            raise CheckFailed("the sites", "one for each block", found, cause, sure=True)
        return None if found is None else list(found)

    return ask


@contextmanager
def only_family(family: Callable) -> Iterator[None]:
    """The package knows this family and no other for the length of the block."""
    kept = list(attention.FAMILIES)
    attention.FAMILIES[:] = [family]
    try:
        yield
    finally:
        attention.FAMILIES[:] = kept


def adapted_at(model: nn.Module, found: list[AttentionSite], config: Any) -> nn.Module:
    """A copy of the model with seeded adapters at these sites.

    Raises:
        SerialLoRAError: inject refuses them.
    """
    with only_family(lambda _: iter(found)):
        adapted = inject(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(2)
    for pair in adapters(adapted).values():
        for factor in (pair.lora_A, pair.lora_B):
            nn.init.normal_(factor, std=0.3, generator=generator)
    return adapted


@torch.no_grad()
def with_dense_weights(plain: ParallelViT, adapted: nn.Module, beside: bool) -> ParallelViT:
    """The plain model with the pairs of an adapted one multiplied out into its own weights.

    ``beside`` for LoRA's own pairs; else Serial LoRA's, in front of the attention alone.
    """
    tensors, model = adapted.state_dict(), copy.deepcopy(plain)
    for index, block in enumerate(model.stages):
        layers, prefix = block.attention, f"stages.{index}"
        key, value = layers.key_value.weight.chunk(2)
        weights = {"q": layers.query.weight, "k": key, "v": value}
        if beside:
            for part, weight in (weights | {"out": layers.collect.weight}).items():
                weight += product_of(tensors, f"{prefix}.lora_{part}")
        else:
            dense = torch.eye(key.shape[-1]) + product_of(tensors, f"{prefix}.serial_lora")
            for weight in weights.values():
                weight.copy_(torch.einsum("oi,id->od", weight, dense))
    return model


def product_of(tensors: dict[str, Tensor], pair: str) -> Tensor:
    """B A of a pair in a state dict."""
    return torch.einsum("or,rd->od", tensors[f"{pair}.lora_B"], tensors[f"{pair}.lora_A"])


METHODS = {"Serial LoRA": SerialLoRAConfig(rank=2), "LoRA": LoRAConfig(rank=2)}
FIELDS = "names, blocks, widths and towers"
INPUTS = "where the tokens are caught: entry and argument"


def read_sites(found: list, model: nn.Module) -> dict[str, Any]:
    """What counts of some sites: their fields, their projections, and outputs with adapters there."""
    if {type(site) for site in found} - {AttentionSite}:
        cause = "yield AttentionSite(...)"
        raise CheckFailed("the sites", "AttentionSite objects", found, cause, sure=True)
    values: dict[str, Any] = {
        FIELDS: [f"{site.name}: {site.block!r}, {site.width}, {site.tower}" for site in found],
        INPUTS: [f"{site.entry}({site.argument})" for site in found],
    }
    for part in ("q", "k", "v", "out"):
        values[f"the projection {part}"] = [said(site.projections.get(part)) for site in found]
    if isinstance(model, ParallelViT):
        pictures = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
        for method, config in METHODS.items():
            try:
                outputs = adapted_at(model, found, config)(pictures).detach()
            except SerialLoRAError as error:
                outputs = f"inject refuses these sites: {error}"
            values[f"the outputs with {method} there"] = outputs
    return values


def said(projection: Projection | None) -> str:
    """A projection in words; its rows as an interval."""
    if projection is None:
        return "none"
    if not isinstance(projection, Projection) or not isinstance(projection.module, str):
        cause = "Projection(...) is wanted, with the module's dotted name and not the module itself"
        raise CheckFailed("a projection", "a Projection", projection, cause, sure=True)
    end = projection.start + projection.rows
    rows = f"rows {projection.start} to {end}, {projection.columns} columns"
    return f"{projection.module}.{projection.parameter}, {rows}"


@exercise(
    "12.4",
    "three sites at any depth of a model; Serial LoRA and LoRA there equal dense matrices",
    {
        "the MLP reads the norm's output as well, so it would be adapted with the attention: catch "
        "the tokens where only attention sees them, by entry and argument": changed(
            entry=".norm", argument=None
        ),
        "the block itself is given the residual stream, before the norm": changed(
            entry="", argument="x"
        ),
        "without an argument the entry's output is adapted: name the keyword that carries the "
        "tokens into attention": changed(argument=None),
        "the block calls attention(tokens=...)": changed(argument="x"),
        "every site says it is block 0: the index is the number in its name": changed(
            number=lambda name: 0
        ),
        "that is a text, and a number is wanted: int(...)": changed(
            number=lambda name: name.split(".")[-1]
        ),
        "only the first block: yield inside the loop, no return there": lambda model: sites(model)[
            :1
        ],
        "no block is found: go through model.named_modules() and keep ParallelBlocks": (
            lambda model: []
        ),
        "that is the attention's name: a site is named by its block, where adapters live": changed(
            named=lambda name: f"{name}.attention"
        ),
        "the model is inside another one: take each block's name from named_modules()": (
            lambda model: sites(ParallelViT(8, 4, 12, 3))
        ),
        "the module's name begins with the block's: it is looked up from the whole model": changed(
            within=lambda name: "attention"
        ),
        "that is the whole weight: k is its upper half, v its lower half": changed(
            halves=((0, 1), (0, 2), (0, 2), (0, 1))
        ),
        "after the first row comes the number of rows, not the row where they end": changed(
            halves=((0, 1), (0, 1), (1, 2), (0, 1))
        ),
        "v begins below k: start is the rows above it": changed(
            halves=((0, 1), (0, 1), (0, 1), (0, 1))
        ),
        "k and v are exchanged: keys are the upper half": changed(
            halves=((0, 1), (1, 1), (0, 1), (0, 1))
        ),
        "a projection is left out: LoRA needs all four": (
            changed(parts="q k v"),
            changed(parts="q"),
        ),
        "the parameter is the name of the weight inside its module": changed(parameter="bias"),
    },
    through=listed,
)
def parallel_vit_sites() -> Iterator[Case]:
    """Names and rows of every site, then both adapters against dense matrices."""
    model = ParallelViT(image_size=8, patch=4, width=12, heads=3, depth=3).eval()
    pictures = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    outputs = {}
    for method, config in METHODS.items():
        dense = with_dense_weights(model, adapted_at(model, sites(model), config), method == "LoRA")
        outputs[f"the outputs with {method} there"] = dense(pictures).detach()
    rows = {"q": ("query", 0), "k": ("key_value", 0), "v": ("key_value", 12), "out": ("collect", 0)}
    for prefix, whole in (("", model), ("0.", nn.Sequential(model, nn.Identity()))):
        names = [f"{prefix}stages.{index}" for index in range(3)]
        expected = Parts(
            {
                FIELDS: [f"{name}: {index}, 12, image" for index, name in enumerate(names)],
                INPUTS: [f"{name}.attention(tokens)" for name in names],
            }
        )
        for part, (layer, start) in rows.items():
            where = f"weight, rows {start} to {start + 12}, 12 columns"
            expected[f"the projection {part}"] = [f"{n}.attention.{layer}.{where}" for n in names]
        inside = " inside an nn.Sequential" if prefix else ""
        yield Case(
            f"the sites of a ParallelViT with three blocks{inside}",
            (whole,),
            Parts(expected if prefix else expected | outputs),
            read=read_sites,
            tolerance=1e-4,
            advice="compare each field with the layer in ParallelAttention",
        )
    nothing = Parts({part: [] for part in expected})
    yield Case(
        "the sites of a model that has no such block",
        (nn.Sequential(nn.Linear(4, 4)),),
        nothing,
        read=read_sites,
        advice="yield only for modules that are a ParallelBlock",
    )
