"""Checks of lesson 05: the parts of a step, Adam's step, LoRA+ groups, decay, the best ratio.

Expected values come from torch's own optimizers, from names split by hand, and from the standard
library's statistics.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from serial_lora_course.checks.checking import call, exercise, require, require_close, require_equal

PARTS = ("B's part", "A's part", "the part of both")


@exercise("5.1")
def change_of_product(attempt) -> str:
    """Three parts that add up to the change of B A, each by one entry's sum at a time."""
    for d_out, d_in, rank in ((5, 5, 2), (6, 4, 3)):
        A, step_A = torch.randn(2, rank, d_in)
        B, step_B = torch.randn(2, d_out, rank)
        before = [tensor.clone() for tensor in (A, B, step_A, step_B)]
        what = f"the parts for B {d_out}x{rank} and A {rank}x{d_in}"
        got = call(attempt, A, B, step_A, step_B, what=what)
        require(
            all(map(torch.equal, before, (A, B, step_A, step_B))),
            "the four tensors that came in",
            "unchanged",
            "changed in place",
            "make new tensors: what comes in belongs to the caller",
        )
        require(
            isinstance(got, (tuple, list)) and len(got) == 3,
            what,
            "three tensors",
            got,
            "return the three parts, not their sum, in the order of the formula",
        )
        rights = [
            torch.einsum("or,ri->oi", left, right)
            for left, right in ((step_B, A), (B, step_A), (step_B, step_A))
        ]
        whole = (B + step_B) @ (A + step_A) - B @ A
        for index, (part, right) in enumerate(zip(got, rights, strict=True)):
            suspects = {
                f"that is {PARTS[other]}: mind the order": rights[other]
                for other in range(3)
                if other != index
            }
            suspects |= {
                "the new factor of B's part is the step alone, not B after the step": (
                    (B + step_B) @ A
                ),
                "the new factor of A's part is the step alone, not A after the step": (
                    B @ (A + step_A)
                ),
                "that is the whole change: return its three parts": whole,
                "that is half of the right part: nothing is shared out here": right / 2,
                "the other factor is the one before the step: the part of both comes third": (
                    step_B @ (A + step_A) if index == 0 else (B + step_B) @ step_A
                ),
            }
            if d_out == d_in:
                turned = [A.T @ step_B.T, step_A.T @ B.T, step_A.T @ step_B.T]
                suspects["transposed: B stands on the left"] = turned[index]
            require_close(f"{PARTS[index]} in {what}", part, right, suspects)
    return "the three parts, which add up to the change of B A, at two sizes"


@exercise("5.2")
def first_adam_step(attempt) -> str:
    """What torch's Adam adds in its first step."""
    sizes = torch.tensor([1e3, 1.0, 1e-3, 1e-6, 0.0, -2.0, 0.0, -1e-5])
    for gradient, lr, eps in (
        (sizes, 0.1, 1e-8),
        (torch.randn(3, 4), 0.02, 1e-8),
        (torch.tensor([0.5, -2.0, 1e-2]), 0.1, 1.0),
    ):
        parameter = nn.Parameter(torch.zeros_like(gradient, dtype=torch.double))
        parameter.grad = gradient.double()
        torch.optim.Adam([parameter], lr=lr, eps=eps).step()
        expected = parameter.detach()
        g = gradient.double()
        got = call(attempt, gradient, lr, eps, what="the first step of Adam")
        what = f"the first step at rate {lr}" + (" and a large ε" if eps == 1 else "")
        require(
            not (isinstance(got, Tensor) and got.isnan().any()),
            what,
            "no NaN",
            got,
            "0 / 0 where the gradient is zero: ε belongs into the denominator",
        )
        m, v = 0.1 * g, 0.001 * g.square()
        suspects = {
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
            "that is one size for the whole tensor: Adam divides each entry by its own": (
                -lr * g / (g.norm() + eps)
            ),
            "the rate is forgotten": expected / lr,
            "ε is left out: beside a tiny gradient, or a large ε, it counts": -lr * g.sign(),
        }
        require_close(what, got, expected, suspects, tolerance=1e-6)
    return "equal to torch's Adam, for gradients from 0 to 1000 and for a large ε"


