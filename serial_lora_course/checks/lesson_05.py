"""Checks of lesson 05: the parts of a step, Adam's step, LoRA+ groups, decay, the best ratio.

Expected values come from torch's own optimizers, from names split by hand, and from the standard
library's statistics.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from math import isclose
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn

from serial_lora_course.checking.message import likely, require
from serial_lora_course.checks.cases import Case, Part, call
from serial_lora_course.checks.checking import exercise

PARTS = ("B's part", "A's part", "the part of both")


@exercise("5.1", "the three parts, which add up to the change of B A, at two sizes")
def change_of_product() -> Iterator[Case]:
    """Three parts that add up to the change of B A, each by one entry's sum at a time."""
    for d_out, d_in, rank in ((5, 5, 2), (6, 4, 3)):
        A, step_A = torch.randn(2, rank, d_in)
        B, step_B = torch.randn(2, d_out, rank)
        factors = ((step_B, A), (B, step_A), (step_B, step_A))
        rights = [torch.einsum("or,ri->oi", left, right) for left, right in factors]
        what = f"the parts for B {d_out}x{rank} and A {rank}x{d_in}"
        parts = []
        for index, (left, right) in enumerate(factors):
            others = {f"that is {PARTS[i]}: mind the order": rights[i] for i in range(3)}
            del others[f"that is {PARTS[index]}: mind the order"]
            causes = others | {
                "the new factor of B's part is the step, not B after the step": (B + step_B) @ A,
                "the new factor of A's part is the step, not A after the step": B @ (A + step_A),
                "that is the whole change: return its three parts": sum(rights),
                "that is half of the right part: nothing is shared out here": rights[index] / 2,
                "the other factor is the one before the step: the part of both comes third": (
                    step_B @ (A + step_A) if index == 0 else (B + step_B) @ step_A
                ),
                "transposed: B stands on the left": right.T @ left.T,
            }
            parts.append(Part(f"{PARTS[index]} in {what}", rights[index], causes))
        form = "return the three parts, not their sum, in the order of the formula"
        yield Case(what, (A, B, step_A, step_B), parts, form=form)


