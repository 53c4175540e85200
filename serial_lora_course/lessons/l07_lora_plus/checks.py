"""Checks of the exercises on LoRA+: the parts of a step, Adam's step, groups, decay, the best ratio.

Expected values come from torch's own optimizers, from names split by hand, and from the standard
library's statistics.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise

# ------------------------------------------------------------------------ 5.1 the parts of a step

PARTS = ("B's part", "A's part", "the part of both")


@exercise(
    "7.1",
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


# --------------------------------------------------------------------------- 5.2 Adam's first step


def step(size: Callable = lambda g, eps: g / (g.abs() + eps)) -> Callable:
    """A step against the gradient of another size."""
    return lambda g, lr, eps=1e-8: (-lr * size(g.double(), eps)).to(g.dtype)


@exercise(
    "7.2",
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


# ----------------------------------------------------------------------------- 5.3 LoRA+ groups

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


def any_part(name: str) -> str:
    """As some tools ask: is lora_B in the name?"""
    return next((kind for kind in ("lora_B", "lora_A") if kind in name), name)


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
    "7.3",
    "each trainable tensor in exactly one group, at its rate, whatever its modules are called",
    {
        "the last part of the name decides, not any part: a module may be called lora_B": groups(
            any_part
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


# ------------------------------------------------------------------------------------- 5.4 decay


def left(share: Callable) -> Callable:
    """A share for each group, of its rate, its decay and the number of steps."""
    return lambda groups, n: [share(g["lr"], g["weight_decay"], n) for g in groups]


@exercise(
    "7.4",
    "equal to what AdamW leaves, for groups of different rates and decays",
    {
        "that is what is lost: the share that is left is 1 minus it": left(
            lambda lr, decay, n: 1 - (1 - lr * decay) ** n
        ),
        "the steps compound: shares of what is left, so a power": left(
            lambda lr, decay, n: 1 - n * lr * decay
        ),
        "AdamW multiplies the decay by the group's rate": left(
            lambda lr, decay, n: (1 - decay) ** n
        ),
        "each group decays at its own rate, not at the first one's": lambda groups, n: [
            (1 - groups[0]["lr"] * g["weight_decay"]) ** n for g in groups
        ],
        "that is one step: there are several": left(lambda lr, decay, n: 1 - lr * decay),
        "the decay is forgotten: the factor is 1 − lr · weight decay": left(
            lambda lr, decay, n: (1 - lr) ** n
        ),
        "the sign: decay shrinks": left(lambda lr, decay, n: (1 + lr * decay) ** n),
        "AdamW takes whole steps: a power, not an exponential": left(
            lambda lr, decay, n: float(np.exp(-lr * decay * n))
        ),
    },
)
def share_left() -> Iterator[Case]:
    """What torch's AdamW leaves of a 1 whose gradient is 0."""
    for rates, decays, steps in (
        ((1e-2, 0.2), (0.5, 0.5), 3),
        ((1e-3, 5e-3, 0.1), (0.1, 0.0, 0.3), 40),
        ((0.1,), (0.2,), 1),
    ):
        given = [{"lr": r, "weight_decay": d} for r, d in zip(rates, decays, strict=True)]
        ones = [nn.Parameter(torch.ones(1, dtype=torch.double)) for _ in given]
        optimizer = torch.optim.AdamW(
            [group | {"params": [one]} for group, one in zip(given, ones, strict=True)]
        )
        for one in ones:
            one.grad = torch.zeros_like(one)
        for _ in range(steps):
            optimizer.step()
        what = f"the shares after {steps} step{'s' * (steps > 1)}"
        form = "one number for each group, in a list"
        yield Case(what, (given, steps), [one.item() for one in ones], form=form, tolerance=1e-7)


# ----------------------------------------------------------------------------- 5.5 the best ratio

SWEEPS = {
    "a small but steady gain": {
        1.0: [0.50, 0.62, 0.55, 0.71],
        5.0: [0.53, 0.66, 0.57, 0.75],
        20.0: [0.40, 0.80, 0.44, 0.60],
        50.0: [0.2, 0.3, 0.1, 0.4],
    },
    "a gain of unsteady runs": {1.0: [0.30, 0.50, 0.40], 10.0: [0.45, 0.49, 0.46]},
    "a gain of almost three errors": {
        0.5: [0.41, 0.32, 0.33, 0.40],
        1.0: [0.465, 0.44, 0.43, 0.465],
        10.0: [0.477, 0.50, 0.45, 0.533],
    },
    "a sweep that 1 wins": {
        2.0: [0.3, 0.4, 0.35],
        1.0: [0.6, 0.5, 0.55],
        50.0: [0.1, 0.2, 0.15],
    },
}
WHAT = ("the best ratio", "the mean difference", "half of the interval", "the last answer")


