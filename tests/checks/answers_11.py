"""Right and wrong answers to the exercises of lesson 11."""

import numpy as np
import torch
from scipy import stats

from serial_lora_course.labs.variants import RepAdapter

# ------------------------------------------------------------------------- 11.1


def by_running(down, up, scale):
    """B from the authors' layer itself, on the unit vectors."""
    groups, outputs, hidden = up.shape
    layer = RepAdapter(down.shape[1], down.shape[0], groups, scale, dropout=0.0, bias=False)
    with torch.no_grad():
        layer.down.weight.copy_(down)
        layer.up.copy_(up)
        units = torch.eye(groups * hidden).unflatten(-1, (groups, -1))
        return down, scale * torch.einsum("ngh,gdh->ngd", units, layer.up).flatten(-2).T


def with_pair(change):
    """An answer that differs from the right one in some way."""
    return lambda down, up, scale: change(down, torch.block_diag(*up), scale, up)


# ------------------------------------------------------------------------- 11.2


def interval(sample=None, quantile=0.975, freedom=None, ddof=1, root=0.5, factor=1.0):
    def answer(differences):
        values = list(differences.values())
        means = np.array([np.mean(each) for each in values])
        runs = np.concatenate(values)
        taken = runs if sample == "runs" else means
        count = {"runs": len(runs), None: len(taken), "sets": len(means)}[freedom]
        t = quantile if quantile > 1 else stats.t.ppf(quantile, count - 1)
        return float(means.mean()), float(factor * t * taken.std(ddof=ddof) / len(taken) ** root)

    return answer


def other_mean(mean):
    return lambda differences: (float(mean(differences)), interval()(differences)[1])


# ------------------------------------------------------------------------- 11.3


def holm(ps, factor=lambda rank, count: count - rank, running=True, cap=1.0):
    order = np.argsort(ps)
    values = np.array(ps)[order] * [factor(rank, len(ps)) for rank in range(len(ps))]
    values = np.minimum(np.maximum.accumulate(values) if running else values, cap)
    found = np.empty(len(ps))
    found[order] = values
    return found.tolist()


def holm_in_place(ps):
    right = holm(ps)
    ps.sort()
    return right


# ------------------------------------------------------------------------- 11.4


def front(costs, gains, beaten=lambda c, g, costs, gains: (costs <= c) & (gains >= g)):
    costs, gains = np.array(costs), np.array(gains)
    return {
        i
        for i, (c, g) in enumerate(zip(costs, gains, strict=True))
        if beaten(c, g, costs, gains).sum() <= 1
    }


def none_beats(rule):
    return lambda costs, gains: {
        i
        for i, mine in enumerate(zip(costs, gains, strict=True))
        if not any(rule(*mine, *other) for other in zip(costs, gains, strict=True))
    }


def in_the_order_given(costs, gains):
    return {i for i in range(len(gains)) if i == 0 or gains[i] > max(gains[:i])}


def sorted_positions(costs, gains):
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i]))
    return {order.index(i) for i in front(costs, gains)}


def neighbours(costs, gains):
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -gains[i]))
    return {
        b for a, b in zip([None, *order], order, strict=False) if a is None or gains[b] > gains[a]
    }


RIGHT = {"11.1": by_running, "11.2": interval(), "11.3": holm, "11.4": front}