def misleading_tensors() -> dict[str, nn.Parameter]:
    """Named tensors of a model with a head, frozen weights, and modules with misleading names."""
    trainable = (
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
        "lora_B_tower.norm.weight",
    )
    frozen = ("visual.blocks.0.attn.weight", "frozen.lora_B", "frozen.lora_A")
    named = {name: nn.Parameter(torch.randn(2, 2)) for name in (*trainable, *frozen)}
    for name in frozen:
        named[name].requires_grad_(False)
    return dict(sorted(named.items()))


@exercise("5.3")
def plus_groups(attempt) -> str:
    """Every trainable tensor once, by the last part of its name."""
    named = misleading_tensors()
    groups = _check_groups(attempt, named, lr=1e-3, ratio=16.0, weight_decay=0.1)
    require_equal("the number of groups of a model with pairs and a head", len(groups), 3)
    pairs = {n: p for n, p in named.items() if n.startswith("visual.blocks.0.pair")}
    groups = _check_groups(attempt, pairs, lr=2e-4, ratio=20.0, weight_decay=0.0)
    require_equal("the number of groups of a model with pairs only", len(groups), 2)
    return (
        "each trainable tensor in exactly one group, at its rate, whatever its modules are called"
    )


def _check_groups(
    attempt, named: dict[str, nn.Parameter], lr: float, ratio: float, weight_decay: float
) -> list[dict]:
    groups = call(attempt, named, lr, ratio, weight_decay, what="the groups")
    require(
        isinstance(groups, (list, tuple)) and all(isinstance(group, dict) for group in groups),
        "the kind of result",
        "a list of dictionaries",
        groups,
        "return a list, with one dictionary a group",
    )
    for group in groups:
        missing = {"params", "lr", "weight_decay"} - set(group)
        require(
            not missing,
            "the keys of a group",
            "params, lr, weight_decay",
            ", ".join(map(str, group)),
            f"every group needs {', '.join(sorted(missing))}",
        )
    groups = [group | {"params": list(group["params"])} for group in groups]
    _check_each_tensor(groups, named, lr, ratio)
    empty = sum(not group["params"] for group in groups)
    require(
        not empty,
        "groups without a tensor",
        0,
        empty,
        "leave out a group that would be empty: some schedulers count groups",
    )
    kinds = {id(tensor): _kind(name) for name, tensor in named.items()}
    for group in groups:
        mixed = sorted({kinds.get(id(tensor), "strangers") for tensor in group["params"]})
        require(
            len(mixed) == 1,
            "what one group holds",
            "A, or B, or the others",
            " and ".join(mixed),
            "what is neither A nor B gets A's rate, but a third group of its own",
        )
    decays = sorted({group["weight_decay"] for group in groups})
    require(
        decays == [weight_decay],
        "the weight decay of the groups",
        [weight_decay],
        decays,
        "every group gets the weight decay that was asked for",
    )
    return groups


def _kind(name: str) -> str:
    return {"lora_A": "A", "lora_B": "B"}.get(name.split(".")[-1], "others")


def _check_each_tensor(
    groups: Sequence[dict[str, Any]], named: dict[str, nn.Parameter], lr: float, ratio: float
) -> None:
    used = [group["lr"] for group in groups]
    rates: dict[int, list[float]] = {}
    for group in groups:
        for parameter in group["params"]:
            rates.setdefault(id(parameter), []).append(group["lr"])
    for name, parameter in named.items():
        found, last = rates.get(id(parameter), []), name.split(".")[-1]
        if not parameter.requires_grad:
            require(
                not found,
                f"the groups of {name}, which is frozen",
                "none",
                f"{len(found)}",
                "pass over tensors that do not require gradients",
            )
            continue
        forgotten = {
            "lora_A": "the tensors of A are in no group: they would not train",
            "lora_B": "the tensors of B are in no group: they would not train",
        }.get(last, "what is neither A nor B has to train too: it goes into the third group")
        twice = "a tensor in two groups takes two steps: use else, or look at the last part only"
        require(
            len(found) == 1,
            f"the number of groups of {name}",
            1,
            len(found),
            twice if found else forgotten,
        )
        wanted = lr * ratio if last == "lora_B" else lr
        if not math.isclose(found[0], wanted, rel_tol=1e-9):
            require(
                False,
                f"the rate of {name}",
                wanted,
                found[0],
                _rate_cause(name, last, found[0], lr, ratio, used),
            )