@exercise("5.2", "equal to torch's Adam, for gradients from 0 to 1000 and for a large ε")
def first_adam_step() -> Iterator[Case]:
    """What torch's Adam adds in its first step."""
    sizes = torch.tensor([1e3, 1.0, 1e-3, 1e-6, 0.0, -2.0, 0.0, -1e-5])
    for gradient, lr, eps in (
        (sizes, 0.1, 1e-8),
        (torch.randn(3, 4), 0.02, 1e-8),
        (torch.tensor([0.5, -2.0, 1e-2]), 0.1, 1.0),
    ):
        parameter = nn.Parameter(torch.zeros_like(gradient, dtype=torch.double))
        parameter.grad = g = gradient.double()
        torch.optim.Adam([parameter], lr=lr, eps=eps).step()
        expected = parameter.detach()
        m, v = 0.1 * g, 0.001 * g.square()
        causes = {
            "the sign: a step goes against the gradient": -expected,
            "that is plain gradient descent: Adam divides by the gradient's size": -lr * g,
            "without bias correction: divide m by 1 − β₁ and v by 1 − β₂": (
                -lr * m / (v.sqrt() + eps)
            ),
            "only v is corrected: m has to be divided by 1 − β₁ too": -lr * m / (g.abs() + eps),
            "only m is corrected: v has to be divided by 1 − β₂ too": -lr * g / (v.sqrt() + eps),
            "ε is added after the root, not under it": -lr * g / (g.square() + eps).sqrt(),
            "the root is missing: divide by |g|, not by g²": -lr * g / (g.square() + eps),
            "√(g²) is |g|, not g: this step has one sign for all entries": -lr * g / (g + eps),
            "that is one size for all: Adam divides each entry by its own": (
                -lr * g / (g.norm() + eps)
            ),
            "the rate is forgotten": expected / lr,
            "ε is left out: beside a tiny gradient, or a large ε, it counts": -lr * g.sign(),
        }
        yield Case(
            f"the first step at rate {lr}" + (" and a large ε" if eps == 1 else ""),
            (gradient, lr, eps),
            expected,
            causes,
            nan="0 / 0 where the gradient is zero: ε belongs into the denominator",
            tolerance=1e-6,
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


def misleading_tensors() -> dict[str, nn.Parameter]:
    """Named tensors of a model with a head, frozen weights, and modules with misleading names."""
    names = sorted(TRAINABLE + FROZEN)
    return {n: nn.Parameter(torch.randn(2, 2), requires_grad=n not in FROZEN) for n in names}


@exercise("5.3")
def plus_groups(attempt) -> str:
    """Every trainable tensor once, by the last part of its name."""
    named = misleading_tensors()
    _check_groups(attempt, named, lr=1e-3, ratio=16.0, weight_decay=0.1)
    pairs = {n: p for n, p in named.items() if n.startswith("visual.blocks.0.pair")}
    _check_groups(attempt, pairs, lr=2e-4, ratio=20.0, weight_decay=0.0)
    return (
        "each trainable tensor in exactly one group, at its rate, whatever its modules are called"
    )


def _check_groups(
    attempt, named: dict[str, nn.Parameter], lr: float, ratio: float, weight_decay: float
) -> None:
    groups = call(attempt, dict(named), lr, ratio, weight_decay, what="the groups")
    cause = "return a list, with one dictionary a group"
    fine = isinstance(groups, (list, tuple)) and all(isinstance(group, dict) for group in groups)
    require(fine, "the kind of result", "a list of dictionaries", groups, cause)
    for group in groups:
        missing = ", ".join(sorted({"params", "lr", "weight_decay"} - set(group)))
        keys = ", ".join(map(str, group))
        wanted = "params, lr, weight_decay"
        require(not missing, "the keys of a group", wanted, keys, f"every group needs {missing}")
        kind = type(group["params"]).__name__
        cause = "params is a list: whoever reads a generator once, a log say, leaves it empty"
        require(kind in ("list", "tuple"), "the params of a group", "a list", kind, cause)
    _check_each_tensor(groups, named, lr, ratio)
    kinds = {id(tensor): _kind(name) for name, tensor in named.items()}
    held = [sorted({kinds[id(tensor)] for tensor in group["params"]}) for group in groups]
    cause = "leave out a group that would be empty: some schedulers count groups"
    require([] not in held, "groups without a tensor", 0, held.count([]), cause)
    for each in held:
        cause = "what is neither A nor B gets A's rate, but a third group of its own"
        wanted = "A, or B, or the others"
        require(len(each) == 1, "what one group holds", wanted, " and ".join(each), cause)
    flat = [each[0] for each in held]
    conditions = {
        "one group for all tensors of a kind: a scheduler or a log then sees three rates at most": (
            len(set(flat)) < len(flat)
        )
    }
    cause = likely(conditions, "the order is A's group, B's group, the others', as the stub says")
    require(flat == sorted(set(flat)), "what the groups hold", sorted(set(flat)), flat, cause)
    cause = "every group gets the weight decay that was asked for"
    decays = sorted({group["weight_decay"] for group in groups})
    right = decays == [weight_decay]
    require(right, "the weight decay of the groups", [weight_decay], decays, cause)


def _kind(name: str) -> str:
    return {"lora_A": "A", "lora_B": "B"}.get(name.split(".")[-1], "others")


def _check_each_tensor(
    groups: list[dict[str, Any]], named: dict[str, nn.Parameter], lr: float, ratio: float
) -> None:
    strangers = [
        tensor
        for group in groups
        for tensor in group["params"]
        if all(tensor is not own for own in named.values())
    ]
    cause = (
        "the tensors are copied: the optimizer would train the copies, and the model would stay as "
        "it is; put in the tensors that came in"
    )
    require(not strangers, "tensors that are not the model's", 0, len(strangers), cause)
    rates = {
        name: [group["lr"] for group in groups for each in group["params"] if each is parameter]
        for name, parameter in named.items()
    }
    used = [group["lr"] for group in groups]
    for name, found in rates.items():
        frozen = not named[name].requires_grad
        kind = _kind(name)
        conditions = {
            "pass over tensors that do not require gradients": frozen,
            "a tensor in two groups takes two steps: let the last part decide": len(found) > 1,
            f"the tensors of {kind} are in no group: they would not train": kind != "others",
        }
        cause = likely(
            conditions, "what is neither A nor B has to train too: it goes into the third group"
        )
        what = f"the number of groups of {name}" + (", which is frozen" if frozen else "")
        require(len(found) == 1 - frozen, what, 1 - frozen, len(found), cause)
        wanted = lr * ratio if kind == "B" else lr
        if not frozen and not isclose(found[0], wanted, rel_tol=1e-9):
            cause = _rate_cause(name, kind, found[0], lr, ratio, used)
            require(False, f"the rate of {name}", wanted, found[0], cause)


def _rate_cause(
    name: str, kind: str, found: float, lr: float, ratio: float, used: list[float]
) -> str:
    last = name.split(".")[-1]
    of_A, of_B, head = (kind == each for each in ("A", "B", "others"))
    conditions = {
        "B's rate is A's times the ratio, not divided by it": of_B and isclose(found, lr / ratio),
        "that is the ratio: B's rate is lr times it": of_B and isclose(found, ratio),
        "no group has B's rate: it is lr times the ratio": (
            of_B and not any(isclose(rate, lr * ratio) for rate in used)
        ),
        "lr is A's rate: B's is larger, A's is not smaller": of_A and isclose(found, lr / ratio),
        "turned round: the ratio belongs to B": of_A and "lora_B" not in name,
        "the last part of the name decides, as a whole: its last letter does not decide, nor what "
        "it ends in": head and last.endswith("_B"),
        "what is neither A nor B gets A's rate": head and "lora_B" not in name,
        "B's rate is lr times the ratio": of_B and "lora_A" not in name,
    }
    otherwise = "the last part of the name decides, not any part: a module may be called lora_B"
    return likely(conditions, otherwise)


# ------------------------------------------------------------------------------------- 5.4 decay


@exercise("5.4", "equal to what AdamW leaves, for groups of different rates and decays")
def share_left() -> Iterator[Case]:
    """What torch's AdamW leaves of a 1 whose gradient is 0."""
    for rates, decays, steps in (
        ((1e-2, 0.2), (0.5, 0.5), 3),
        ((1e-3, 5e-3, 0.1), (0.1, 0.0, 0.3), 40),
        ((0.1,), (0.2,), 1),
    ):
        groups = [{"lr": r, "weight_decay": d} for r, d in zip(rates, decays, strict=True)]
        ones = [nn.Parameter(torch.ones(1, dtype=torch.double)) for _ in groups]
        optimizer = torch.optim.AdamW(
            [group | {"params": [one]} for group, one in zip(groups, ones, strict=True)]
        )
        for one in ones:
            one.grad = torch.zeros_like(one)
        for _ in range(steps):
            optimizer.step()
        expected = torch.cat([one.detach() for one in ones])
        lr, decay = torch.tensor(rates).double(), torch.tensor(decays).double()
        what = f"the shares after {steps} step{'s' * (steps > 1)}"
        form = "one number for each group, in a list"

        def in_a_row(got: Any, what=what, form=form, expected=expected) -> Tensor:
            fine = isinstance(got, (list, tuple, Tensor)) and len(got) == len(expected)
            require(fine, what, f"{len(expected)} numbers", got, form)
            return torch.as_tensor(got).double()

        causes = {
            "that is what is lost: the share that is left is 1 minus it": 1 - expected,
            "the steps compound: shares of what is left, so a power": 1 - steps * lr * decay,
            "AdamW multiplies the decay by the group's rate": (1 - decay) ** steps,
            "each group decays at its own rate, not at the first one's": (
                (1 - lr[0] * decay) ** steps
            ),
            "that is one step: there are several": 1 - lr * decay,
            "the decay is forgotten: the factor is 1 − lr · weight decay": (1 - lr) ** steps,
            "the sign: decay shrinks": (1 + lr * decay) ** steps,
            "AdamW takes whole steps: a power, not an exponential": (-lr * decay * steps).exp(),
        }
        yield Case(what, (groups, steps), expected, causes, read=in_a_row, tolerance=1e-7)


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


@exercise("5.5", "ratio, paired difference, its interval and the verdict, on four sweeps")
def best_ratio() -> Iterator[Case]:
    """The ratio of the highest mean, and the paired difference, by the standard library."""
    for about, accuracies in SWEEPS.items():
        means = {ratio: statistics.fmean(runs) for ratio, runs in accuracies.items()}
        best = max(means, key=means.__getitem__)
        runs, ones = accuracies[best], accuracies[1.0]
        d = [a - b for a, b in zip(runs, ones, strict=True)]
        by_rank = [a - b for a, b in zip(sorted(runs), sorted(ones), strict=True)]
        n, mean, spread = len(d), statistics.fmean(d), statistics.stdev(d)
        t, root = float(stats.t.ppf(0.975, n - 1)), n**0.5
        error, half = spread / root, t * spread / root
        each = [statistics.variance(values) for values in (runs, ones)]
        out = "the last answer: does the interval leave out 0?"
        parts = [
            Part(
                f"the best ratio in {about}",
                best,
                {
                    "that ratio has the best single run, not the best mean": max(
                        accuracies, key=lambda ratio, runs=accuracies: max(runs[ratio])
                    ),
                    "that is the position or the accuracy: return the ratio itself": means[best],
                    "that ratio has the lowest mean": min(means, key=means.__getitem__),
                },
                otherwise="the ratio whose runs have the highest mean; 1 takes part too",
            ),
            Part(
                f"the mean difference in {about}",
                mean,
                {
                    "the sign: the best ratio minus ratio 1": -mean,
                    "that is in points: leave the shares as they are": 100 * mean,
                    "that is the ratio's own mean: take ratio 1's from it, run by run": means[best],
                    "the baseline is 1, not the smallest ratio": means[best] - means[min(means)],
                },
                otherwise="take the best ratio's runs minus ratio 1's, one by one, and their mean",
            ),
            Part(
                f"half of the interval in {about}",
                half,
                {
                    "that is the standard error: half_width(error, n - 1) is wanted": error,
                    "two standard errors: with few runs Student's t asks for more, half_width": (
                        2 * error
                    ),
                    "1.96 errors are for a normal distribution and many runs: half_width": (
                        1.96 * error
                    ),
                    "that is the whole width: half of it": 2 * half,
                    "one degree of freedom too few: they are n − 1": (
                        stats.t.ppf(0.975, n - 2) * error
                    ),
                    "the degrees of freedom are n − 1, not n": stats.t.ppf(0.975, n) * error,
                    "the quantile leaves 5% on one side: 2.5% on each, so 0.975": (
                        stats.t.ppf(0.95, n - 1) * error
                    ),
                    "the standard deviation is taken for the error: divide it by √n": t * spread,
                    "divided by n: divide by the root of n": t * spread / n,
                    "√(n − 1) is one n − 1 too many: divide by √n": t * spread / (n - 1) ** 0.5,
                    "the deviation is to be taken with n − 1": t * statistics.pstdev(d) / root,
                    "unpaired: differences first, then their spread": t * (sum(each) / n) ** 0.5,
                    "that is the interval of the best ratio's own mean: of the differences it is": (
                        t * each[0] ** 0.5 / root
                    ),
                    "the runs are sorted before they are subtracted: that destroys the pairs, as "
                    "number k is the same seed in every list": (
                        t * statistics.stdev(by_rank) / root
                    ),
                },
                nan="not a number: where all differences are 0, half of the interval is 0 too",
            ),
            Part(
                f"the last answer, in {about}",
                abs(mean) > half,
                {
                    f"one error is not enough here: {out}": abs(mean) > error,
                    f"two errors are for many runs, and these are few: {out}": abs(mean)
                    > 2 * error,
                    f"turned round: {out}": abs(mean) <= half,
                },
                otherwise=out,
            ),
        ]
        form = "return four things: ratio, mean difference, half of the interval, True or False"
        yield Case(f"the verdict on {about}", (accuracies,), parts, form=form)
