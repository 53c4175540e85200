"""Right and wrong answers to the exercises of lesson 05."""

import math
import statistics

import numpy as np
import torch
from scipy import stats


def parts_by_products(A, B, step_A, step_B):
    """B's part and A's part as what is left of whole products."""
    both = torch.einsum("or,ri->oi", step_B, step_A)
    return (B + step_B) @ A - B @ A, B @ (A + step_A) - B @ A, both


def parts_in_place(A, B, step_A, step_B):
    old_A, old_B = A.clone(), B.clone()
    A.add_(step_A)
    B.add_(step_B)
    return step_B @ old_A, old_B @ step_A, step_B @ step_A


def adam_by_its_means(gradient, lr, eps=1e-8, corrected=(True, True)):
    """m, v and their corrections, step by step, at β = 0.9 and 0.999."""
    m, v = (1 - 0.9) * gradient, (1 - 0.999) * gradient * gradient
    if corrected[0]:
        m = m / (1 - 0.9**1)
    if corrected[1]:
        v = v / (1 - 0.999**1)
    return -(lr * m / (v**0.5 + eps))


def adam_with(form):
    return lambda gradient, lr, eps=1e-8: form(gradient.double(), lr, eps)


def last_part(name):
    return name.split(".")[-1]


def groups_by(
    kind_of=last_part,
    rates=None,
    frozen=False,
    empty=False,
    keep=("lora_A", "lora_B", None),
    decay=None,
):
    """An answer to 5.3 with one thing changed: which kind a name is, the rates, what is kept."""
    rates = rates or {"lora_A": lambda lr, ratio: lr, "lora_B": lambda lr, ratio: lr * ratio}

    def attempt(named, lr, ratio, weight_decay):
        kinds = {
            name: kind if (kind := kind_of(name)) in ("lora_A", "lora_B") else None
            for name, tensor in named.items()
            if tensor.requires_grad or frozen
        }
        return [
            {
                "params": params,
                "lr": rates.get(kind, lambda lr, ratio: lr)(lr, ratio),
                "weight_decay": (decay or {}).get(kind, weight_decay),
            }
            for kind in keep
            if (params := [named[name] for name in kinds if kinds[name] == kind]) or empty
        ]

    return attempt


def by_any_part(name):
    """As PEFT asks: is lora_B in the name?"""
    return "lora_B" if "lora_B" in name else "lora_A" if "lora_A" in name else None


def groups_with_b_twice(named, lr, ratio, weight_decay):
    groups = groups_by()(named, lr, ratio, weight_decay)
    return [*groups, dict(groups[1])]


def groups_with_two_rates(named, lr, ratio, weight_decay):
    """One group for each rate: what is neither A nor B goes with A."""
    A, B, others = groups_by()(named, lr, ratio, weight_decay)
    return [{**A, "params": A["params"] + others["params"]}, B]


def groups_without_decay(named, lr, ratio, weight_decay):
    kept = ("params", "lr")
    return [{key: g[key] for key in kept} for g in groups_by()(named, lr, ratio, weight_decay)]


def groups_of(change):
    """The right groups, changed as a whole."""
    return lambda *given: change(groups_by()(*given))


def copies(groups):
    return [
        g | {"params": [p.detach().clone().requires_grad_() for p in g["params"]]} for g in groups
    ]


def one_tensor_each(groups):
    return [g | {"params": [p]} for g in groups for p in g["params"]]


def generators(groups):
    return [g | {"params": iter(g["params"])} for g in groups]


def left_by_walking(groups, steps):
    left = []
    for group in groups:
        value = 1.0
        for _ in range(steps):
            value -= group["lr"] * group["weight_decay"] * value
        left.append(value)
    return left


def left_with(form):
    return lambda groups, steps: [form(g["lr"], g["weight_decay"], steps) for g in groups]


def verdict(change=None):
    """An answer to 5.5 with one thing changed: ``change(accuracies, best, differences)``."""

    def attempt(accuracies):
        best = sorted(accuracies, key=lambda ratio: np.mean(accuracies[ratio]))[-1]
        differences = np.subtract(accuracies[best], accuracies[1.0])
        mean = float(differences.mean())
        error = float(differences.std(ddof=1) / math.sqrt(differences.size))
        answer = [best, mean, error, bool(np.abs(mean) > 2 * error)]
        for place, value in (change or (lambda *_: {}))(accuracies, best, differences).items():
            answer[place] = value
        return tuple(answer)

    return attempt


def unpaired_error(accuracies, best, differences):
    spreads = [statistics.variance(accuracies[ratio]) for ratio in (best, 1.0)]
    return {2: math.sqrt(sum(spreads) / len(differences))}