def _rate_cause(
    name: str, last: str, found: float, lr: float, ratio: float, used: Sequence[float]
) -> str:
    if last == "lora_B" and math.isclose(found, lr / ratio):
        return "B's rate is A's times the ratio, not divided by it"
    if last == "lora_B" and math.isclose(found, ratio):
        return "that is the ratio: B's rate is lr times it"
    if last == "lora_B" and not any(math.isclose(rate, lr * ratio) for rate in used):
        return "no group has B's rate: it is lr times the ratio"
    if last == "lora_A" and math.isclose(found, lr / ratio):
        return "lr is A's rate: B's is larger, A's is not smaller"
    if last == "lora_A" and name.count("lora_B") == 0:
        return "turned round: the ratio belongs to B"
    if last.endswith("_B") and last != "lora_B":
        return "the whole last part has to be lora_B: its last letter does not decide"
    if last not in ("lora_A", "lora_B") and "lora_B" not in name:
        return "what is neither A nor B gets A's rate"
    if last == "lora_B" and name.count("lora_A") == 0:
        return "B's rate is lr times the ratio"
    return "the last part of the name decides, not any part of it: a module may be called lora_B"


@exercise("5.4")
def share_left(attempt) -> str:
    """What torch's AdamW leaves of a 1 whose gradient is 0."""
    for rates, decays, steps in (
        ((1e-2, 0.2), (0.5, 0.5), 3),
        ((1e-3, 5e-3, 0.1), (0.1, 0.0, 0.3), 40),
        ((0.1,), (0.2,), 1),
    ):
        groups = [
            {"lr": lr, "weight_decay": decay} for lr, decay in zip(rates, decays, strict=True)
        ]
        ones = [nn.Parameter(torch.ones(1, dtype=torch.double)) for _ in groups]
        optimizer = torch.optim.AdamW(
            [group | {"params": [one]} for group, one in zip(groups, ones, strict=True)]
        )
        for one in ones:
            one.grad = torch.zeros_like(one)
        for _ in range(steps):
            optimizer.step()
        expected = torch.cat([one.detach() for one in ones])
        what = f"the shares after {steps} step{'s' * (steps > 1)}"
        got = call(attempt, groups, steps, what=what)
        require(
            isinstance(got, (list, tuple, Tensor)) and len(got) == len(groups),
            what,
            f"{len(groups)} numbers",
            got,
            "one number for each group, in a list",
        )
        lr, decay = torch.tensor(rates).double(), torch.tensor(decays).double()
        suspects = {
            "that is what is lost: the share that is left is 1 minus it": 1 - expected,
            "the steps compound: each takes its share of what is left, so a power": (
                1 - steps * lr * decay
            ),
            "AdamW multiplies the decay by the group's rate": (1 - decay) ** steps,
            "each group decays at its own rate, not at the first one's": (
                (1 - lr[0] * decay) ** steps
            ),
            "that is one step: there are several": 1 - lr * decay,
            "the decay is forgotten: the factor is 1 − lr · weight decay": (1 - lr) ** steps,
            "the sign: decay shrinks": (1 + lr * decay) ** steps,
            "AdamW takes whole steps: a power, not an exponential": (-lr * decay * steps).exp(),
        }
        require_close(what, torch.as_tensor(got).double(), expected, suspects, tolerance=1e-7)
    return "equal to what AdamW leaves, for groups of different rates and decays"


