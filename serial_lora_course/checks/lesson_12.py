"""Checks of lesson 12: a split without a leak, a proof of a merge, an exported pair, new sites.

The split is judged by its properties, since many are right. The sites are used: adapters are put
there, and the outputs are compared with a model whose weights were written by hand.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora import adapters, attention
from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.injection import inject
from serial_lora.sites import AttentionSite, Projection
from serial_lora_course.checking.message import likely, require, require_returned
from serial_lora_course.checks.cases import Case, call, compare, require_unchanged
from serial_lora_course.checks.checking import exercise
from serial_lora_course.models.parallel_vit import ParallelViT

# --------------------------------------------------------------------------------------- 12.1

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
    groups, labels = zip(*(rows[position] for position in order), strict=True)
    return list(groups), list(labels)


@exercise("12.1")
def split_without_leak(attempt) -> str:
    """A partition that keeps groups whole, class by class, whatever the order of the files."""
    chosen = []
    cases = [(0.3, 1, False), (0.1, 1, False), (0.9, 1, False)]
    for share, seed, collide in [*cases, (0.3, 1, True), (0.3, 2, True), (0.3, 3, True)]:
        groups, labels = listed_pictures(seed, collide)
        train, test = _two_sides(attempt, groups, labels, share)
        _require_partition(train, test, len(groups))
        _require_whole_groups(train, test, groups)
        _require_every_class(test, groups, labels, share)
        if collide:
            chosen.append({groups[position] for position in test})
    other = next((objects for objects in chosen if objects != chosen[0]), chosen[0])
    cause = (
        "the choice depends on the order in which files are listed, which differs from machine to "
        "machine: sort the objects of a class by name before you choose among them, and give the "
        "generator a fixed seed"
    )
    what = "the objects that test, when the same files are listed in another order"
    wanted, got = (", ".join(sorted(objects)) for objects in (chosen[0], other))
    require(wanted == got, what, wanted, got, cause)
    return "every picture once, objects whole, every class on both sides, in any order of files"


def _two_sides(attempt, groups, labels, share) -> tuple[list[int], list[int]]:
    what = f"the split of {len(groups)} pictures of {len(set(groups))} objects"
    given = (list(groups), list(labels), share)
    got = call(attempt, *given, what=what)
    require_returned(what, got, "two lists")
    require_unchanged(attempt, given, (groups, labels, share))
    two = isinstance(got, (tuple, list)) and len(got) == 2
    good = two and all(isinstance(side, (list, tuple, set)) for side in got)
    form = "return the two lists: train, test, in that order; .tolist() makes a list of an array"
    require(good, what, "two lists of positions", got, form)
    train, test = map(list, got)
    numbers = all(isinstance(p, Integral) and not isinstance(p, bool) for p in train + test)
    cause = "positions in the list are wanted, not names: enumerate(objects) gives both"
    require(numbers, what, "positions, whole numbers", got, cause)
    return train, test


def _require_partition(train: list[int], test: list[int], number: int) -> None:
    every = sorted(train + test)
    twice, lost = len(every) - len(set(every)), number - len(set(every))
    conditions = {
        "a picture is on both sides: the plainest leak there is": bool(set(train) & set(test)),
        "a picture is listed twice on one side": twice > 0,
    }
    cause = likely(
        conditions, "pictures are lost: each goes to one side, those of held-out objects to test"
    )
    what, got = "how often each picture is there", f"{twice} twice, {lost} not at all"
    require(every == list(range(number)), what, f"each of {number} once", got, cause)


def _require_whole_groups(train: list[int], test: list[int], groups: list[str]) -> None:
    both = sorted({groups[place] for place in train} & {groups[place] for place in test})
    got = ", ".join(both[:3]) + ", ..." * (len(both) > 3)
    cause = (
        "pictures are divided, not objects: choose among the objects, then send all pictures of a "
        "chosen object to test"
    )
    require(not both, "objects that train and test", "none", got, cause)


def _require_every_class(test, groups, labels, share) -> None:
    held, expected, exact = {}, {}, {}
    for label, objects in OBJECTS.items():
        held[label] = len({groups[position] for position in test if labels[position] == label})
        exact[label] = share * objects
        expected[label] = min(max(round(exact[label]), 1), objects - 1)
    rounded_up = {label: math.ceil(number) for label, number in exact.items()}
    cut = {label: max(int(number), 1) for label, number in exact.items()}
    exchanged = {label: objects - expected[label] for label, objects in OBJECTS.items()}
    conditions = {
        "the sides are exchanged: train comes first, test is smaller": held == exchanged,
        "the share is cut off, not rounded: round(share * objects)": held == cut,
        "the share is rounded up, or it is of the pictures: round(share * objects)": held
        == rounded_up,
        "a class is never tested: choose within each class, and at least one object of it": (
            0 in held.values()
        ),
        "a whole class tests: nothing is left to learn it from": any(
            held[label] == objects for label, objects in OBJECTS.items()
        ),
    }
    cause = likely(
        conditions, "choose within each class, that share of its objects, not of its pictures"
    )
    sizes = ", ".join(map(str, OBJECTS.values()))
    what = f"how many objects of classes of {sizes} test, at a share of {share}"
    require(held == expected, what, [*expected.values()], [*held.values()], cause)


# --------------------------------------------------------------------------------------- 12.2


SIGN = "differences below zero count as well: abs() before max()"


@exercise(
    "12.2",
    "right merges pass and nine kinds of wrong ones do not, at three sizes of outputs",
)
def proves_merge() -> Iterator[Case]:
    """True where the merged model is the adapted one and not the base, at any size of outputs."""
    base, effect = torch.randn(6, 5), torch.randn(6, 5)
    adapted, rounding = base + effect, 1e-6 * torch.randn(6, 5)
    little = 0.05 * adapted.abs().max()

    def changed(outputs: Tensor, place: tuple[int, int], number: float) -> Tensor:
        return outputs.index_put(tuple(map(torch.tensor, place)), torch.tensor(number))

    allowed, limit_of_base = (1e-4 * each.abs().max() for each in (adapted, base))
    one_off = float(adapted[2, 3] + 3 * allowed)
    with_zero, below = changed(adapted, (0, 0), 0.0), -1 - adapted.abs()
    one_effect = changed(base, (0, 0), float(base[0, 0] + 4 * allowed))
    right = {  # what: the adapted model's outputs, the merged one's, and what a refusal means
        "a merge that is right": (
            adapted,
            adapted + rounding,
            "it asks for equality to the last bit: sums in another order differ by rounding",
        ),
        "an output of zero, right but for rounding": (
            with_zero,
            with_zero + 1e-6,
            "each output is measured by itself, and near zero every rounding is large: one limit "
            "for all, taken from the largest output",
        ),
        "outputs below zero, right but for rounding": (
            below,
            below + rounding,
            "the largest output is the one that is furthest from zero: abs() before max()",
        ),
        "an effect on one output only": (
            one_effect,
            one_effect + rounding,
            "one output that changes is an effect, up or down: the largest difference counts, "
            "abs() before max()",
        ),
    }
    wrong = {  # the same, and what it means to let it pass
        "a merge that only restored the base": (
            adapted,
            base.clone(),
            "the merged model gives the base's outputs: it must be compared with the adapted one",
        ),
        "an adapter without effect": (
            base.clone(),
            base + rounding,
            "adapted and merged agree, and so does the base: nothing is proved while the adapter "
            "does nothing; look at the effect too",
        ),
        "outputs that are all a little too low": (adapted, adapted - little, SIGN),
        "outputs that are all a little too high": (adapted, adapted + little, SIGN),
        "one wrong number among right ones": (
            adapted,
            changed(adapted, (2, 3), one_off),
            "a mean hides one wrong number: take the largest difference",
        ),
        "an effect as small as rounding": (
            base + rounding,
            base.clone(),
            "the adapter's effect is within rounding, and the merged model is the base: an effect "
            "has to be above what is allowed",
        ),
        "an effect within rounding, which the merge exceeds": (
            base + 0.6 * limit_of_base,
            base + 1.2 * limit_of_base,
            "the adapter's effect is how far the adapted model is from the base, not the merged one",
        ),
        "a nan among the merged outputs": (
            with_zero,
            changed(with_zero, (0, 0), torch.nan),
            "every comparison with nan is False: ask whether the difference is within what is "
            "allowed, not whether it is above",
        ),
    }
    share = "the tolerance is a share of the outputs' size:"
    large = f"{share} multiply it by that size, since rounding grows with it"
    tiny = f"{share} with tiny outputs a plain limit lets everything pass"
    cases = [
        (what, (base, *tensors), good, cause)
        for group, good in ((wrong, False), (right, True))
        for what, (*tensors, cause) in group.items()
    ]
    scaled = [1e4 * each for each in (base, adapted, adapted + rounding)]
    cases.append(("large outputs, right but for rounding", scaled, True, large))
    scaled = [1e-6 * each for each in (base, adapted, adapted + 0.5 * effect)]
    cases.append(("tiny outputs, half of them wrong", scaled, False, tiny))
    largest = (
        "every output may be off by that limit, small ones too: compare the largest difference with "
        "it, no norm and no limit for each output by itself"
    )
    at_limit = (base, adapted, adapted + 0.9 * allowed)
    cases.append(("every output off by nearly the limit", at_limit, True, largest))
    for what, tensors, expected, cause in cases:
        yield Case(what, (*tensors, 1e-4), expected, otherwise=cause)


# --------------------------------------------------------------------------------------- 12.3


@exercise(
    "12.3", "B A is W (I + scale B A) - W, for a square weight and for q, k and v fused in one"
)
def exported_pair() -> Iterator[Case]:
    """Two factors whose product is W (I + s B A) - W, for a square and for a fused weight."""
    for rows, width, rank, scale in ((8, 8, 2, 0.7), (24, 8, 3, 2.0)):
        weight, A, B = torch.randn(rows, width), torch.randn(rank, width), torch.randn(width, rank)
        what = f"the pair for a weight {rows}x{width} at rank {rank}"

        def product(got: Any, what: str = what, right=((rank, width), (rows, rank))) -> Tensor:
            pair = isinstance(got, (tuple, list)) and len(got) == 2
            pair = pair and all(isinstance(tensor, Tensor) for tensor in got)
            form = "return both factors: A first, then B"
            require(pair, what, "two tensors", got, form)
            first, second = (tensor.detach() for tensor in got)
            shapes, (down, up) = (tuple(first.shape), tuple(second.shape)), right
            conditions = {
                "the factors are exchanged: A reads the tokens, so first": shapes == (up, down),
                "B leads to the tokens' width: W has to act on it, so that it leads to W's "
                "outputs": shapes == (down, down[::-1]),
                "B is turned round: (out, r)": shapes == (down, up[::-1]),
            }
            thin = "A is (r, d) and B is (out, r): keep the change in two thin factors"
            cause = likely(conditions, thin)
            require(shapes == right, f"{what}: the shapes of A and B", right, shapes, cause)
            return second @ first

        causes = {
            "the scale is lost: PEFT multiplies by its own, which is 1": weight @ B @ A,
            "the scale is in both factors: it counts once": scale**2 * weight @ B @ A,
            "the scale is divided by the rank: PEFT multiplies by 1 here": scale
            / rank
            * weight
            @ B
            @ A,
            "A and B are taken from the other side": scale * (weight @ A.T @ B.T),
            "that is LoRA's own change, B A beside W: here W acts on what B gives": scale * B @ A,
            "W is turned round: nn.Linear keeps (out, in), and W stands left of B": (
                lambda W=weight, BA=scale * B @ A: W.T @ BA
            ),
        }
        expected = weight @ (torch.eye(width) + scale * B @ A) - weight
        yield Case(f"{what}: B times A", (weight, A, B, scale), expected, causes, read=product)


# --------------------------------------------------------------------------------------- 12.4

PROJECTIONS = {
    "q": ("attention.query", 0),
    "k": ("attention.key_value", 0),
    "v": ("attention.key_value", 1),
    "out": ("attention.collect", 0),
}


@contextmanager
def only_family(family: Callable) -> Iterator[None]:
    """The package knows this family and no other for the length of the block."""
    kept = list(attention.FAMILIES)
    attention.FAMILIES[:] = [family]
    try:
        yield
    finally:
        attention.FAMILIES[:] = kept


@torch.no_grad()
def with_dense_weights(plain: ParallelViT, adapted: nn.Module, where: str) -> ParallelViT:
    """The plain model with the pairs of an adapted one multiplied out into its own weights.

    ``where`` is "attention" for Serial LoRA on the attention's tokens, "norm" for the slip that
    lets the MLP see it too, "beside" for LoRA.
    """
    tensors, model = adapted.state_dict(), copy.deepcopy(plain)
    for index, block in enumerate(model.stages):
        layers, prefix = block.attention, f"stages.{index}"
        key, value = layers.key_value.weight.chunk(2)
        weights = {"q": layers.query.weight, "k": key, "v": value}
        if where == "beside":
            for part, weight in (weights | {"out": layers.collect.weight}).items():
                weight += product_of(tensors, f"{prefix}.lora_{part}")
        else:
            dense = torch.eye(key.shape[-1]) + product_of(tensors, f"{prefix}.serial_lora")
            for weight in [*weights.values(), *([block.mlp[0].weight] * (where == "norm"))]:
                weight.copy_(torch.einsum("oi,id->od", weight, dense))
    return model


def product_of(tensors: dict[str, Tensor], pair: str) -> Tensor:
    """B A of a pair in a state dict."""
    return torch.einsum("or,rd->od", tensors[f"{pair}.lora_B"], tensors[f"{pair}.lora_A"])


@exercise("12.4")
def parallel_vit_sites(attempt) -> str:
    """Names and rows of every site, then both adapters against dense matrices."""
    model = ParallelViT(image_size=8, patch=4, width=12, heads=3, depth=3).eval()
    _require_sites(attempt, model, "")
    _require_sites(attempt, nn.Sequential(model, nn.Identity()), "0.")
    what = "the sites of a model that has no such block"
    others = call(_listed, attempt, nn.Sequential(nn.Linear(4, 4)), what="a model without a block")
    require(others == [], what, "none", others, "yield only for modules that are a ParallelBlock")
    pictures = torch.randn(2, 3, 8, 8)
    for config, where in ((SerialLoRAConfig(rank=2), "attention"), (LoRAConfig(rank=2), "beside")):
        adapted = copy.deepcopy(model)
        what = f"the outputs with {config.method} at your sites"
        with only_family(attempt):
            try:
                inject(adapted, config)
            except SerialLoRAError as error:
                require(False, what, "some", str(error), "inject refuses your sites")
        for pair in adapters(adapted).values():
            nn.init.normal_(pair.lora_B, std=0.3)
        with torch.no_grad():
            got, nothing = adapted(pictures), model(pictures)
            expected = with_dense_weights(model, adapted, where)(pictures)
            causes = {"nothing reaches the outputs": nothing}
            if where == "attention":
                too = with_dense_weights(model, adapted, "norm")(pictures)
                causes["the MLP is adapted too, since it reads the same norm"] = too
        compare(what, got, expected, causes, tolerance=1e-4)
    return "three sites at any depth of a model; Serial LoRA and LoRA there equal dense matrices"


def _listed(attempt: Callable, model: nn.Module) -> list | None:
    found = attempt(model)
    single = isinstance(found, AttentionSite)
    cause = "return ends the loop at the first block: yield each site instead"
    wanted = "one site for each block"
    require(not single, "what the function gives", wanted, "a single AttentionSite", cause)
    return None if found is None else list(found)


def _require_sites(attempt: Callable, model: nn.Module, prefix: str) -> None:
    inside = " inside an nn.Sequential" if prefix else ""
    what = f"the sites of a ParallelViT with three blocks{inside}"
    sites = call(_listed, attempt, model, what=what)
    require_returned(what, sites, "sites")
    kinds = {type(site).__name__ for site in sites}
    of_kind = kinds <= {"AttentionSite"}
    require(of_kind, what, "AttentionSite objects", kinds, "yield AttentionSite(...)")
    names = [f"{prefix}stages.{index}" for index in range(3)]
    found = [site.name for site in sites]
    conditions = {
        "no block is found: go through model.named_modules() and keep ParallelBlocks": not found,
        "only the first block: yield inside the loop, no return there": found == names[:1],
        "that is the attention's name: a site is named by its block, where adapters live": (
            found == [f"{name}.attention" for name in names]
        ),
        "the model is inside another one: take each block's name from named_modules()": (
            found == [name.removeprefix(prefix) for name in names]
        ),
    }
    cause = likely(
        conditions, "one site for each ParallelBlock, named as named_modules() names the block"
    )
    got = ", ".join(found) or "none"
    require(found == names, f"{what}: their names", ", ".join(names), got, cause)
    for index, site in enumerate(sites):
        _require_site(site, names[index], index)


def _require_site(site: AttentionSite, name: str, index: int) -> None:
    expected = {
        "block": index,
        "width": 12,
        "tower": "image",
        "entry": f"{name}.attention",
        "argument": "tokens",
    }
    causes = {
        ("block", 0): "every site says it is block 0: the index is the number in its name",
        ("block", str(index)): "that is a text, and a number is wanted: int(...)",
        ("entry", f"{name}.norm"): "the MLP reads the norm's output as well, so it would be "
        "adapted with the attention: catch the tokens where only attention sees them, by entry and "
        "argument",
        ("entry", name): "the block itself is given the residual stream, before the norm",
        ("entry", "attention"): "the entry is a dotted name in the whole model: begin with the "
        "block's name",
        ("argument", None): "without an argument the entry's output is adapted: name the keyword "
        "that carries the tokens into attention",
    }
    meanings = {
        "block": "the index is the number at the end of the block's name",
        "width": "the size of a token: the inputs of the query layer",
        "tower": "see what tower means in AttentionSite",
        "entry": "the module that is given the normed tokens",
        "argument": "the block calls attention(tokens=...)",
    }
    for part, wanted in expected.items():
        got = getattr(site, part)
        cause = causes.get((part, got), meanings[part])
        require(got == wanted, f"{part} of the site at {name}", wanted, got, cause)
    for part, (layer, half) in PROJECTIONS.items():
        _require_projection(site, part, Projection(f"{name}.{layer}", "weight", 12 * half, 12, 12))
    extra = set(site.projections) - set(PROJECTIONS)
    what, cause = f"projections at {name}", "only these names are known"
    require(not extra, what, "q, k, v, out", extra, cause)


def _require_projection(site: AttentionSite, part: str, expected: Projection) -> None:
    what, wanted = f"the projection {part} at {site.name}", _said(expected)
    got = site.projections.get(part)
    require(got is not None, what, wanted, "none", f"{part} is left out: LoRA needs all four")
    named = isinstance(got, Projection) and isinstance(got.module, str)
    cause = "Projection(...) is wanted, with the module's dotted name and not the module itself"
    require(named, what, wanted, type(got).__name__, cause)
    fused = part in "kv" and expected.module == got.module
    conditions = {
        "after the first row comes the number of rows, not the row where they end": (
            fused and got.start == 12 and got.rows == 24
        ),
        "that is the whole weight: k is its upper half, v its lower half": fused and got.rows == 24,
        "v begins below k: start is the rows above it": fused and part == "v" and got.start == 0,
        "k and v are exchanged: keys are the upper half": fused and part == "k" and got.start == 12,
        "the module's name begins with the block's: it is looked up from the whole model": (
            got.module.startswith("attention")
        ),
        "the layer belongs to the block's attention: its name goes between the two": (
            expected.module == f"{site.name}.attention{got.module.removeprefix(site.name)}"
        ),
        "the parameter is the name of the weight inside its module": got.parameter != "weight",
    }
    cause = likely(
        conditions, "compare module, start, rows and columns with the layer in ParallelAttention"
    )
    require(got == expected, what, wanted, _said(got), cause)


def _said(projection: Projection) -> str:
    end = projection.start + projection.rows
    rows = f"rows {projection.start} to {end}, {projection.columns} columns"
    return f"{projection.module}.{projection.parameter}, {rows}"
