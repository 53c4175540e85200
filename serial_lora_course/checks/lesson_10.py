"""Checks of lesson 10: a split without a leak, a proof of a merge, an exported pair, new sites.

The split is judged by its properties, since many are right. The sites are used: adapters are put
there, and the outputs are compared with a model whose weights were written by hand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor, nn

from serial_lora import adapters, attention
from serial_lora.attention import AttentionSite, Projection
from serial_lora.config import LoRAConfig, SerialLoRAConfig
from serial_lora.errors import SerialLoRAError
from serial_lora.injection import inject
from serial_lora_course.checks.checking import (
    call,
    exercise,
    require,
    require_close,
    require_returned,
)
from serial_lora_course.checks.parallel_vit import ParallelViT

# --------------------------------------------------------------------------------------- 10.1

OBJECTS = {0: 7, 1: 3, 2: 12, 3: 2}  # class -> objects, each with one to four pictures


def listed_pictures(seed: int) -> tuple[list[str], list[int]]:
    """The object and the class of each picture, in an order that the seed shuffles."""
    rows = [
        (f"class{label}/object{number}", label)
        for label, objects in OBJECTS.items()
        for number in range(objects)
        for _ in range(1 + (number + label) % 4)
    ]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    groups, labels = zip(*(rows[position] for position in order), strict=True)
    return list(groups), list(labels)


@exercise("10.1")
def split_without_leak(attempt) -> str:
    """A partition that keeps groups whole, class by class, whatever the order of the files."""
    chosen = []
    for share, seed in ((0.3, 1), (0.3, 2), (0.3, 3), (0.1, 1), (0.9, 1)):
        groups, labels = listed_pictures(seed)
        train, test = _two_sides(attempt, groups, labels, share)
        _require_partition(train, test, len(groups))
        _require_whole_groups(train, test, groups)
        _require_every_class(train, test, groups, labels, share)
        if share == 0.3:
            chosen.append({groups[position] for position in test})
    other = next((objects for objects in chosen if objects != chosen[0]), chosen[0])
    require(
        other == chosen[0],
        "the objects that test, when the same files are listed in another order",
        ", ".join(sorted(chosen[0])),
        ", ".join(sorted(other)),
        "the choice depends on the order in which files are listed, which differs from machine to "
        "machine: sort the objects of a class by name before you choose among them, and give the "
        "generator a fixed seed",
    )
    return "every picture once, objects whole, every class on both sides, in any order of files"


def _two_sides(attempt, groups, labels, share) -> tuple[list[int], list[int]]:
    what = f"the split of {len(groups)} pictures of {len(set(groups))} objects"
    got = call(attempt, list(groups), list(labels), share, what=what)
    require_returned(what, got, "two lists")
    good = isinstance(got, (tuple, list)) and len(got) == 2
    good = good and all(isinstance(side, (list, tuple, set)) for side in got)
    require(
        good,
        what,
        "two lists of positions",
        got,
        "return the two lists: train, test, in that order; .tolist() makes a list of an array",
    )
    sides = [list(side) for side in got]
    numbers = all(
        isinstance(p, Integral) and not isinstance(p, bool) for side in sides for p in side
    )
    require(
        numbers,
        what,
        "positions, whole numbers",
        got,
        "positions in the list are wanted, not names: enumerate(objects) gives both",
    )
    return sides[0], sides[1]


def _require_partition(train: list[int], test: list[int], number: int) -> None:
    every = sorted(train + test)
    if every == list(range(number)):
        return
    twice, lost = len(every) - len(set(every)), number - len(set(every))
    if set(train) & set(test):
        cause = "a picture is on both sides: the plainest leak there is"
    elif twice:
        cause = "a picture is listed twice on one side"
    else:
        cause = "pictures are lost: each goes to one side, those of held-out objects to test"
    require(
        False,
        "how often each picture is there",
        f"each of {number} once",
        f"{twice} twice, {lost} not at all",
        cause,
    )


def _require_whole_groups(train: list[int], test: list[int], groups: list[str]) -> None:
    both = {groups[position] for position in train} & {groups[position] for position in test}
    require(
        not both,
        "objects that train and test",
        "none",
        ", ".join(sorted(both)[:3]) + (", ..." if len(both) > 3 else ""),
        "pictures are divided, not objects: choose among the objects, then send all pictures of a "
        "chosen object to test",
    )


def _require_every_class(train, test, groups, labels, share) -> None:
    for label, objects in OBJECTS.items():
        held = len({groups[position] for position in test if labels[position] == label})
        expected = min(max(round(share * objects), 1), objects - 1)
        if held == expected:
            continue
        if held == objects:
            cause = "the whole class tests: nothing is left to learn it from"
        elif held == 0:
            cause = (
                "the class is never tested: choose within each class, and at least one object of it"
            )
        elif held == objects - expected:
            cause = "the sides are exchanged: train comes first, and test is the smaller one"
        elif held == max(int(share * objects), 1):
            cause = "the share is cut off, not rounded: round(share * objects)"
        else:
            cause = "choose within each class by itself, that share of its objects"
        require(
            False,
            f"how many of the {objects} objects of a class test, at a share of {share}",
            expected,
            held,
            cause,
        )


# --------------------------------------------------------------------------------------- 10.2


@exercise("10.2")
def proves_merge(attempt) -> str:
    """True where the merged model is the adapted one and not the base, at any size of outputs."""
    base = torch.randn(6, 5)
    effect = torch.randn(6, 5)
    adapted = base + effect
    rounding = 1e-6 * torch.randn(6, 5)
    one_off = adapted.clone()
    one_off[2, 3] += 1e-3 * adapted.abs().max()  # ten times what is allowed, but not on average
    broken = adapted.clone()
    broken[1, 1] = torch.nan
    little = 0.05 * adapted.abs().max()
    with_zero = adapted.clone()
    with_zero[0, 0] = 0.0
    below = -1 - adapted.abs()
    one_effect = base.clone()
    one_effect[0, 0] += 1.0
    cases = [
        (
            "a merge that only restored the base",
            (base, adapted, base.clone()),
            False,
            "the merged model gives the base's outputs: it must be compared with the adapted one",
        ),
        (
            "a merge that is right",
            (base, adapted, adapted + rounding),
            True,
            "it asks for equality to the last bit: sums in another order differ by rounding",
        ),
        (
            "an adapter without effect",
            (base, base.clone(), base + rounding),
            False,
            "adapted and merged agree, and so does the base: nothing is proved while the "
            "adapter does nothing; look at the effect too",
        ),
        (
            "outputs that are all a little too low",
            (base, adapted, adapted - little),
            False,
            "differences below zero count as well: abs() before max()",
        ),
        (
            "outputs that are all a little too high",
            (base, adapted, adapted + little),
            False,
            "differences below zero count as well: abs() before max()",
        ),
        (
            "one wrong number among right ones",
            (base, adapted, one_off),
            False,
            "a mean hides one wrong number: take the largest difference",
        ),
        (
            "an output of zero, right but for rounding",
            (base, with_zero, with_zero + 1e-6),
            True,
            "each output is measured by itself, and near zero every rounding is large: one "
            "limit for all, taken from the largest output",
        ),
        (
            "outputs below zero, right but for rounding",
            (base, below, below + rounding),
            True,
            "the largest output is the one that is furthest from zero: abs() before max()",
        ),
        (
            "an effect on one output only",
            (base, one_effect, one_effect + rounding),
            True,
            "one output that changes is an effect, up or down: the largest difference "
            "counts, abs() before max()",
        ),
        (
            "an effect as small as rounding",
            (base, base + rounding, base.clone()),
            False,
            "the adapter's effect is within rounding, and the merged model is the base: an "
            "effect has to be above what is allowed",
        ),
        (
            "a nan among the merged outputs",
            (base, adapted, broken),
            False,
            "every comparison with nan is False: ask whether the difference is within what "
            "is allowed, not whether it is above",
        ),
        (
            "large outputs, right but for rounding",
            (1e4 * base, 1e4 * adapted, 1e4 * (adapted + rounding)),
            True,
            "the tolerance is a share: multiply it by the size of the outputs, since "
            "rounding grows with them",
        ),
        (
            "tiny outputs, half of them wrong",
            (1e-6 * base, 1e-6 * adapted, 1e-6 * (adapted + 0.5 * effect)),
            False,
            "the tolerance is a share: with tiny outputs a plain limit lets everything pass",
        ),
    ]
    for what, tensors, expected, cause in cases:
        before = [tensor.clone() for tensor in tensors]
        got = call(attempt, *tensors, 1e-4, what=what)
        require_returned(what, got, expected)
        unchanged = all(
            torch.equal(a.nan_to_num(7), b.nan_to_num(7))
            for a, b in zip(tensors, before, strict=True)
        )
        require(
            unchanged,
            f"the outputs that came in ({what})",
            "as before",
            "changed",
            "they are changed in place: make new tensors",
        )
        require(
            isinstance(got, bool),
            what,
            "True or False",
            got,
            "a plain bool is wanted: bool(...), or .item() on the number you compare",
        )
        require(got == expected, what, expected, got, cause)
    wrong = sum(not expected for _, _, expected, _ in cases)
    return f"right merges pass and {wrong} kinds of wrong ones do not, at three sizes of outputs"


# --------------------------------------------------------------------------------------- 10.3


@exercise("10.3")
def exported_pair(attempt) -> str:
    """Two factors whose product is W (I + s B A) - W, for a square and for a fused weight."""
    for rows, width, rank, scale in ((8, 8, 2, 0.5), (24, 8, 3, 2.0)):
        weight, A, B = torch.randn(rows, width), torch.randn(rank, width), torch.randn(width, rank)
        what = f"the pair for a weight {rows}x{width} at rank {rank}"
        got = call(attempt, weight.clone(), A.clone(), B.clone(), scale, what=what)
        require_returned(what, got, "two tensors")
        pair = isinstance(got, (tuple, list)) and len(got) == 2
        require(
            pair and all(isinstance(tensor, Tensor) for tensor in got),
            what,
            "two tensors",
            got,
            "return both factors: A first, then B",
        )
        first, second = (tensor.detach() for tensor in got)
        shapes, expected = (tuple(first.shape), tuple(second.shape)), ((rank, width), (rows, rank))
        causes = {
            ((rows, rank), (rank, width)): "the factors are exchanged: A, which reads the tokens, "
            "comes first",
            ((rank, width), (width, rank)): "B leads to the tokens' width: W has to act on it, so "
            "that it leads to W's outputs",
            ((rank, width), (rank, rows)): "B is turned round: (out, r)",
        }
        require(
            shapes == expected,
            f"{what}: the shapes of A and B",
            expected,
            shapes,
            causes.get(
                shapes, "A is (r, d) and B is (out, r): keep the change in two thin factors"
            ),
        )
        dense = torch.eye(width) + scale * B @ A  # (d, d)
        change = weight @ dense - weight
        suspects = {
            "the scale is lost: PEFT multiplies by its own, which is 1": weight @ B @ A,
            "the scale is in both factors: it counts once": scale**2 * weight @ B @ A,
            "A and B are taken from the other side": scale * (weight @ A.T @ B.T),
        }
        if rows == width:
            suspects |= {
                "that is LoRA's own change, B A beside W: here W acts on what B gives": (
                    scale * B @ A
                ),
                "W is turned round: nn.Linear keeps (out, in), and W stands left of B": (
                    scale * weight.T @ B @ A
                ),
            }
        require_close(f"{what}: B times A", second @ first, change, suspects)
    return "B A is W (I + scale B A) - W, for a square weight and for q, k and v fused in one"


# --------------------------------------------------------------------------------------- 10.4

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
def dense_outputs(plain: ParallelViT, adapted: nn.Module, pictures: Tensor, where: str) -> Tensor:
    """The plain model's outputs (B, d) with every block computed from dense matrices.

    ``where`` is "attention" for Serial LoRA on the attention's tokens, "norm" for the slip that
    lets the MLP see it too, "beside" for LoRA.
    """
    tensors = dict(adapted.state_dict())
    x = plain.patches(pictures).flatten(2).transpose(1, 2) + plain.position
    for index, block in enumerate(plain.stages):
        layers, eye = block.attention, torch.eye(x.shape[-1])
        kv = layers.key_value.weight.chunk(2)
        weights = dict(
            q=layers.query.weight,
            k=kv[0],
            v=kv[1],
            out=layers.collect.weight,
        )
        biases = dict(zip("kv", layers.key_value.bias.chunk(2), strict=True))
        biases |= {"q": layers.query.bias, "out": layers.collect.bias}
        prefix, dense = f"stages.{index}", eye
        if where == "beside":
            for part in weights:
                A, B = (tensors[f"{prefix}.lora_{part}.lora_{which}"] for which in "AB")
                weights[part] = weights[part] + B @ A
        else:
            A, B = (tensors[f"{prefix}.serial_lora.lora_{which}"] for which in "AB")
            dense = eye + B @ A
        normed = block.norm(x)
        tokens = torch.einsum("bnd,ed->bne", normed, dense)
        parts = {p: torch.einsum("bnd,ed->bne", tokens, weights[p]) + biases[p] for p in "qkv"}
        mixed = []
        for head in range(layers.heads):
            size = x.shape[-1] // layers.heads
            q, k, v = (parts[p][..., head * size : (head + 1) * size] for p in "qkv")
            mixed.append((torch.einsum("bnc,bmc->bnm", q, k) / size**0.5).softmax(-1) @ v)
        attended = torch.cat(mixed, -1) @ weights["out"].T + biases["out"]
        x = x + attended + block.mlp(tokens if where == "norm" else normed)
    return plain.norm(x).mean(1)


@exercise("10.4")
def parallel_vit_sites(attempt) -> str:
    """Names and rows of every site, then both adapters against dense matrices."""
    model = ParallelViT(image_size=8, patch=4, width=12, heads=3, depth=3).eval()
    _require_sites(attempt, model, "")
    _require_sites(attempt, nn.Sequential(model, nn.Identity()), "0.")
    others = call(_listed, attempt, nn.Sequential(nn.Linear(4, 4)), what="a model without a block")
    require(
        others == [],
        "the sites of a model that has no such block",
        "none",
        others,
        "yield only for modules that are a ParallelBlock",
    )
    pictures = torch.randn(2, 3, 8, 8)
    for config, where in ((SerialLoRAConfig(rank=2), "attention"), (LoRAConfig(rank=2), "beside")):
        adapted = copy.deepcopy(model)
        what = f"the outputs with {config.method} at your sites"
        with only_family(attempt):
            try:
                inject(adapted, config)
            except SerialLoRAError as error:
                require(False, what, "some", str(error), "inject refuses your sites")
        with torch.no_grad():
            for pair in adapters(adapted).values():
                pair.lora_B.normal_(std=0.3)
            got = adapted(pictures)
        suspects = {"nothing reaches the outputs": model(pictures).detach()}
        if where == "attention":
            suspects["the MLP is adapted too, since it reads the same norm"] = dense_outputs(
                model, adapted, pictures, "norm"
            )
        expected = dense_outputs(model, adapted, pictures, where)
        require_close(what, got, expected, suspects, tolerance=1e-4)
    return "three sites at any depth of a model; Serial LoRA and LoRA there equal dense matrices"


def _listed(attempt: Callable, model: nn.Module) -> list | None:
    found = attempt(model)
    require(
        not isinstance(found, AttentionSite),
        "what the function gives",
        "one site for each block",
        "a single AttentionSite",
        "return ends the loop at the first block: yield each site instead",
    )
    return None if found is None else list(found)


def _require_sites(attempt: Callable, model: nn.Module, prefix: str) -> None:
    inside = " inside an nn.Sequential" if prefix else ""
    what = f"the sites of a ParallelViT with three blocks{inside}"
    sites = call(_listed, attempt, model, what=what)
    require(sites is not None, what, "sites", None, "the function returns nothing: yield a site")
    kinds = {type(site).__name__ for site in sites}
    require(
        kinds <= {"AttentionSite"}, what, "AttentionSite objects", kinds, "yield AttentionSite(...)"
    )
    names = [f"{prefix}stages.{index}" for index in range(3)]
    found = [site.name for site in sites]
    if found != names:
        if not found:
            cause = "no block is found: go through model.named_modules() and keep ParallelBlocks"
        elif found == names[:1]:
            cause = "only the first block: yield inside the loop, and no return or break there"
        elif found == [f"{name}.attention" for name in names]:
            cause = (
                "that is the attention's name: a site is named by its block, where adapters live"
            )
        elif prefix and found == [name.removeprefix(prefix) for name in names]:
            cause = "the model is inside another one: take each block's name from named_modules()"
        else:
            cause = "one site for each ParallelBlock, named as named_modules() names the block"
        require(False, f"{what}: their names", ", ".join(names), ", ".join(found) or "none", cause)
    for index, site in enumerate(sites):
        _require_site(site, names[index], index)


def _require_site(site: AttentionSite, name: str, index: int) -> None:
    def equal(
        field: str, expected: object, causes: dict | None = None, otherwise: str = ""
    ) -> None:
        got = getattr(site, field)
        cause = (causes or {}).get(got, otherwise or f"see what {field} means in AttentionSite")
        require(got == expected, f"{field} of the site at {name}", expected, got, cause)

    equal(
        "block",
        index,
        {
            0: "every site says it is block 0: the index is the number in its name",
            str(index): "that is a text, and a number is wanted: int(...)",
        },
        "the index is the number at the end of the block's name",
    )
    equal("width", 12, otherwise="the size of a token: the inputs of the query layer")
    equal("tower", "image")
    entries = {
        f"{name}.norm": "the MLP reads the norm's output as well, so it would be adapted with the "
        "attention: catch the tokens where only attention sees them, by entry and argument",
        name: "the block itself is given the residual stream, before the norm",
        "attention": "the entry is a dotted name in the whole model: begin with the block's name",
    }
    equal("entry", f"{name}.attention", entries, "the module that is given the normed tokens")
    equal(
        "argument",
        "tokens",
        {
            None: "without an argument the entry's output is adapted: name the keyword that carries "
            "the tokens into attention"
        },
        "the block calls attention(tokens=...)",
    )
    for part, (layer, half) in PROJECTIONS.items():
        _require_projection(site, part, Projection(f"{name}.{layer}", "weight", 12 * half, 12, 12))
    extra = set(site.projections) - set(PROJECTIONS)
    require(
        not extra, f"projections at {name}", "q, k, v, out", extra, "only these names are known"
    )


def _require_projection(site: AttentionSite, part: str, expected: Projection) -> None:
    what = f"the projection {part} at {site.name}"
    got = site.projections.get(part)
    require(
        got is not None, what, _said(expected), "none", f"{part} is left out: LoRA needs all four"
    )
    if got == expected:
        return
    require(
        isinstance(got, Projection) and isinstance(got.module, str),
        what,
        _said(expected),
        got if isinstance(got, Projection) else type(got).__name__,
        "Projection(...) is wanted, with the module's dotted name and not the module itself",
    )
    fused = part in "kv" and expected.module == got.module
    if fused and got.start == 12 and got.rows == 24:
        cause = "after the first row comes the number of rows, not the row where they end"
    elif fused and got.rows == 24:
        cause = "that is the whole weight: k is its upper half, v its lower half"
    elif fused and got.start == 12 - expected.start:
        cause = (
            "v begins below k: start is the number of rows above it"
            if part == "v"
            else "k and v are exchanged: keys are the upper half"
        )
    elif got.module.startswith("attention"):
        cause = "the module's name begins with the block's: it is looked up from the whole model"
    elif expected.module == f"{site.name}.attention{got.module.removeprefix(site.name)}":
        cause = "the layer belongs to the block's attention: its name goes between the two"
    elif got.parameter != "weight":
        cause = "the parameter is the name of the weight inside its module"
    else:
        cause = "compare module, start, rows and columns with the layer in ParallelAttention"
    require(False, what, _said(expected), _said(got), cause)


def _said(projection: Projection) -> str:
    end = projection.start + projection.rows
    rows = f"rows {projection.start} to {end}, {projection.columns} columns"
    return f"{projection.module}.{projection.parameter}, {rows}"
