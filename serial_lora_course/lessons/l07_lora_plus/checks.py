"""Checks of the exercises on LoRA+: groups, the parts of a step, Adam's first step.

Expected values come from torch's own optimizers and from names split by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise

# ----------------------------------------------------------------------------- 7.1 LoRA+ groups

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
    "lora_B_tower.norm.weight",
)
FROZEN = ("visual.blocks.0.attn.weight", "frozen.lora_B", "frozen.lora_A")
IN_GROUPS = "how many groups each tensor is in"
HELD = "what the groups hold"


def advice_on_groups(held: list[str]) -> str:
    """What groups that hold other tensors most likely mean."""
    if len(held) < 3 and any(" and " in each for each in held):
        return "the others need a third group of their own, at A's rate"
    return "the order is A's group, B's group, the others', as the stub says"


DECAYS = "the weight decay of the groups"


def last_part(name: str) -> str:
    """What a tensor is called in its own module."""
    return name.split(".")[-1]


def any_part(name: str | list[str]) -> str:
    """As some tools ask: is lora_B in the name, or among its parts?"""
    return next((kind for kind in ("lora_B", "lora_A") if kind in name), "others")


def first_part(parts: list[str]) -> str:
    """The other way round: is lora_A among its parts?"""
    return next((kind for kind in ("lora_A", "lora_B") if kind in parts), "others")


def groups(
    kind_of: Callable = last_part,
    rate: Callable = lambda kind, lr, ratio: lr * ratio if kind == "lora_B" else lr,
    kinds: tuple = ("lora_A", "lora_B", "others"),
    frozen: bool = False,
    empty: bool = False,
    change: Callable = lambda groups: groups,
) -> Callable:
    """Groups with one thing changed: what decides, the rates, what is kept, all of them at last."""

    def attempt(named, lr, ratio, weight_decay):
        found = []
        for kind in kinds:
            params = [
                tensor
                for name, tensor in named.items()
                if (kind_of(name) if kind_of(name) in ("lora_A", "lora_B") else "others") == kind
                and (tensor.requires_grad or frozen)
            ]
            if params or empty:
                group = {"params": params, "lr": rate(kind, lr, ratio)}
                found.append(group | {"weight_decay": weight_decay})
        return change(found)

    return attempt


def copied(groups: list[dict]) -> list[dict]:
    """New tensors in the place of the model's."""
    return [g | {"params": [nn.Parameter(p.detach().clone()) for p in g["params"]]} for g in groups]


def no_decay_on_B(found: list[dict]) -> list[dict]:
    """The second group without weight decay."""
    return [g | {"weight_decay": 0.0} if i == 1 else g for i, g in enumerate(found)]


def others_with_A(found: list[dict]) -> list[dict]:
    """Two groups, one for each rate."""
    params = [p for g in (found[0], *found[2:]) for p in g["params"]]
    return [found[0] | {"params": params}, found[1]]


def read_groups(
    found: Any, named: dict[str, nn.Parameter], lr: float, ratio: float, weight_decay: float
) -> dict[str, Any]:
    """What counts of some groups: each tensor's number of groups and rate, and what they hold."""
    if not isinstance(found, (list, tuple)) or not all(isinstance(g, dict) for g in found):
        cause = "return a list, with one dictionary a group"
        raise CheckFailed("the groups", "a list of dictionaries", found, cause, sure=True)
    for group in found:
        missing = ", ".join(sorted({"params", "lr", "weight_decay"} - set(group)))
        if missing:
            cause = f"every group needs {missing}"
            raise CheckFailed("the keys of a group", missing, [*group], cause, sure=True)
        if not isinstance(group["params"], (list, tuple)):
            cause = "params is a list: whoever reads a generator once, a log say, leaves it empty"
            raise CheckFailed("the params of a group", "a list", group["params"], cause, sure=True)
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
        **{f"the rate of {name}": (each or [None])[0] for name, each in rates.items()},
        HELD: [" and ".join(each) or "nothing" for each in held],
        DECAYS: [float(group["weight_decay"]) for group in found],
    }