@exercise("5.5")
def best_ratio(attempt) -> str:
    """The ratio of the highest mean, and the paired difference, by the standard library."""
    for accuracies, about in (
        (
            {
                1.0: [0.50, 0.62, 0.55, 0.71],
                5.0: [0.53, 0.66, 0.57, 0.75],
                20.0: [0.40, 0.80, 0.44, 0.60],
                50.0: [0.2, 0.3, 0.1, 0.4],
            },
            "a small but steady gain",
        ),
        ({1.0: [0.30, 0.50, 0.40], 10.0: [0.45, 0.49, 0.46]}, "a gain of unsteady runs"),
        ({2.0: [0.3, 0.4], 1.0: [0.6, 0.5], 50.0: [0.1, 0.2]}, "a sweep that 1 wins"),
    ):
        best = max(accuracies, key=lambda ratio: statistics.mean(accuracies[ratio]))
        differences = [a - b for a, b in zip(accuracies[best], accuracies[1.0], strict=True)]
        mean, spread = statistics.mean(differences), statistics.stdev(differences)
        error = spread / len(differences) ** 0.5
        what = f"the verdict on {about}"
        got = call(attempt, {k: list(v) for k, v in accuracies.items()}, what=what)
        require(
            isinstance(got, (tuple, list)) and len(got) == 4,
            what,
            "ratio, mean difference, standard error, told apart",
            got,
            "return four things",
        )
        single = max(accuracies, key=lambda ratio: max(accuracies[ratio]))
        require_equal(
            f"the best ratio in {about}",
            got[0],
            best,
            suspects={
                "that ratio has the best single run, not the best mean": single,
                "that is the position or the accuracy: return the ratio itself": max(
                    statistics.mean(runs) for runs in accuracies.values()
                ),
                "that ratio has the lowest mean": min(
                    accuracies, key=lambda ratio: statistics.mean(accuracies[ratio])
                ),
            },
            otherwise="the ratio whose runs have the highest mean; 1 takes part too",
        )
        both = statistics.variance(accuracies[best]), statistics.variance(accuracies[1.0])
        require_close(
            f"the mean difference in {about}",
            _number(got[1]),
            _number(mean),
            {
                "the sign: the best ratio minus ratio 1": _number(-mean),
                "that is in points: leave the shares as they are": _number(100 * mean),
            }
            if mean
            else {
                "ratio 1 won: it differs from itself by nothing": _number(
                    statistics.mean(accuracies[best])
                )
            },
            otherwise="take the best ratio's runs minus ratio 1's, one by one, and their mean",
            tolerance=1e-6,
        )
        count = len(differences)
        require_close(
            f"the standard error in {about}",
            _number(got[2]),
            _number(error),
            {
                "that is the standard deviation: divide it by √n": _number(spread),
                "divided by n: divide by the root of n": _number(spread / count),
                "√(n − 1) is one n − 1 too many: divide the deviation by √n": _number(
                    spread / (count - 1) ** 0.5
                ),
                "the deviation is to be taken with n − 1": _number(
                    statistics.pstdev(differences) / count**0.5
                ),
                "unpaired: take the differences first, then their spread": _number(
                    (sum(both) / count) ** 0.5
                ),
                "that is the error of the best ratio's own mean: of the differences it is": _number(
                    (both[0] / count) ** 0.5
                ),
            },
            tolerance=1e-6,
        )
        require(
            bool(got[3]) == (abs(mean) > 2 * error),
            f"told apart, in {about}",
            abs(mean) > 2 * error,
            got[3],
            "told apart means: the mean difference is more than two standard errors from 0",
        )
    return "ratio, paired difference, its error and the verdict, on three sweeps"


def _number(value: Any) -> Any:
    """A plain number or a one-entry tensor as a tensor; anything else as it is."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().double().reshape(())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return torch.tensor(float(value), dtype=torch.double)
    return value
