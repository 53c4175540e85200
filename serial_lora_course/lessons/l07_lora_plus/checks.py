"""Checks of the exercises on LoRA+: groups, how far a step can move an output, and a fair choice of rates.

Expected values come from names split by hand, from trying all signs, and from counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise

TRAINABLE = (
    "visual.blocks.0.pair.lora_A",
    "visual.blocks.0.pair.lora_B",
    "lora_B_tower.blocks.0.pair.lora_A",
    "lora_B_tower.blocks.0.pair.lora_B",
    "lora_A.lora_B",
    "lora_B.lora_A",
    "lora_A",
    "lora_B",
    "head.weight",
    "head.bias",
    "head.scale_B",
    "head.my_lora_B",
    "head.lora_A_scale",
    "head.LORA_B",
    "lora_B_tower.norm.weight",
)
FROZEN = ("visual.blocks.0.attn.weight", "frozen.lora_B", "frozen.lora_A")
IN_GROUPS = "how many groups each tensor is in"
RATES = "the rate of each tensor"
HELD = "what the groups hold"
DECAYS = "the weight decay of the groups"
FROZEN_STILL = "which tensors do not require gradients"
BY_A = "how far a step of A can move each output"
BY_B = "how far a step of B can move each output"
CHOSEN = "the chosen pair of rates"
ACCURACY = "its accuracy on the other pictures"


def last_part(name: str) -> str:
    """What a tensor is called in its own module."""
    return name.split(".")[-1]


def read_groups(
    found: Any, named: dict[str, nn.Parameter], lr: float, ratio: float, weight_decay: float
) -> dict[str, Any]:
    """What counts of some groups: each tensor's number of groups and rate, and what they hold."""
    if not isinstance(found, (list, tuple)) or not all(isinstance(g, dict) for g in found):
        cause = "return a list with one dictionary per group"
        raise CheckFailed("the groups", "a list of dictionaries", found, cause, sure=True)
    for group in found:
        missing = ", ".join(sorted({"params", "lr", "weight_decay"} - set(group)))
        if missing:
            cause = f"a group has no {missing}: every group needs it"
            raise CheckFailed("the keys of a group", missing, [*group], cause, sure=True)
        params = group["params"]
        cause = "make params a list: a generator can be read once, and a set has no order"
        if isinstance(params, (list, tuple)):
            cause = "put the tensors themselves into params, without their names"
        if not isinstance(params, (list, tuple)) or not all(isinstance(p, Tensor) for p in params):
            raise CheckFailed(
                "the params of a group", "tensors in a list", params, cause, sure=True
            )
    owner = {id(tensor): name for name, tensor in named.items()}
    of_group = [[owner.get(id(p), "a copy") for p in group["params"]] for group in found]
    rates = {
        name: [group["lr"] for group, names in zip(found, of_group, strict=True) if name in names]
        for name in named
    }
    kinds = {"lora_A": "A", "lora_B": "B"}
    held = [sorted({kinds.get(last_part(n), "others") for n in names}) for names in of_group]
    return {
        IN_GROUPS: [f"{name}: {len(each)}" for name, each in rates.items()],
        RATES: [f"{name}: {each[0] if each else 0:.6g}" for name, each in rates.items()],
        HELD: [" and ".join(each) or "nothing" for each in held],
        DECAYS: [float(group["weight_decay"]) for group in found],
        FROZEN_STILL: [name for name, tensor in named.items() if not tensor.requires_grad],
    }


def advice_on_groups(held: list[str]) -> str:
    """What the numbers of tensors in the groups most likely mean."""
    if len(held) > 3:
        return "there is a group for every tensor: put all tensors of a kind into one"
    if any("and" in each for each in held):
        return "a group holds tensors of several kinds: A's, B's and the others each have their own"
    return (
        "A's group comes first, then B's, then the others'; a group that would be empty is left out"
    )