WRONG = {
    "11.1": {
        ("no scale", "scale is forgotten"): with_pair(lambda A, B, s, _: (A, B)),
        ("scale twice", "squared"): with_pair(lambda A, B, s, _: (s * A, s * B)),
        ("divided", "scale divides"): with_pair(lambda A, B, s, _: (A, B / s)),
        ("exchanged", "exchanged"): with_pair(lambda A, B, s, _: (s * B, A)),
        ("a stack", "one block for each group"): with_pair(
            lambda A, B, s, up: (A, s * up.flatten(0, 1))
        ),
        ("reversed", "wrong order"): with_pair(
            lambda A, B, s, up: (A, s * torch.block_diag(*up.flip(0)))
        ),
        ("full blocks", "in every row of blocks|all hidden values"): with_pair(
            lambda A, B, s, up: (A, s * torch.cat([torch.cat(list(up), dim=1)] * len(up)))
        ),
        ("one block", "first one's block"): with_pair(
            lambda A, B, s, up: (A, s * torch.block_diag(*[up[0]] * len(up)))
        ),
        ("in turn", "dealt out in turn"): with_pair(
            lambda A, B, s, up: (A.unflatten(0, (-1, len(up))).transpose(0, 1).flatten(0, 1), s * B)
        ),
        ("the product", "two tensors"): with_pair(lambda A, B, s, _: s * B @ A),
    },
    "11.2": {
        ("runs", "runs are the sample"): interval("runs"),
        ("two errors", "two standard errors"): interval(quantile=2),
        ("two errors of runs", "two standard errors over runs"): interval("runs", quantile=2),
        ("normal", "endless sets"): interval(quantile=stats.norm.ppf(0.975)),
        ("freedom of runs", "degrees of freedom"): interval(freedom="runs"),
        ("one side", "on one side"): interval(quantile=0.95),
        ("population", "n - 1 is needed"): interval(ddof=0),
        ("deviation", "not divided by the root"): interval(root=0),
        ("over n", "not by its root"): interval(root=1),
        ("whole width", "whole width"): interval(factor=2.0),
        ("pooled mean", "averaged at once"): other_mean(
            lambda d: np.mean(np.concatenate(list(d.values())))
        ),
        ("median", "median of the sets"): other_mean(
            lambda d: np.median([np.mean(v) for v in d.values()])
        ),
        ("one number", "return two numbers"): lambda d: interval()(d)[1],
    },
    "11.3": {
        ("Bonferroni", "Bonferroni"): lambda ps: [min(1.0, len(ps) * p) for p in ps],
        ("falls", "largest so far"): lambda ps: holm(ps, running=False),
        ("above one", "stops at 1"): lambda ps: holm(ps, cap=9.0),
        ("sorted", "given back sorted"): lambda ps: sorted(holm(ps)),
        ("wrong way", "wrong way"): lambda ps: holm(ps, lambda rank, count: rank + 1),
        ("Benjamini", "Benjamini"): lambda ps: holm(ps, lambda rank, count: count / (rank + 1)),
        ("one too small", "one too small"): lambda ps: holm(ps, lambda r, n: n - r - 1),
        ("one too large", "one too large"): lambda ps: holm(ps, lambda r, n: n - r + 1),
        ("as they came", "as they came"): list,
        ("in place", "changed in place"): holm_in_place,
        ("an array", "a list with one"): lambda ps: np.array(holm(ps)),
    },
    "11.4": {
        ("strictly", "ties are beaten"): none_beats(lambda c, g, oc, og: oc < c and og > g),
        ("cost tie", "at equal cost"): none_beats(lambda c, g, oc, og: oc < c and og >= g),
        ("gain tie", "at equal gain"): none_beats(lambda c, g, oc, og: oc <= c and og > g),
        ("or", "no reason alone"): none_beats(lambda c, g, oc, og: oc < c or og > g),
        ("itself", "beats itself"): none_beats(lambda c, g, oc, og: oc <= c and og >= g),
        ("the beaten", "beaten ones"): lambda c, g: set(range(len(c))) - front(c, g),
        ("less gain", "smaller gain"): lambda c, g: front(c, [-x for x in g]),
        ("more cost", "larger cost"): lambda c, g: front([-x for x in c], g),
        ("unsorted", "do not come sorted"): in_the_order_given,
        ("neighbours", "next cheaper one alone"): neighbours,
        ("sorted places", "positions in the sorted"): sorted_positions,
        ("a list", "a set of positions"): lambda c, g: sorted(front(c, g)),
        ("the best", "one arm alone"): lambda c, g: {g.index(max(g))},
    },
}