def verdict(
    best: Callable = lambda runs: max(runs, key=lambda ratio: np.mean(runs[ratio])),
    mean: Callable = lambda runs, best, d: d.mean(),
    half: Callable = lambda runs, best, d, t, error: t * error,
    apart: Callable = lambda mean, half, error: abs(mean) > half,
) -> Callable:
    """The four answers with one of them changed."""

    def attempt(accuracies):
        runs = {ratio: np.array(values) for ratio, values in accuracies.items()}
        ratio = best(runs)
        d = runs[ratio] - runs[1.0]
        t, error = stats.t.ppf(0.975, len(d) - 1), d.std(ddof=1) / len(d) ** 0.5
        answers = mean(runs, ratio, d), half(runs, ratio, d, t, error)
        return ratio, *map(float, answers), bool(apart(d.mean(), t * error, error))

    return attempt


def other_error(error: Callable) -> Callable:
    """Half of the interval from another standard error."""
    return verdict(half=lambda runs, best, d, t, _: t * error(runs, best, d))


def quantile(of: Callable) -> Callable:
    """Half of the interval with another quantile of n differences."""
    return verdict(half=lambda runs, best, d, t, error: of(len(d)) * error)


def sem(values: np.ndarray) -> float:
    """Standard error of a mean."""
    return float(stats.sem(values))


@exercise(
    "7.5",
    "ratio, paired difference, its interval and the verdict, on four sweeps",
    {
        "that ratio has the best single run, not the best mean": verdict(
            lambda runs: max(runs, key=lambda ratio: runs[ratio].max())
        ),
        "that ratio has the lowest mean": verdict(
            lambda runs: min(runs, key=lambda ratio: runs[ratio].mean())
        ),
        "the sign: the best ratio minus ratio 1": verdict(mean=lambda runs, best, d: -d.mean()),
        "that is in points: leave the shares as they are": verdict(
            mean=lambda runs, best, d: 100 * d.mean()
        ),
        "that is the ratio's own mean: take ratio 1's from it, run by run": verdict(
            mean=lambda runs, best, d: runs[best].mean()
        ),
        "the baseline is 1, not the smallest ratio": verdict(
            mean=lambda runs, best, d: (runs[best] - runs[min(runs)]).mean()
        ),
        "that is the standard error: half_width(error, n - 1) is wanted": quantile(lambda n: 1),
        "two standard errors: with few runs Student's t asks for more, half_width": (
            quantile(lambda n: 2),
            quantile(lambda n: 1.96),
        ),
        "that is the whole width: half of it": verdict(
            half=lambda runs, best, d, t, error: 2 * t * error
        ),
        "one degree of freedom too few: they are n − 1": quantile(
            lambda n: stats.t.ppf(0.975, n - 2)
        ),
        "the degrees of freedom are n − 1, not n": quantile(lambda n: stats.t.ppf(0.975, n)),
        "the quantile leaves 5% on one side: 2.5% on each, so 0.975": quantile(
            lambda n: stats.t.ppf(0.95, n - 1)
        ),
        "the standard deviation is taken for the error: divide it by √n": other_error(
            lambda runs, best, d: d.std(ddof=1)
        ),
        "divided by n: divide by the root of n": other_error(
            lambda runs, best, d: d.std(ddof=1) / len(d)
        ),
        "√(n − 1) is one n − 1 too many: divide by √n": other_error(
            lambda runs, best, d: d.std(ddof=1) / (len(d) - 1) ** 0.5
        ),
        "the deviation is to be taken with n − 1": other_error(
            lambda runs, best, d: d.std() / len(d) ** 0.5
        ),
        "unpaired: differences first, then their spread": other_error(
            lambda runs, best, d: (sem(runs[best]) ** 2 + sem(runs[1.0]) ** 2) ** 0.5
        ),
        "that is the interval of the best ratio's own mean: of the differences it is": other_error(
            lambda runs, best, d: sem(runs[best])
        ),
        "the runs are sorted before they are subtracted: that destroys the pairs, as number k is "
        "the same seed in every list": other_error(
            lambda runs, best, d: sem(np.sort(runs[best]) - np.sort(runs[1.0]))
        ),
        "one error is not enough here: does the interval leave out 0?": verdict(
            apart=lambda mean, half, error: abs(mean) > error
        ),
        "two errors are for many runs, and these are few: does the interval leave out 0?": verdict(
            apart=lambda mean, half, error: abs(mean) > 2 * error
        ),
        "turned round: does the interval leave out 0?": verdict(
            apart=lambda mean, half, error: abs(mean) <= half
        ),
    },
)
def best_ratio() -> Iterator[Case]:
    """The ratio of the highest mean, and the paired difference, by the standard library."""
    for about, accuracies in SWEEPS.items():
        means = {ratio: statistics.fmean(runs) for ratio, runs in accuracies.items()}
        best = max(means, key=means.__getitem__)
        d = [a - b for a, b in zip(accuracies[best], accuracies[1.0], strict=True)]
        mean, error = statistics.fmean(d), statistics.stdev(d) / len(d) ** 0.5
        half = float(stats.t.ppf(0.975, len(d) - 1)) * error
        answers = (best, mean, half, abs(mean) > half)
        names = [f"{what} in {about}" for what in WHAT]
        yield Case(
            f"the verdict on {about}",
            (accuracies,),
            Parts(dict(zip(names, answers, strict=True))),
            form="return four things: ratio, mean difference, half of the interval, True or False",
            nan="not a number: where all differences are 0, half of the interval is 0 too",
            advice={names[3]: "does the interval leave out 0?"},
        )