@exercise(
    "7.1",
    "each trainable tensor is in exactly one group with the right learning rate, whatever its modules are "
    "called, and what was frozen still is",
)
def plus_groups() -> Iterator[Case]:
    """Every trainable tensor once, by the last part of its name."""
    names = sorted(TRAINABLE + FROZEN)
    named = {n: nn.Parameter(torch.randn(2, 2), requires_grad=n not in FROZEN) for n in names}
    pairs = {n: p for n, p in named.items() if n.startswith("visual.blocks.0.pair")}
    for tensors, lr, ratio, decay in ((named, 1e-3, 16.0, 0.1), (pairs, 2e-4, 20.0, 0.0)):
        rates = {name: lr * (ratio if last_part(name) == "lora_B" else 1) for name in tensors}
        rates |= dict.fromkeys(FROZEN, 0)
        held = ["A", "B", "others"] if tensors is named else ["A", "B"]
        told = [f"{name}: {rates[name]:.6g}" for name in tensors]
        still = {FROZEN_STILL: [name for name in tensors if name in FROZEN]}
        times = [f"{name}: {int(name not in FROZEN)}" for name in tensors]
        expected = {IN_GROUPS: times, RATES: told}
        yield Case(
            f"the groups of {len(tensors)} tensors",
            (tensors, lr, ratio, decay),
            Parts(expected | {HELD: held, DECAYS: [decay] * len(held)} | still),
            read=read_groups,
            advice={HELD: advice_on_groups, FROZEN_STILL: "leave requires_grad as it is"},
            may_change=True,  # what it must not change is among the parts
            tolerance=1e-9,
        )


def largest_move(output, entries: int, outputs: int) -> Tensor:
    """The most that each output moves, over all ways to give so many entries a sign."""
    signs = torch.tensor([*product((-1.0, 1.0), repeat=entries)])
    return torch.stack([output(some).abs() for some in signs]).amax(0).reshape(outputs)


@exercise("7.2", "no choice of signs moves an output farther, and some choice moves it as far")
def reach() -> Iterator[Case]:
    """Compared with every choice of signs."""
    for width, rank, outputs, lr in ((3, 2, 4, 0.1), (4, 2, 3, 0.02), (2, 3, 2, 0.5)):
        x, A, B = torch.randn(width), torch.randn(rank, width), torch.randn(outputs, rank)
        x[0] = -x[0].abs()  # negative ones occur
        hidden = torch.einsum("rd,d->r", A, x)
        of_A = largest_move(
            lambda signs, x=x, B=B: B @ (signs.reshape(-1, len(x)) @ x), rank * width, outputs
        )
        of_B = largest_move(lambda signs, h=hidden: (signs @ h)[None], rank, 1).expand(outputs)
        expected = Parts({BY_A: lr * of_A, BY_B: lr * of_B})
        what = f"{outputs} outputs of rank {rank} and width {width}"
        form = "return two tensors (m,): what A's step can do, then what B's can"
        yield Case(what, (x, A, B, lr), expected, form=form, read=lambda found, *_: [*found])


# Pairs of rates -> how many a seed has right of the 5 pictures that choose, and of the 7 that judge.
TRIES = (
    {  # the first is lucky on the 5; the third has one lucky seed
        (3e-4, 3e-3): ((4, 4, 4), (0, 1, 2)),
        (3e-3, 3e-3): ((3, 3, 3), (6, 6, 7)),
        (3e-3, 3e-2): ((5, 1, 0), (0, 0, 5)),
    },
    {
        (1e-3, 1e-3): ((4, 4, 2), (4, 4, 2)),
        (1e-3, 1e-2): ((3, 5, 4), (2, 2, 2)),
        (1e-2, 1e-2): ((0, 0, 1), (7, 2, 2)),
    },
)


@exercise(
    "7.3", "a pair that is lucky on the pictures that choose gains nothing where it is judged"
)
def choose_and_judge() -> Iterator[Case]:
    """The halves' right answers are counted by hand."""
    choose = torch.tensor([1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0]).bool()
    for counts in TRIES:
        right = {pair: torch.zeros(3, len(choose), dtype=torch.bool) for pair in counts}
        for pair, halves in counts.items():
            for half, some in zip((choose, ~choose), halves, strict=True):
                for seed, count in enumerate(some):
                    right[pair][seed, half.nonzero()[:count, 0]] = True
        best = max(counts, key=lambda pair, counts=counts: sum(counts[pair][0]))
        yield Case(
            f"{len(counts)} pairs of rates, 3 seeds and 12 pictures, 5 of which choose",
            (right, choose),
            Parts({CHOSEN: [*best], ACCURACY: sum(counts[best][1]) / 21}),
            read=lambda found, *_: {CHOSEN: [*found[0]], ACCURACY: found[1]},
            form="return the chosen pair of rates, then its accuracy as one number",
            advice={CHOSEN: "count the right answers of each pair where choose is True"},
        )