def sorted_before(accuracies, best, differences):
    return {2: stats.sem(np.sort(accuracies[best]) - np.sort(accuracies[1.0]))}


def from_smallest(accuracies, best, differences):
    return {1: np.mean(accuracies[best]) - np.mean(accuracies[min(accuracies)])}


def best_single_run(accuracies):
    best = max(accuracies, key=lambda ratio: max(accuracies[ratio]))
    return best, 0.0, 0.0, False


RIGHT = {
    "5.1": parts_by_products,
    "5.2": adam_by_its_means,
    "5.3": groups_by(),
    "5.4": left_by_walking,
    "5.5": verdict(),
}

WRONG = {
    "5.1": {
        "A first": (lambda A, B, a, b: (B @ a, b @ A, b @ a), "mind the order"),
        "new matrices": (
            lambda A, B, a, b: ((B + b) @ A, B @ (A + a), b @ a),
            "the step, not B after",
        ),
        "A after the step": (lambda A, B, a, b: (b @ A, B @ (A + a), b @ a), "not A after"),
        "other after": (
            lambda A, B, a, b: (b @ (A + a), (B + b) @ a, b @ a),
            "the one before the step",
        ),
        "the sum": (lambda A, B, a, b: (B + b) @ (A + a) - B @ A, "not their sum"),
        "both is the whole": (
            lambda A, B, a, b: (b @ A, B @ a, (B + b) @ (A + a) - B @ A),
            "the whole change",
        ),
        "two parts": (lambda A, B, a, b: (b @ A, B @ a), "return the three parts"),
        "turned": (lambda A, B, a, b: (A.T @ b.T, a.T @ B.T, a.T @ b.T), "B stands on the left"),
        "A left": (lambda A, B, a, b: (A @ b, a @ B, a @ b), "the shapes differ|do not fit"),
        "halved": (lambda A, B, a, b: (b @ A / 2, B @ a / 2, b @ a), "half of the right part"),
        "in place": (parts_in_place, "changed in place"),
    },
    "5.2": {
        "uphill": (adam_with(lambda g, lr, e: lr * g / (g.abs() + e)), "against the gradient"),
        "descent": (adam_with(lambda g, lr, e: -lr * g), "plain gradient descent"),
        "uncorrected": (
            lambda g, lr, eps=1e-8: adam_by_its_means(g.double(), lr, eps, (False, False)),
            "without bias correction",
        ),
        "only v": (
            lambda g, lr, eps=1e-8: adam_by_its_means(g.double(), lr, eps, (False, True)),
            "only v is corrected",
        ),
        "only m": (
            lambda g, lr, eps=1e-8: adam_by_its_means(g.double(), lr, eps, (True, False)),
            "only m is corrected",
        ),
        "under the root": (
            adam_with(lambda g, lr, e: -lr * g / (g**2 + e).sqrt()),
            "after the root, not under",
        ),
        "no root": (adam_with(lambda g, lr, e: -lr * g / (g**2 + e)), "the root is missing"),
        "no size": (adam_with(lambda g, lr, e: -lr * g / (g + e)), "is .g., not g"),
        "norm": (adam_with(lambda g, lr, e: -lr * g / (g.norm() + e)), "each entry by its own"),
        "sign": (adam_with(lambda g, lr, e: -lr * g.sign()), "ε is left out"),
        "0 / 0": (adam_with(lambda g, lr, e: -lr * g / g.abs()), "the denominator"),
        "no rate": (adam_with(lambda g, lr, e: -g / (g.abs() + e)), "the rate is forgotten"),
        "in place": (lambda g, lr, e=1e-8: g.div_(g.abs() + e).mul(-lr), "changed in place"),
    },
    "5.3": {
        "as PEFT asks": (groups_by(by_any_part), "the last part of the name decides"),
        "turned round": (
            groups_by(rates={"lora_A": lambda lr, r: lr * r, "lora_B": lambda lr, r: lr}),
            "the ratio belongs to B|B's rate is lr times the ratio",
        ),
        "divided": (groups_by(rates={"lora_B": lambda lr, r: lr / r}), "not divided by it"),
        "A is slower": (
            groups_by(rates={"lora_A": lambda lr, r: lr / r, "lora_B": lambda lr, r: lr}),
            "A's is not smaller|lr times the ratio",
        ),
        "the ratio as a rate": (groups_by(rates={"lora_B": lambda lr, r: r}), "that is the ratio"),
        "no ratio": (groups_by(rates={"lora_B": lambda lr, r: lr}), "no group has B's rate"),
        "the last letter": (
            groups_by(lambda name: f"lora_{name[-1]}"),
            "its last letter does not decide",
        ),
        "the end of the name": (
            groups_by(lambda name: name[-6:]),
            "nor what it ends in",
        ),
        "copies": (groups_of(copies), "the tensors are copied"),
        "a group a tensor": (groups_of(one_tensor_each), "one group for all tensors of a kind"),
        "B first": (groups_of(lambda groups: groups[::-1]), "the order is A's group"),
        "a generator": (groups_of(generators), "params is a list"),
        "head with A": (groups_with_two_rates, "third group of its own"),
        "frozen too": (groups_by(frozen=True), "do not require gradients"),
        "no head": (groups_by(keep=("lora_A", "lora_B")), "the third group"),
        "no A": (groups_by(keep=("lora_B", None)), "tensors of A are in no group"),
        "the head like B": (
            groups_by(lambda name: "lora_A" if last_part(name) == "lora_A" else "lora_B"),
            "gets A's rate|the last part of the name decides",
        ),
        "B twice": (groups_with_b_twice, "two groups takes two steps"),
        "empty group": (groups_by(empty=True), "would be empty"),
        "no decay": (groups_without_decay, "needs weight_decay"),
        "decay on A alone": (groups_by(decay={"lora_B": 0.0}), "every group gets the weight"),
        "a dictionary": (
            lambda named, lr, ratio, decay: {"lora_A": [], "lora_B": []},
            "a list, with one",
        ),
    },
    "5.4": {
        "not compounded": (left_with(lambda lr, d, n: 1 - n * lr * d), "so a power"),
        "lost": (left_with(lambda lr, d, n: 1 - (1 - lr * d) ** n), "what is lost"),
        "decay alone": (left_with(lambda lr, d, n: (1 - d) ** n), "by the group's rate"),
        "rate alone": (left_with(lambda lr, d, n: (1 - lr) ** n), "the decay is forgotten"),
        "one rate": (
            lambda groups, n: [(1 - groups[0]["lr"] * g["weight_decay"]) ** n for g in groups],
            "not at the first one's",
        ),
        "exponential": (left_with(lambda lr, d, n: math.exp(-lr * d * n)), "not an exponential"),
        "one step": (left_with(lambda lr, d, n: 1 - lr * d), "that is one step"),
        "growing": (left_with(lambda lr, d, n: (1 + lr * d) ** n), "decay shrinks"),
        "one number": (
            lambda groups, n: (1 - groups[0]["lr"] * groups[0]["weight_decay"]) ** n,
            "one number for each group",
        ),
    },
    "5.5": {
        "best single run": (best_single_run, "best single run"),
        "lowest": (lambda a: (min(a, key=lambda r: sum(a[r])), 0.0, 0.0, False), "lowest mean"),
        "turned round": (verdict(lambda a, b, d: {1: -d.mean()}), "the best ratio minus"),
        "deviation": (verdict(lambda a, b, d: {2: d.std(ddof=1)}), "divide it by √n"),
        "by n": (verdict(lambda a, b, d: {2: d.std(ddof=1) / d.size}), "by the root of n"),
        "population": (verdict(lambda a, b, d: {2: d.std() / d.size**0.5}), "with n − 1"),
        "unpaired": (verdict(unpaired_error), "unpaired"),
        "own error": (verdict(lambda a, b, d: {2: np.std(a[b], ddof=1) / d.size**0.5}), "own mean"),
        "always apart": (verdict(lambda a, b, d: {3: True}), "more than two standard errors"),
        "never apart": (verdict(lambda a, b, d: {3: False}), "more than two standard errors"),
        "one error": (
            verdict(lambda a, b, d: {3: bool(abs(d.mean()) > d.std(ddof=1) / d.size**0.5)}),
            "more than two standard errors",
        ),
        "sorted": (verdict(sorted_before), "destroys the pairs"),
        "smallest as baseline": (verdict(from_smallest), "not the smallest ratio"),
        "1.96": (
            verdict(lambda a, b, d: {3: bool(abs(d.mean()) > 1.96 * stats.sem(d))}),
            "1.96 errors are for",
        ),
        "n - 1 twice": (
            verdict(lambda a, b, d: {2: d.std(ddof=1) / math.sqrt(d.size - 1)}),
            "one n − 1 too many",
        ),
        "in points": (verdict(lambda a, b, d: {1: 100 * d.mean()}), "that is in points"),
        "two things": (lambda a: (5.0, 0.03), "return four things"),
    },
}
