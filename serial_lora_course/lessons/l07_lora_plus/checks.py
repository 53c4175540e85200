"""Checks of the exercises on LoRA+: groups, Adam's first step, a fair test.

Expected values come from names split by hand, from torch's own optimizers, and from runs that are invented.
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
RUNS = ("slow", "LoRA+", "A fast", "both fast")
AHEAD = "how far LoRA+ is ahead of the better run with one rate"
MADE = "how often each run was made"
FORM = "return two things: what each run names right, as a dictionary, then how far LoRA+ is ahead"
RATES_OF_A_RUN = "run takes two rates, A's and then B's, and each is small or large"
MISSING = "a run is missing, or has another name: slow, LoRA+, A fast and both fast are asked for"


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


@exercise(
    "7.2",
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


class Invented:
    """A ``run`` that trains nothing: what is right at each pair of rates, and which runs were made."""

    def __init__(self, right: dict[tuple[float, float], int]) -> None:
        self.right, self.made = right, []

    def __repr__(self) -> str:
        return f"an invented run; right at (A's rate, B's rate): {self.right}"

    def __call__(self, lr_A: float, lr_B: float) -> int:
        """What this run names right."""
        if (lr_A, lr_B) not in self.right:
            small, large = min(self.right)[0], max(self.right)[0]
            told = f"{lr_A} and {lr_B}"
            raise CheckFailed(
                "the rates of a run", f"of {small} and {large}", told, RATES_OF_A_RUN, sure=True
            )
        self.made.append((lr_A, lr_B))
        return self.right[lr_A, lr_B]


def read_test(found: Any, run: Invented, *_: float) -> dict[str, Any]:
    """What counts of a fair test: each run's result, the lead, and that no run was made twice."""
    two = isinstance(found, (tuple, list)) and len(found) == 2
    if not two or not isinstance(found[0], dict) or isinstance(found[1], dict):
        raise CheckFailed("the result", "a dictionary and a number", found, FORM, sure=True)
    right, ahead = found
    if set(right) != set(RUNS):
        raise CheckFailed("the runs", ", ".join(RUNS), [*right], MISSING, sure=True)
    made = [f"{rates}: {run.made.count(rates)}" for rates in run.right]
    return {f"right, {name}": right[name] for name in RUNS} | {AHEAD: ahead, MADE: made}


@exercise("7.3", "the four runs are made once each, and LoRA+ is compared with its better rival")
def fair_test() -> Iterator[Case]:
    """Where both fast is best, where slow is, and where LoRA+ is."""
    for small, large, right, ahead in (
        (0.001, 0.01, (40, 61, 47, 64), -3),
        (0.0002, 0.006, (58, 52, 30, 21), -6),
        (0.01, 0.05, (33, 71, 69, 50), 21),
    ):
        run = Invented(
            dict(zip([(a, b) for a in (small, large) for b in (small, large)], right, strict=True))
        )
        expected = {f"right, {name}": n for name, n in zip(RUNS, right, strict=True)}
        once = {MADE: [f"{rates}: 1" for rates in run.right]}
        yield Case(
            f"the test of the rates {small} and {large}",
            (run, small, large),
            Parts(expected | {AHEAD: ahead} | once),
            read=read_test,
            advice={MADE: "make each of the four runs once"},
            may_change=True,  # an invented run notes that it was made
        )
