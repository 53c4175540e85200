"""Checks of the exercises on the paper's trial: RepAdapter's layer, a rule for a claim, a front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise

# ----------------------------------------------------------------------- 9.1 RepAdapter's layer


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
        "the scale is divided by the number of groups: B has it whole": pair(
            lambda up, s: s / len(up) * torch.block_diag(*up)
        ),
        "the scale divides": pair(lambda up, s: torch.block_diag(*up) / s),
        "A and B are exchanged: A (h, d) comes first": lambda down, up, s: (
            s * torch.block_diag(*up),
            down,
        ),
        "each block is turned: it is (outputs, hidden values) already, as B is": pair(
            lambda up, s: s * torch.block_diag(*up.mT)
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

    for width, hidden, groups, scale in ((8, 4, 2, 0.7), (12, 6, 3, -2.0), (5, 2, 1, 0.1)):
        down = torch.randn(hidden, width)
        up = torch.randn(groups, width // groups, hidden // groups)
        what = f"the pair for d = {width}, h = {hidden}, {groups} group{'s' * (groups > 1)}"
        shapes, change = [(hidden, width), (width, hidden)], by_groups(down, up, scale)
        expected = Parts({f"the shapes of A and B: {what}": shapes, f"B A of {what}": change})
        form = "return A, B: two tensors, A first"
        yield Case(what, (down, up, scale), expected, read=read, form=form, error=form)


# ---------------------------------------------------------------------------- 9.2 a rule for a claim


def count_good(
    good: Callable = lambda d, margin: d > -margin,
    enough: Callable = lambda count, share, total: count >= share * total,
    words: tuple[str, str] = ("holds", "fails"),
) -> Callable:
    """The rule with one thing changed."""

    def attempt(differences, margin, share):
        count = sum(good(d, margin) for d in differences)
        return words[0] if enough(count, share, len(differences)) else words[1]

    return attempt


@exercise(
    "9.2",
    "eleven rows of cells, with ties, with and without a margin",
    {
        "the margin isn't used: behind by less than it is fine": count_good(lambda d, m: d > 0),
        "that asks for better by the margin: behind by it is -margin": count_good(
            lambda d, m: d > m
        ),
        "better by more than the margin is refused: that is good enough too": count_good(
            lambda d, m: abs(d) < m if m else d > 0
        ),
        "behind by exactly the margin is too far, and a tie is not better: above -margin": (
            count_good(lambda d, m: d >= -m)
        ),
        "that many cells exactly are enough: at least the share": count_good(
            enough=lambda count, share, total: count > share * total
        ),
        "one good cell is enough there: ask for the share times the number of cells": count_good(
            enough=lambda count, share, total: count >= share
        ),
        "the number of cells is rounded: 2.8 cells are 3, not 2": (
            count_good(enough=lambda count, share, total: count >= int(share * total)),
            count_good(enough=lambda count, share, total: count >= round(share * total)),
        ),
        "all cells are asked for: the claim says how many": count_good(
            enough=lambda count, share, total: count == total
        ),
        "more than half is asked for: the claim says how many": count_good(
            enough=lambda count, share, total: count > total / 2
        ),
        "the mean is judged: the claim is about the number of cells": lambda d, m, share: (
            "holds" if statistics.fmean(d) > -m else "fails"
        ),
        "holds and fails are exchanged": count_good(words=("fails", "holds")),
        "that is how many are good enough: say holds or fails": lambda d, m, share: sum(
            each > -m for each in d
        ),
        "a verdict in words is asked for, holds or fails": count_good(words=(True, False)),
    },
)
def judge() -> Iterator[Case]:
    """Against the cells in order: the worst that must be good enough."""
    for differences, margin, share in (
        ([0.4, 0.1, -0.2, -0.4], 0.0, 0.5),
        ([0.4, -0.1, -0.2, -0.3], 0.0, 0.5),
        ([2.0, 3.0, -0.5, -0.9], 1.0, 1.0),
        ([2.0, 3.0, 0.5, -1.2], 1.0, 1.0),
        ([-0.5, -0.4, -0.6, -9.0], 1.0, 0.75),
        ([0.0, 0.3, 0.2], 0.0, 1.0),
        ([-1.0, -1.0, 0.5, 0.1, 0.2], 1.0, 0.8),
        ([1.5, 1.2, 0.1, -3.0], 0.5, 0.7),
        ([1.5, 1.2, -0.6, -3.0], 0.5, 0.7),
        ([0.2, -0.1, -5.0, -2.0], 0.0, 0.3),
        ([0.2, 0.1, -5.0], 0.0, 0.3),
    ):
        needed = math.ceil(share * len(differences) - 1e-9)
        worst = sorted(differences, reverse=True)[needed - 1]
        yield Case(
            f"the verdict on {differences}, margin {margin}, share {share}",
            (differences, margin, share),
            "holds" if worst > -margin else "fails",
            form="return one of the words holds and fails",
        )


# --------------------------------------------------------------------------------- 9.3 the front

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
    """Those of the front that lie below no line between two others."""
    kept = right_front(costs, gains)

    def line(a: int, b: int, at: float) -> float:
        return gains[a] + (at - costs[a]) / (costs[b] - costs[a]) * (gains[b] - gains[a])

    around = [(a, b) for a in kept for b in kept if costs[a] < costs[b]]
    return {
        i
        for i in kept
        if all(
            gains[i] >= line(a, b, costs[i]) for a, b in around if costs[a] < costs[i] < costs[b]
        )
    }


@exercise(
    "9.3",
    "fronts of eight sets of methods, unsorted and with ties, pair by pair",
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
        "a method is compared with itself, so that it beats itself": lambda costs, gains: set(),
        "a smaller gain counts as better": lambda costs, gains: right_front(
            costs, [-gain for gain in gains]
        ),
        "a larger cost counts as better": lambda costs, gains: right_front(
            [-cost for cost in costs], gains
        ),
        "the methods do not come sorted by cost: sort them, or compare every pair": walk(
            lambda cost, gain: 0
        ),
        "a method is compared with the next cheaper one alone, not with all": walk(
            better=lambda gain, best, before: gain > before
        ),
        "positions in the sorted list: those in the list that came in are asked for": walk(
            place=lambda i, rank: rank
        ),
        "gains below zero count too: let the best begin below all of them": walk(start=0.0),
        "those are costs: positions in the list are asked for": lambda costs, gains: {
            costs[i] for i in right_front(costs, gains)
        },
        "that is the hull: a method below the line between two others may still be unbeaten": hull,
        "one method alone, the best: a front has all that are not beaten": lambda costs, gains: {
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