@exercise(
    "7.1",
    "each trainable tensor in exactly one group, at its rate, whatever its modules are called",
    {
        "the last part of the name decides, not any part: a module may be called lora_B": (
            groups(any_part),
            groups(lambda name: any_part(name.split("."))),
            groups(lambda name: first_part(name.split("."))),
        ),
        "the last part of the name decides, as a whole: its last letter does not, nor what it ends "
        "in": (groups(lambda name: f"lora_{name[-1]}"), groups(lambda name: name[-6:])),
        "turned round: the ratio belongs to B": groups(
            rate=lambda kind, lr, ratio: lr * ratio if kind == "lora_A" else lr
        ),
        "B's rate is A's times the ratio, not divided by it": groups(
            rate=lambda kind, lr, ratio: lr / ratio if kind == "lora_B" else lr
        ),
        "lr is A's rate: B's is larger, A's is not smaller": groups(
            rate=lambda kind, lr, ratio: lr / ratio if kind == "lora_A" else lr
        ),
        "that is the ratio: B's rate is lr times it": groups(
            rate=lambda kind, lr, ratio: ratio if kind == "lora_B" else lr
        ),
        "no group has B's rate: it is lr times the ratio": groups(rate=lambda kind, lr, ratio: lr),
        "what is neither A nor B gets A's rate": groups(
            rate=lambda kind, lr, ratio: lr if kind == "lora_A" else lr * ratio
        ),
        "the tensors are copied: the optimizer would train the copies, and the model would stay as "
        "it is; put in the tensors that came in": groups(change=copied),
        "one group for all tensors of a kind: a scheduler or a log then sees three rates at most": (
            groups(change=lambda found: [g | {"params": [p]} for g in found for p in g["params"]])
        ),
        "the order is A's group, B's group, the others', as the stub says": groups(
            change=lambda found: found[::-1]
        ),
        "what is neither A nor B gets A's rate, but a third group of its own": groups(
            change=others_with_A
        ),
        "pass over tensors that do not require gradients": groups(frozen=True),
        "what is neither A nor B has to train too: it goes into the third group": groups(
            kinds=("lora_A", "lora_B")
        ),
        "the tensors of A are in no group: they would not train": groups(
            kinds=("lora_B", "others")
        ),
        "a tensor in two groups takes two steps: let the last part decide": groups(
            change=lambda found: [*found, dict(found[1])]
        ),
        "leave out a group that would be empty: some schedulers count groups": groups(empty=True),
        "every group gets the weight decay that was asked for": groups(change=no_decay_on_B),
    },
)
def plus_groups() -> Iterator[Case]:
    """Every trainable tensor once, by the last part of its name."""
    names = sorted(TRAINABLE + FROZEN)
    named = {n: nn.Parameter(torch.randn(2, 2), requires_grad=n not in FROZEN) for n in names}
    pairs = {n: p for n, p in named.items() if n.startswith("visual.blocks.0.pair")}
    for tensors, lr, ratio, decay in ((named, 1e-3, 16.0, 0.1), (pairs, 2e-4, 20.0, 0.0)):
        rates = {
            f"the rate of {name}": None
            if name in FROZEN
            else lr * (ratio if last_part(name) == "lora_B" else 1)
            for name in tensors
        }
        held = ["A", "B", "others"] if tensors is named else ["A", "B"]
        expected = {IN_GROUPS: [f"{name}: {int(name not in FROZEN)}" for name in tensors]}
        yield Case(
            f"the groups of {len(tensors)} tensors",
            (tensors, lr, ratio, decay),
            Parts(expected | rates | {HELD: held, DECAYS: [decay] * len(held)}),
            read=read_groups,
            advice={HELD: advice_on_groups},
            tolerance=1e-9,
        )


# ------------------------------------------------------------------------ 7.2 the parts of a step

PARTS = ("B's part", "A's part", "the part of both")


