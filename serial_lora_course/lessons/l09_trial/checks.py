"""Checks of the exercises on the paper's trial: RepAdapter's layer, an interval over sets, Holm, a front."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise

# ---------------------------------------------------------------------- 11.1 RepAdapter's layer


def by_groups(down: Tensor, up: Tensor, scale: float) -> Tensor:
    """B A, a group of outputs after the other, each from its own hidden values."""
    groups, outputs, hidden = up.shape
    change = torch.zeros(groups * outputs, down.shape[1])
    for group in range(groups):
        rows = down[group * hidden : (group + 1) * hidden]  # (h / groups, d)
        change[group * outputs : (group + 1) * outputs] = scale * up[group] @ rows
    return change


def pair(
    B: Callable = lambda up, s: s * torch.block_diag(*up),
    A: Callable = lambda down, s, groups: down,
) -> Callable:
    """The two factors, one of them changed."""
    return lambda down, up, scale: (A(down, scale, len(up)), B(up, scale))


def in_turn(down: Tensor, _: float, groups: int) -> Tensor:
    """The hidden values dealt out to the groups in turn."""
    return down.unflatten(0, (-1, groups)).transpose(0, 1).flatten(0, 1)


@exercise(
    "9.1",
    "equal to RepAdapter's layer, group by group, for one, two and three groups",
    {
        "the scale is forgotten": pair(lambda up, s: torch.block_diag(*up)),
        "the scale is on both factors: the product has it squared": pair(
            A=lambda down, s, _: s * down
        ),
        "a root of the scale is on both factors: a negative scale has none": pair(
            lambda up, s: abs(s) ** 0.5 * torch.block_diag(*up),
            lambda down, s, _: abs(s) ** 0.5 * down,
        ),
        "the scale divides": pair(lambda up, s: torch.block_diag(*up) / s),
        "A and B are exchanged: A (h, d) comes first": lambda down, up, s: (
            s * torch.block_diag(*up),
            down,
        ),
        "the blocks stand in the wrong order": pair(
            lambda up, s: s * torch.block_diag(*up.flip(0))
        ),
        "every group's block is in every row of blocks: outside its own block B is zero": pair(
            lambda up, s: s * torch.cat([torch.cat(list(up), dim=1)] * len(up))
        ),
        "every group has the first one's block": pair(
            lambda up, s: s * torch.block_diag(*[up[0]] * len(up))
        ),
        "the hidden values are dealt out in turn: a group reads neighbours": pair(A=in_turn),
        "B is (d, h), with one block for each group and zeros elsewhere; A is (h, d)": pair(
            lambda up, s: s * up.flatten(0, 1)
        ),
    },
)
def serial_pair() -> Iterator[Case]:
    """B A is the change of RepAdapter's layer."""

    def read(found, *_) -> tuple:
        A, B = found
        fits = A.ndim == B.ndim == 2 and A.shape[0] == B.shape[1]
        return [tuple(A.shape), tuple(B.shape)], B @ A if fits else None

    for width, hidden, groups, scale in ((8, 4, 2, 0.5), (12, 6, 3, -2.0), (5, 2, 1, 0.1)):
        down = torch.randn(hidden, width)
        up = torch.randn(groups, width // groups, hidden // groups)
        what = f"the pair for d = {width}, h = {hidden}, {groups} group{'s' * (groups > 1)}"
        shapes, change = [(hidden, width), (width, hidden)], by_groups(down, up, scale)
        expected = Parts({f"the shapes of A and B: {what}": shapes, f"B A of {what}": change})
        form = "return A, B: two tensors, A first"
        yield Case(what, (down, up, scale), expected, read=read, form=form, error=form)


# ------------------------------------------------------------------ 11.2 an interval over sets


def over_sets(
    values: Callable = lambda means, runs: means,
    quantile: Callable = lambda sets, runs: stats.t.ppf(0.975, sets - 1),
    mean: Callable = lambda means, runs: means.mean(),
    error: Callable = lambda values: values.std(ddof=1) / len(values) ** 0.5,
    form: Callable = lambda mean, half: (float(mean), float(half)),
) -> Callable:
    """Mean and half-width, with one thing changed."""

    def attempt(differences):
        means = np.array([np.mean(each) for each in differences.values()])
        runs = np.concatenate(list(differences.values()))
        half = quantile(len(means), len(runs)) * error(values(means, runs))
        return form(mean(means, runs), half)

    return attempt


def of_runs(means: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The runs in place of the sets."""
    return runs


@exercise(
    "9.2",
    "means and half-widths for three, five and twelve sets, with unequally many seeds",
    {
        "all runs are averaged at once: a set with more seeds would count more": over_sets(
            mean=lambda means, runs: runs.mean()
        ),
        "that is the median of the sets": over_sets(mean=lambda means, runs: np.median(means)),
        "that is the sum: divide by the number of sets": over_sets(
            mean=lambda means, runs: means.sum()
        ),
        "the runs are the sample: those of one set are not independent": over_sets(
            of_runs, lambda sets, runs: stats.t.ppf(0.975, runs - 1)
        ),
        "two standard errors: with few sets Student's quantile is larger": over_sets(
            quantile=lambda *_: 2
        ),
        "two standard errors over runs: sets are the sample, and t has its quantile": over_sets(
            of_runs, lambda *_: 2
        ),
        "1.96 is the quantile for endless sets: take Student's": (
            over_sets(quantile=lambda *_: 1.96),
            over_sets(quantile=lambda *_: stats.norm.ppf(0.975)),
        ),
        "the runs are counted for the degrees of freedom: sets - 1": over_sets(
            quantile=lambda sets, runs: stats.t.ppf(0.975, runs - 1)
        ),
        "the degrees of freedom are sets - 1, not sets": over_sets(
            quantile=lambda sets, _: stats.t.ppf(0.975, sets)
        ),
        "the quantile leaves 5% on one side: 2.5% on each, so 0.975": over_sets(
            quantile=lambda sets, _: stats.t.ppf(0.95, sets - 1)
        ),
        "the standard deviation divides by n: n - 1 is needed": over_sets(
            error=lambda values: values.std() / len(values) ** 0.5
        ),
        "not divided by the root of the number of sets": over_sets(
            error=lambda values: values.std(ddof=1)
        ),
        "divided by the number of sets, not by its root": over_sets(
            error=lambda values: values.std(ddof=1) / len(values)
        ),
        "that is the whole width: half of it": over_sets(form=lambda mean, half: (mean, 2 * half)),
        "those are the two ends: the mean and the half-width are asked for": over_sets(
            form=lambda mean, half: (mean - half, mean + half)
        ),
        "that is the standard error: times Student's quantile": over_sets(quantile=lambda *_: 1),
    },
)
def interval_over_sets() -> Iterator[Case]:
    """Against Python's statistics module, Student's quantiles from scipy."""
    chance = np.random.default_rng(11)
    for count in (3, 5, 12):
        given = {
            f"set {place}": (chance.normal() + 0.3 * chance.normal(size=2 + place % 3)).tolist()
            for place in range(count)
        }
        means = [statistics.fmean(each) for each in given.values()]
        error = statistics.stdev(means) / count**0.5
        half = float(stats.t.ppf(0.975, count - 1)) * error
        yield Case(
            f"the interval over {count} sets with {sum(map(len, given.values()))} runs",
            (given,),
            Parts({"the mean": statistics.fmean(means), "the half-width": half}),
            form="return two numbers: the mean, and the half-width",
        )


# ------------------------------------------------------------------------------- 11.3 Holm


def adjusted_by_hand(ps: list[float]) -> list[float]:
    """A p value's adjusted one is the largest of (how many are not smaller) x p, of it and all smaller."""
    return [
        min(1.0, max(p * sum(other >= p for other in ps) for p in ps if p <= mine)) for mine in ps
    ]


def largest_so_far(values: list[float]) -> list[float]:
    """Each the largest up to there."""
    return np.maximum.accumulate(values).tolist()


def stepwise(
    factor: Callable = lambda rank, count: count - rank,
    running: Callable = largest_so_far,
    cap: float = 1.0,
    back: Callable = lambda values, ps, order: [values[order.index(i)] for i in range(len(ps))],
    times: Callable = lambda factor, p: factor * p,
) -> Callable:
    """The smallest first: each times its factor, never below the one before; one thing changed."""

    def attempt(ps):
        order = sorted(range(len(ps)), key=ps.__getitem__)
        values = [times(factor(rank, len(ps)), ps[place]) for rank, place in enumerate(order)]
        return back(running([min(cap, value) for value in values]), ps, order)

    return attempt


@exercise(
    "9.3",
    "six families of p values, sorted and unsorted, held against the definition",
    {
        "that is Bonferroni's: each further p value has one comparison fewer beside it": (
            lambda ps: [min(1.0, len(ps) * p) for p in ps]
        ),
        "a p value may not end below a smaller one's: keep the largest so far": (
            stepwise(running=list),
            stepwise(running=lambda v: [max(pair) for pair in zip(v, [0.0, *v], strict=False)]),
        ),
        "a probability stops at 1": stepwise(cap=float("inf")),
        "they are given back sorted: keep the order that came in": stepwise(
            back=lambda values, *_: values
        ),
        "the order is undone the wrong way: adjusted[order] = values puts each back": stepwise(
            back=lambda values, ps, order: [values[place] for place in order]
        ),
        "the largest so far is kept in the order given, not from the smallest p": lambda ps: (
            largest_so_far(stepwise(running=list)(ps))
        ),
        "equal p values share a place: each has its own, so enumerate the places": stepwise(
            back=lambda values, ps, order: [
                dict(zip(map(ps.index, map(ps.__getitem__, order)), values, strict=True)).get(
                    i, 0.0
                )
                for i in range(len(ps))
            ]
        ),
        "the factors run the wrong way: the smallest p gets the largest": stepwise(
            lambda rank, count: rank + 1
        ),
        "that is Benjamini and Hochberg's, for another promise": (
            stepwise(lambda rank, count: count / (rank + 1)),
            stepwise(
                lambda rank, count: count / (rank + 1),
                running=lambda values: np.minimum.accumulate(values[::-1])[::-1].tolist(),
            ),
        ),
        "each factor is one too small: the smallest is multiplied by their number": stepwise(
            lambda rank, count: count - rank - 1
        ),
        "each factor is one too large: the smallest is multiplied by their number": stepwise(
            lambda rank, count: count - rank + 1
        ),
        "they are as they came": lambda ps: list(ps),
        "that is Šidák's way, 1 - (1 - p)^n: Holm multiplies": (
            lambda ps: [1 - (1 - p) ** len(ps) for p in ps],
            stepwise(times=lambda factor, p: 1 - (1 - p) ** factor),
        ),
    },
)
def holm() -> Iterator[Case]:
    """Against Holm's definition, value by value."""
    for ps in (
        [0.01, 0.04, 0.03, 0.005],
        [0.5, 0.012, 0.011, 0.4, 0.6],
        [0.001, 0.02, 0.021, 0.9],
        [0.04],
        [0.03, 0.2, 0.03, 0.011],
        [0.1, 0.101, 0.102, 0.103, 0.9],
    ):
        yield Case(
            f"the adjusted p values of {ps}",
            (ps,),
            adjusted_by_hand(ps),
            form="a list with one adjusted p value for each, in the same order",
        )


# ---------------------------------------------------------------------------- 11.4 the front

Arm = tuple[float, float]


def unbeaten(arms: list[Arm]) -> set[int]:
    """Positions of the (cost, gain) that no other one, no dearer and no worse, beats."""
    return {
        i
        for i, arm in enumerate(arms)
        if not any(a[0] <= arm[0] and a[1] >= arm[1] and a != arm for a in arms)
    }


def none_beats(rule: Callable) -> Callable:
    """All that no other one beats, by another rule: rule(cost, gain, other's cost, other's gain)."""

    def attempt(costs, gains):
        arms = list(zip(costs, gains, strict=True))
        return {i for i, arm in enumerate(arms) if not any(rule(*arm, *each) for each in arms)}

    return attempt


def walk(
    key: Callable = lambda cost, gain: (cost, -gain),
    better: Callable = lambda gain, best, before: gain > best,
    start: float = float("-inf"),
    place: Callable = lambda i, rank: i,
) -> Callable:
    """From the cheapest to the dearest, each kept that gains more; one thing changed."""

    def attempt(costs, gains):
        kept, best, before = set(), start, start
        order = sorted(range(len(costs)), key=lambda i: key(costs[i], gains[i]))
        for rank, i in enumerate(order):
            if better(gains[i], best, before):
                kept.add(place(i, rank))
            best, before = max(best, gains[i]), gains[i]
        return kept

    return attempt


right_front = walk()


def hull(costs, gains):
    """Those of the front that lie on no chord between two others."""
    kept = sorted(right_front(costs, gains), key=costs.__getitem__)

    def below(i: int) -> bool:
        for a in kept[: kept.index(i)]:
            for b in kept[kept.index(i) + 1 :]:
                share = (costs[i] - costs[a]) / (costs[b] - costs[a])
                if gains[i] < gains[a] + share * (gains[b] - gains[a]):
                    return True
        return False

    return {i for i in kept if not below(i)}


@exercise(
    "9.4",
    "fronts of eight families of arms, unsorted and with ties, pair by pair",
    {
        "at equal cost the better one wins, and at equal gain the cheaper: ties are beaten too": (
            none_beats(lambda c, g, oc, og: oc < c and og > g)
        ),
        "at equal cost the better one wins": (
            none_beats(lambda c, g, oc, og: oc < c and og >= g),
            walk(lambda cost, gain: cost),
        ),
        "at equal gain the cheaper one wins": (
            none_beats(lambda c, g, oc, og: oc <= c and og > g),
            walk(better=lambda gain, best, before: gain >= best),
        ),
        "less cost or more gain is no reason alone: both together beat": none_beats(
            lambda c, g, oc, og: oc < c or og > g
        ),
        "an arm is compared with itself, so that it beats itself": lambda costs, gains: set(),
        "the beaten ones are given": lambda costs, gains: (
            set(range(len(costs))) - right_front(costs, gains)
        ),
        "a smaller gain counts as better": lambda costs, gains: right_front(
            costs, [-gain for gain in gains]
        ),
        "a larger cost counts as better": lambda costs, gains: right_front(
            [-cost for cost in costs], gains
        ),
        "the arms do not come sorted by cost: sort them, or compare every pair": walk(
            lambda cost, gain: 0
        ),
        "an arm is compared with the next cheaper one alone, not with all": walk(
            better=lambda gain, best, before: gain > before
        ),
        "positions in the sorted list: those in the list that came in are asked for": walk(
            place=lambda i, rank: rank
        ),
        "gains below zero count too: let the best begin below all of them": walk(start=0.0),
        "those are costs: positions in the list are asked for": lambda costs, gains: {
            costs[i] for i in right_front(costs, gains)
        },
        "that is the hull: an arm below the line between two others may still be unbeaten": hull,
        "one arm alone, the best for its cost: a front has all that are not beaten": (
            lambda costs, gains: {max(range(len(costs)), key=lambda i: gains[i] / costs[i])}
        ),
        "one arm alone, the best: a front has all that are not beaten": lambda costs, gains: {
            gains.index(max(gains))
        },
    },
)
def front() -> Iterator[Case]:
    """Against every pair of arms."""
    for arms in (
        [(4, 2.0), (1, 1.0), (2, 3.0), (8, 5.0), (3, 0.5)],
        [(3, 1.0), (3, 2.0), (1, 1.0), (5, 2.0), (6, 2.5)],
        [(1, 0.5), (3, 1.0), (3, 2.0)],
        [(9, -1.0), (2, -3.0), (2, -4.0), (9, -2.0)],
        [(1, 4.0), (2, 3.0), (3, 3.5), (4, 4.5), (0.5, 0.1)],
        [(3, 3.0), (1, 1.0), (2, 1.2)],
        [(1, 2.0), (9, 1.0), (2, 3.0)],
        [(7, 1.5)],
    ):
        costs, gains = [list(each) for each in zip(*arms, strict=True)]
        yield Case(
            f"the front of costs {costs} and gains {gains}",
            (costs, gains),
            unbeaten(arms),
            form="a set of positions is wanted, such as {0, 2}",
        )
