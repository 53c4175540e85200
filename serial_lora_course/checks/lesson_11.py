"""Checks of lesson 11: RepAdapter's layer as a pair, an interval over sets, Holm's correction, a front."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from serial_lora_course.checking.message import require, require_returned
from serial_lora_course.checks.cases import Case, Part, call
from serial_lora_course.checks.cases import compare as require_equal
from serial_lora_course.checks.checking import exercise

# ------------------------------------------------------------------- 11.1: RepAdapter's layer


def by_groups(down: Tensor, up: Tensor, scale: float) -> Tensor:
    """B A, a group of outputs after the other, each from its own hidden values."""
    groups, outputs, hidden = up.shape
    change = torch.zeros(groups * outputs, down.shape[1])
    for group in range(groups):
        rows = down[group * hidden : (group + 1) * hidden]  # (h / groups, d)
        change[group * outputs : (group + 1) * outputs] = scale * up[group] @ rows
    return change


@exercise("11.1")
def serial_pair(attempt) -> str:
    """B A is the change of RepAdapter's layer, for one group, for two and for three."""
    for width, hidden, groups, scale in ((8, 4, 2, 0.5), (12, 6, 3, 2.0), (5, 2, 1, 0.1)):
        down = torch.randn(hidden, width)
        up = torch.randn(groups, width // groups, hidden // groups)
        what = f"the pair for d = {width}, h = {hidden}, {groups} group{'s' * (groups > 1)}"
        found = call(attempt, down.clone(), up.clone(), scale, what=what)
        require_returned(what, found, "A and B")
        both = isinstance(found, (tuple, list)) and len(found) == 2
        both = both and all(isinstance(each, Tensor) for each in found)
        require(both, what, "two tensors, A and B", found, "return A, B: two tensors, A first")
        shapes, wanted = [tuple(each.shape) for each in found], [(hidden, width), (width, hidden)]
        cause = (
            "A and B are exchanged: A (h, d) comes first"
            if shapes == wanted[::-1]
            else "B is (d, h), with one block for each group and zeros elsewhere; A is (h, d)"
        )
        require(shapes == wanted, f"the shapes of A and B: {what}", wanted, shapes, cause)
        expected, per = by_groups(down, up, scale), hidden // groups
        causes = {
            "the scale is forgotten": expected / scale,
            "the scale is on both factors: the product has it squared": scale * expected,
            "the scale divides": expected / scale**2,
            "the blocks stand in the wrong order": by_groups(down, up.flip(0), scale),
            "each group reads the first group's hidden values: the blocks stand side by side": (
                by_groups(down[:per].repeat(groups, 1), up, scale)
            ),
            "every group reads all hidden values: outside its block B is zero": scale
            * up.sum(0).repeat(groups, groups)
            @ down,
            "every group's block is in every row of blocks: outside its own block B is zero": scale
            * torch.cat([torch.cat(list(up), dim=1)] * groups)
            @ down,
            "the hidden values are dealt out in turn: a group reads neighbours": by_groups(
                down.unflatten(0, (per, groups)).transpose(0, 1).flatten(0, 1), up, scale
            ),
            "every group has the first one's block": by_groups(
                down, up[:1].expand_as(up), scale
            ),
            "x itself is in it: return the change alone": expected + torch.eye(width),
        }  # fmt: skip
        require_equal(f"B A of {what}", found[1] @ found[0], expected, causes)
    return "equal to RepAdapter's layer, group by group, for one, two and three groups"


# ------------------------------------------------------------------- 11.2: an interval over sets


def over(values: list[float], quantile: float) -> tuple[float, float]:
    """Mean and quantile times standard error."""
    return statistics.fmean(values), quantile * statistics.stdev(values) / len(values) ** 0.5


@exercise(
    "11.2", "means and half-widths for three, five and twelve sets, with unequally many seeds"
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
        runs = [value for each in given.values() for value in each]
        t = stats.t.ppf(0.975, count - 1)
        mean, half = over(means, t)
        deviation = statistics.stdev(means)
        seeds = [statistics.fmean(each) for each in zip(*given.values(), strict=False)]
        yield Case(
            f"the interval over {count} sets with {len(runs)} runs",
            (given,),
            [
                Part(
                    "the mean",
                    mean,
                    {
                        "all runs are averaged at once: a set with more seeds would count more": (
                            statistics.fmean(runs)
                        ),
                        "the mean over seeds is taken: the sets are the sample": statistics.fmean(
                            seeds
                        ),
                        "that is the median of the sets": statistics.median(means),
                        "that is the sum: divide by the number of sets": sum(means),
                    },
                ),
                Part(
                    "the half-width",
                    half,
                    {
                        "the runs are the sample: those of one set are not independent": over(
                            runs, stats.t.ppf(0.975, len(runs) - 1)
                        )[1],
                        "two standard errors: with few sets Student's quantile is larger": over(
                            means, 2
                        )[1],
                        "two standard errors over runs: sets are the sample, and t has its quantile": (
                            over(runs, 2)[1]
                        ),
                        "1.96 is the quantile for endless sets: take Student's": over(
                            means, stats.norm.ppf(0.975)
                        )[1],
                        "the runs are counted for the degrees of freedom: sets - 1": over(
                            means, stats.t.ppf(0.975, len(runs) - 1)
                        )[1],
                        "the degrees of freedom are sets - 1, not sets": over(
                            means, stats.t.ppf(0.975, count)
                        )[1],
                        "the quantile leaves 5% on one side: 2.5% on each, so 0.975": over(
                            means, stats.t.ppf(0.95, count - 1)
                        )[1],
                        "the standard deviation divides by n: n - 1 is needed": (
                            half * ((count - 1) / count) ** 0.5
                        ),
                        "not divided by the root of the number of sets": t * deviation,
                        "divided by the number of sets, not by its root": t * deviation / count,
                        "divided by the root of the number of runs: the sets are the sample": (
                            t * deviation / len(runs) ** 0.5
                        ),
                        "that is the whole width: half of it": 2 * half,
                        "that is the standard error: times Student's quantile": half / t,
                    },
                ),
            ],
            form="return two numbers: the mean, and the half-width",
        )


# ------------------------------------------------------------------- 11.3: Holm


def adjusted_by_hand(ps: list[float]) -> list[float]:
    """A p value's adjusted one is the largest of (how many are not smaller) x p, of it and all smaller."""
    return [
        min(1.0, max(p * sum(other >= p for other in ps) for p in ps if p <= mine)) for mine in ps
    ]


def stepwise(ps: list[float], factor, running: bool = True, cap: float = 1.0) -> list[float]:
    """The smallest first: each times its factor, and never below the one before."""
    found, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        value = min(cap, factor(rank, len(ps)) * ps[place])
        largest = max(largest, value)
        found[place] = largest if running else value
    return found


@exercise("11.3", "four families of p values, sorted and unsorted, held against the definition")
def holm() -> Iterator[Case]:
    """Against Holm's definition, value by value."""
    families = (
        [0.01, 0.04, 0.03, 0.005],
        [0.5, 0.012, 0.011, 0.4, 0.6],
        [0.001, 0.02, 0.021, 0.9],
        [0.04],
    )
    for ps in families:
        expected, count = adjusted_by_hand(ps), len(ps)
        holm_factor = lambda rank, count: count - rank  # noqa: E731
        running, largest = [], 0.0
        for value in stepwise(ps, holm_factor, running=False):
            largest = max(largest, value)
            running.append(largest)
        causes = {
            "that is Bonferroni's: each further p value has one comparison fewer beside it": [
                min(1.0, count * p) for p in ps
            ],
            "a p value may not end below a smaller one's: keep the largest so far": stepwise(
                ps, holm_factor, running=False
            ),
            "a probability stops at 1": stepwise(ps, holm_factor, cap=float("inf")),
            "they are given back sorted: keep the order that came in": sorted(expected),
            "the largest so far is kept in the order given, not from the smallest p": running,
            "the factors run the wrong way: the smallest p gets the largest": stepwise(
                ps, lambda rank, count: rank + 1
            ),
            "that is Benjamini and Hochberg's factor, for another promise": stepwise(
                ps, lambda rank, count: count / (rank + 1)
            ),
            "each factor is one too small: the smallest is multiplied by their number": stepwise(
                ps, lambda rank, count: count - rank - 1
            ),
            "each factor is one too large: the smallest is multiplied by their number": stepwise(
                ps, lambda rank, count: count - rank + 1
            ),
            "they are as they came": ps,
            "that is Šidák's way, 1 - (1 - p)^n: Holm multiplies": [
                1 - (1 - p) ** count for p in ps
            ],
        }
        yield Case(
            f"the adjusted p values of {ps}",
            (ps,),
            expected,
            causes,
            form="a list with one adjusted p value for each, in the same order",
        )


# ------------------------------------------------------------------- 11.4: the front


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether (cost, gain) a is no dearer and no worse than b, and another one."""
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def unbeaten(arms: list[tuple[float, float]], rule=beats) -> set[int]:
    """Positions that no other one beats."""
    return {i for i, arm in enumerate(arms) if not any(rule(other, arm) for other in arms)}


@exercise("11.4", "fronts of five families of arms, unsorted and with ties, pair by pair")
def front() -> Iterator[Case]:
    """Against every pair of arms."""
    families = (
        [(4, 2.0), (1, 1.0), (2, 3.0), (8, 5.0), (3, 0.5)],
        [(3, 1.0), (3, 2.0), (1, 1.0), (5, 2.0), (6, 2.5)],
        [(9, -1.0), (2, -3.0), (2, -4.0), (9, -2.0)],
        [(1, 4.0), (2, 3.0), (3, 3.5), (4, 4.5), (0.5, 0.1)],
        [(7, 1.5)],
    )
    for arms in families:
        costs, gains = [list(each) for each in zip(*arms, strict=True)]
        best_so_far, along = float("-inf"), set()
        for place, gain in enumerate(gains):
            if gain > best_so_far:
                best_so_far = gain
                along.add(place)
        order = sorted(range(len(arms)), key=lambda i: (costs[i], -gains[i]))
        steps = {
            place
            for before, place in zip([None, *order], order, strict=False)
            if before is None or gains[place] > gains[before]
        }
        expected = unbeaten(arms)
        causes = {
            "at equal cost the better one wins, and at equal gain the cheaper: ties are beaten too": (
                unbeaten(arms, lambda a, b: a[0] < b[0] and a[1] > b[1])
            ),
            "at equal cost the better one wins": unbeaten(
                arms, lambda a, b: a[0] < b[0] and a[1] >= b[1]
            ),
            "at equal gain the cheaper one wins": unbeaten(
                arms, lambda a, b: a[0] <= b[0] and a[1] > b[1]
            ),
            "less cost or more gain is no reason alone: both together beat": unbeaten(
                arms, lambda a, b: a[0] < b[0] or a[1] > b[1]
            ),
            "an arm is compared with itself, so that it beats itself": set(),
            "the beaten ones are given": set(range(len(arms))) - expected,
            "a smaller gain counts as better": unbeaten(
                arms, lambda a, b: a[0] <= b[0] and a[1] <= b[1] and a != b
            ),
            "a larger cost counts as better": unbeaten(
                arms, lambda a, b: a[0] >= b[0] and a[1] >= b[1] and a != b
            ),
            "the arms do not come sorted by cost: sort them, or compare every pair": along,
            "an arm is compared with the next cheaper one alone, not with all": steps,
            "positions in the sorted list: those in the list that came in are asked for": {
                order.index(place) for place in expected
            },
            "one arm alone, the best for its cost: a front has all that are not beaten": {
                max(range(len(arms)), key=lambda i: gains[i] / costs[i])
            },
            "one arm alone, the best: a front has all that are not beaten": {
                gains.index(max(gains))
            },
        }
        yield Case(
            f"the front of costs {costs} and gains {gains}",
            (costs, gains),
            expected,
            causes,
            form="a set of positions is wanted, such as {0, 2}",
        )