@exercise(
    "7.2",
    "the three parts, which add up to the change of B A, at two sizes",
    {
        "the first two are exchanged: B's part comes first": lambda A, B, a, b: (
            B @ a,
            b @ A,
            b @ a,
        ),
        "the new factor of B's part is the step, not B after the step": lambda A, B, a, b: (
            (B + b) @ A,
            B @ a,
            b @ a,
        ),
        "the new factor of A's part is the step, not A after the step": lambda A, B, a, b: (
            b @ A,
            B @ (A + a),
            b @ a,
        ),
        "the other factor is the one before the step: the part of both comes third": (
            lambda A, B, a, b: (b @ (A + a), (B + b) @ a, b @ a),
            lambda A, B, a, b: (b @ A, (B + b) @ a, b @ a),
            lambda A, B, a, b: (b @ (A + a), B @ a, b @ a),
        ),
        "that is the whole change: return its three parts": lambda A, B, a, b: (
            b @ A,
            B @ a,
            (B + b) @ (A + a) - B @ A,
        ),
        "that is half of the right part: nothing is shared out here": lambda A, B, a, b: (
            b @ A / 2,
            B @ a / 2,
            b @ a,
        ),
        "transposed: B stands on the left": lambda A, B, a, b: (
            (b @ A).T,
            (B @ a).T,
            (b @ a).T,
        ),
        "return the three parts, not their sum, in the order of the formula": (
            lambda A, B, a, b: (B + b) @ (A + a) - B @ A,
            lambda A, B, a, b: (b @ A, B @ a),
        ),
    },
)
def change_of_product() -> Iterator[Case]:
    """Three parts, each by one entry's sum at a time."""
    for d_out, d_in, rank in ((5, 5, 2), (6, 4, 3)):
        A, step_A = torch.randn(2, rank, d_in)
        B, step_B = torch.randn(2, d_out, rank)
        what = f"the parts for B {d_out}x{rank} and A {rank}x{d_in}"
        products = [
            torch.einsum("or,ri->oi", left, right)
            for left, right in ((step_B, A), (B, step_A), (step_B, step_A))
        ]
        expected = {f"{name} in {what}": each for name, each in zip(PARTS, products, strict=True)}
        form = "return the three parts, not their sum, in the order of the formula"
        yield Case(what, (A, B, step_A, step_B), Parts(expected), form=form)


# --------------------------------------------------------------------------- 7.3 Adam's first step


def step(size: Callable = lambda g, eps: g / (g.abs() + eps)) -> Callable:
    """A step against the gradient of another size."""
    return lambda g, lr, eps=1e-8: (-lr * size(g.double(), eps)).to(g.dtype)


@exercise(
    "7.3",
    "equal to torch's Adam, for gradients from 0 to 1000 and for a large ε",
    {
        "the sign: a step goes against the gradient": step(lambda g, eps: -g / (g.abs() + eps)),
        "that is plain gradient descent: Adam divides by the gradient's size": step(
            lambda g, eps: g
        ),
        "without bias correction: divide m by 1 − β₁ and v by 1 − β₂": step(
            lambda g, eps: 0.1 * g / ((0.001 * g**2) ** 0.5 + eps)
        ),
        "only v is corrected: m has to be divided by 1 − β₁ too": step(
            lambda g, eps: 0.1 * g / (g.abs() + eps)
        ),
        "only m is corrected: v has to be divided by 1 − β₂ too": step(
            lambda g, eps: g / ((0.001 * g**2) ** 0.5 + eps)
        ),
        "ε is added after the root, not under it": step(lambda g, eps: g / (g**2 + eps).sqrt()),
        "the root is missing: divide by |g|, not by g²": step(lambda g, eps: g / (g**2 + eps)),
        "√(g²) is |g|, not g: this step has one sign for all entries": step(
            lambda g, eps: g / (g + eps)
        ),
        "that is one size for all: Adam divides each entry by its own": step(
            lambda g, eps: g / (g.norm() + eps)
        ),
        "the rate is forgotten": lambda g, lr, eps=1e-8: step()(g, 1.0, eps),
        "ε is left out: beside a tiny gradient, or a large ε, it counts": step(
            lambda g, eps: g.sign()
        ),
        "0 / 0 where the gradient is zero: ε belongs into the denominator": step(
            lambda g, eps: g / g.abs()
        ),
        "ε is an argument: 1e-8 is only what it is when nothing else is given": step(
            lambda g, eps: g / (g.abs() + 1e-8)
        ),
    },
)
def first_adam_step() -> Iterator[Case]:
    """What torch's Adam adds in its first step."""
    sizes = torch.tensor([1e3, 1.0, 1e-3, 1e-6, 0.0, -2.0, 0.0, -1e-5])
    for gradient, lr, eps in (
        (sizes, 0.1, 1e-8),
        (torch.randn(3, 4), 0.02, 1e-8),
        (torch.tensor([0.5, -2.0, 1e-2]), 0.1, 1.0),
    ):
        parameter = nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        torch.optim.Adam([parameter], lr=lr, eps=eps).step()
        yield Case(
            f"the first step at rate {lr}" + (" and a large ε" if eps == 1 else ""),
            (gradient, lr, eps),
            parameter.detach(),
            nan="0 / 0 where the gradient is zero: ε belongs into the denominator",
            tolerance=2e-6,
        )
