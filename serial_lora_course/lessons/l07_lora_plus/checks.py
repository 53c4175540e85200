"""Checks of the exercises on LoRA+: groups, the parts of a step, Adam's first step.

Expected values come from torch's own optimizers and from names split by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
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


@exercise("7.2", "each of the three parts is right, at two sizes")
def change_of_product() -> Iterator[Case]:
    """Three parts, each by one entry's sum at a time."""
    for d_out, d_in, rank in ((5, 5, 2), (6, 4, 3)):
        A, step_A = torch.randn(2, rank, d_in)
        B, step_B = torch.randn(2, d_out, rank)
        what = f"the parts for B {d_out}x{rank} and A {rank}x{d_in}"
        factors = {
            "B's part": (step_B, A),
            "A's part": (B, step_A),
            "the part of both": (step_B, step_A),
        }
        expected = {
            f"{name} in {what}": torch.einsum("or,ri->oi", *both) for name, both in factors.items()
        }
        form = "return three tensors: B's part, A's part and the part of both, not their sum"
        yield Case(what, (A, B, step_A, step_B), Parts(expected), form=form)


@exercise(
    "7.3",
    "the step equals that of torch.optim.Adam, for gradients from 0 to 1000 and for a large ε",
)
def first_adam_step() -> Iterator[Case]:
    """What torch's Adam adds in its first step."""
    sizes = torch.tensor([1e3, 1.0, 1e-3, 1e-6, 0.0, -2.0, 0.0, -1e-5])
    for gradient, lr, eps in (
        (sizes, 0.3, 1e-8),
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
            nan="0 / 0 occurs where the gradient is zero: add ε to the denominator",
            tolerance=2e-6,
        )
