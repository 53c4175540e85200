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
        half = half_of(differences)
        answer = [best, mean, half, np.abs(mean) > half]
        for place, value in (change or (lambda *_: {}))(accuracies, best, differences).items():
            answer[place] = value
        return tuple(answer)

    return attempt


def half_of(differences, freedom=0, confidence=0.95):
    """Half of the interval of their mean, by scipy; ``freedom`` is too many, or too few."""
    count = len(differences) - 1 + freedom
    return float(stats.t.isf((1 - confidence) / 2, count) * stats.sem(differences))


def unpaired(accuracies, best, differences):
    spreads = [statistics.variance(accuracies[ratio]) for ratio in (best, 1.0)]
    count = len(differences)
    return {2: stats.t.isf(0.025, count - 1) * math.sqrt(sum(spreads) / count)}


def sorted_before(accuracies, best, differences):
    return {2: half_of(np.sort(accuracies[best]) - np.sort(accuracies[1.0]))}


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
        ("A first", "mind the order"): lambda A, B, a, b: (B @ a, b @ A, b @ a),
        ("new matrices", "the step, not B after"): lambda A, B, a, b: (
            (B + b) @ A,
            B @ (A + a),
            b @ a,
        ),
        ("A after the step", "not A after"): lambda A, B, a, b: (b @ A, B @ (A + a), b @ a),
        ("other after", "the one before the step"): lambda A, B, a, b: (
            b @ (A + a),
            (B + b) @ a,
            b @ a,
        ),
        ("the sum", "not their sum"): lambda A, B, a, b: (B + b) @ (A + a) - B @ A,
        ("both is the whole", "the whole change"): lambda A, B, a, b: (
            b @ A,
            B @ a,
            (B + b) @ (A + a) - B @ A,
        ),
        ("two parts", "return the three parts"): lambda A, B, a, b: (b @ A, B @ a),
        ("turned", "B stands on the left"): lambda A, B, a, b: (A.T @ b.T, a.T @ B.T, a.T @ b.T),
        ("A left", "the shapes differ|do not fit"): lambda A, B, a, b: (A @ b, a @ B, a @ b),
        ("halved", "half of the right part"): lambda A, B, a, b: (b @ A / 2, B @ a / 2, b @ a),
        ("in place", "changed in place"): parts_in_place,
    },
    "5.2": {
        ("uphill", "against the gradient"): adam_with(lambda g, lr, e: lr * g / (g.abs() + e)),
        ("descent", "plain gradient descent"): adam_with(lambda g, lr, e: -lr * g),
        ("uncorrected", "without bias correction"): lambda g, lr, eps=1e-8: adam_by_its_means(
            g.double(), lr, eps, (False, False)
        ),
        ("only v", "only v is corrected"): lambda g, lr, eps=1e-8: adam_by_its_means(
            g.double(), lr, eps, (False, True)
        ),
        ("only m", "only m is corrected"): lambda g, lr, eps=1e-8: adam_by_its_means(
            g.double(), lr, eps, (True, False)
        ),
        ("under the root", "after the root, not under"): adam_with(
            lambda g, lr, e: -lr * g / (g**2 + e).sqrt()
        ),
        ("no root", "the root is missing"): adam_with(lambda g, lr, e: -lr * g / (g**2 + e)),
        ("no size", "is .g., not g"): adam_with(lambda g, lr, e: -lr * g / (g + e)),
        ("norm", "each entry by its own"): adam_with(lambda g, lr, e: -lr * g / (g.norm() + e)),
        ("sign", "ε is left out"): adam_with(lambda g, lr, e: -lr * g.sign()),
        ("0 / 0", "the denominator"): adam_with(lambda g, lr, e: -lr * g / g.abs()),
        ("no rate", "the rate is forgotten"): adam_with(lambda g, lr, e: -g / (g.abs() + e)),
        ("in place", "changed in place"): lambda g, lr, e=1e-8: g.div_(g.abs() + e).mul(-lr),
    },
    "5.3": {
        ("as PEFT asks", "the last part of the name decides"): groups_by(by_any_part),
        ("turned round", "the ratio belongs to B|B's rate is lr times the ratio"): groups_by(
            rates={"lora_A": lambda lr, r: lr * r, "lora_B": lambda lr, r: lr}
        ),
        ("divided", "not divided by it"): groups_by(rates={"lora_B": lambda lr, r: lr / r}),
        ("A is slower", "A's is not smaller|lr times the ratio"): groups_by(
            rates={"lora_A": lambda lr, r: lr / r, "lora_B": lambda lr, r: lr}
        ),
        ("the ratio as a rate", "that is the ratio"): groups_by(rates={"lora_B": lambda lr, r: r}),
        ("no ratio", "no group has B's rate"): groups_by(rates={"lora_B": lambda lr, r: lr}),
        ("the last letter", "its last letter does not decide"): groups_by(
            lambda name: f"lora_{name[-1]}"
        ),
        ("the end of the name", "nor what it ends in"): groups_by(lambda name: name[-6:]),
        ("copies", "the tensors are copied"): groups_of(copies),
        ("a group a tensor", "one group for all tensors of a kind"): groups_of(one_tensor_each),
        ("B first", "the order is A's group"): groups_of(lambda groups: groups[::-1]),
        ("a generator", "params is a list"): groups_of(generators),
        ("head with A", "third group of its own"): groups_with_two_rates,
        ("frozen too", "do not require gradients"): groups_by(frozen=True),
        ("no head", "the third group"): groups_by(keep=("lora_A", "lora_B")),
        ("no A", "tensors of A are in no group"): groups_by(keep=("lora_B", None)),
        ("the head like B", "gets A's rate|the last part of the name decides"): groups_by(
            lambda name: "lora_A" if last_part(name) == "lora_A" else "lora_B"
        ),
        ("B twice", "two groups takes two steps"): groups_with_b_twice,
        ("empty group", "would be empty"): groups_by(empty=True),
        ("no decay", "needs weight_decay"): groups_without_decay,
        ("decay on A alone", "every group gets the weight"): groups_by(decay={"lora_B": 0.0}),
        ("a dictionary", "a list, with one"): lambda named, lr, ratio, decay: {
            "lora_A": [],
            "lora_B": [],
        },
    },
    "5.4": {
        ("not compounded", "so a power"): left_with(lambda lr, d, n: 1 - n * lr * d),
        ("lost", "what is lost"): left_with(lambda lr, d, n: 1 - (1 - lr * d) ** n),
        ("decay alone", "by the group's rate"): left_with(lambda lr, d, n: (1 - d) ** n),
        ("rate alone", "the decay is forgotten"): left_with(lambda lr, d, n: (1 - lr) ** n),
        ("one rate", "not at the first one's"): lambda groups, n: [
            (1 - groups[0]["lr"] * g["weight_decay"]) ** n for g in groups
        ],
        ("exponential", "not an exponential"): left_with(lambda lr, d, n: math.exp(-lr * d * n)),
        ("one step", "that is one step"): left_with(lambda lr, d, n: 1 - lr * d),
        ("growing", "decay shrinks"): left_with(lambda lr, d, n: (1 + lr * d) ** n),
        ("one number", "one number for each group"): lambda groups, n: (
            (1 - groups[0]["lr"] * groups[0]["weight_decay"]) ** n
        ),
    },
    "5.5": {
        ("best single run", "best single run"): best_single_run,
        ("lowest", "lowest mean"): lambda a: (min(a, key=lambda r: sum(a[r])), 0.0, 0.0, False),
        ("turned round", "the best ratio minus"): verdict(lambda a, b, d: {1: -d.mean()}),
        ("standard error", "that is the standard error"): verdict(
            lambda a, b, d: {2: stats.sem(d)}
        ),
        ("two errors", "Student's t asks for more"): verdict(lambda a, b, d: {2: 2 * stats.sem(d)}),
        ("normal", "1.96 errors are for"): verdict(lambda a, b, d: {2: 1.96 * stats.sem(d)}),
        ("whole width", "the whole width"): verdict(lambda a, b, d: {2: 2 * half_of(d)}),
        ("n - 2 freedoms", "too few"): verdict(lambda a, b, d: {2: half_of(d, freedom=-1)}),
        ("n freedoms", "not n"): verdict(lambda a, b, d: {2: half_of(d, freedom=1)}),
        ("one side", "5% on one side"): verdict(lambda a, b, d: {2: half_of(d, confidence=0.9)}),
        ("deviation", "divide it by √n"): verdict(lambda a, b, d: {2: half_of(d) * d.size**0.5}),
        ("by n", "by the root of n"): verdict(lambda a, b, d: {2: half_of(d) / d.size**0.5}),
        ("population", "with n − 1"): verdict(
            lambda a, b, d: {2: half_of(d) * math.sqrt(1 - 1 / d.size)}
        ),
        ("n - 1 twice", "one n − 1 too many"): verdict(
            lambda a, b, d: {2: half_of(d) * math.sqrt(d.size / (d.size - 1))}
        ),
        ("unpaired", "unpaired"): verdict(unpaired),
        ("own error", "own mean"): verdict(lambda a, b, d: {2: half_of(a[b])}),
        ("always apart", "leave out 0"): verdict(lambda a, b, d: {3: True}),
        ("never apart", "leave out 0"): verdict(lambda a, b, d: {3: False}),
        ("turned about", "turned round"): verdict(
            lambda a, b, d: {3: bool(abs(d.mean()) <= half_of(d))}
        ),
        ("beyond one error", "one error is not enough"): verdict(
            lambda a, b, d: {3: bool(abs(d.mean()) > stats.sem(d))}
        ),
        ("beyond two errors", "two errors are for many"): verdict(
            lambda a, b, d: {3: bool(abs(d.mean()) > 2 * stats.sem(d))}
        ),
        ("sorted", "destroys the pairs"): verdict(sorted_before),
        ("smallest as baseline", "not the smallest ratio"): verdict(from_smallest),
        ("in points", "that is in points"): verdict(lambda a, b, d: {1: 100 * d.mean()}),
        ("two things", "return four things"): lambda a: (5.0, 0.03),
    },
}
