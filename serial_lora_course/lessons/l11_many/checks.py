"""Checks of the exercises on many adapters: sums and chains of pairs, and a pair for each sample.

Pairs are compared by what they are for, the dense product B A.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise

Pair = tuple[Tensor, Tensor]
WIDTH = 9
FORM = "return A, B: A (r, d) first, A's rows stacked (dim 0), B's columns (dim 1)"


def random_pair(rank: int, width: int = WIDTH) -> Pair:
    """A (r, d) and B (d, r)."""
    return torch.randn(rank, width), torch.randn(width, rank)


def change(pair: Pair) -> Tensor:
    """B A, entry by entry."""
    return torch.einsum("or,ri->oi", pair[1], pair[0])


def product_case(what: str, arguments: tuple, change: Tensor, rank: int, tolerance: float) -> Case:
    """A pair of this rank whose product is this change."""
    shapes = [(rank, WIDTH), (WIDTH, rank)]
    expected = Parts({f"the shapes of A and B for {what}": shapes, f"B A for {what}": change})

    def read(pair, *_) -> tuple:
        A, B = pair
        return [tuple(A.shape), tuple(B.shape)], B @ A if A.shape[0] == B.shape[1] else None

    return Case(what, arguments, expected, read=read, form=FORM, tolerance=tolerance)


# ---------------------------------------------------------------------------------- the sum


def stacked(weigh=lambda weight, weights: weight, order=1, on_A=lambda weight: 1):
    """The stack of some pairs, with one thing changed."""

    def attempt(pairs, weights):
        A = torch.cat([on_A(w) * A for w, (A, _) in zip(weights, pairs, strict=True)])
        parts = [weigh(w, weights) * B for w, (_, B) in zip(weights, pairs, strict=True)]
        return A, torch.cat(parts[::order], dim=1)

    return attempt


def averaged_factors(pairs, weights):
    """The weighted factors, added: as many rows as the narrowest pair has."""
    rank = min(len(A) for A, _ in pairs)
    A = sum(w * A[:rank] for w, (A, _) in zip(weights, pairs, strict=True))
    return A, sum(w * B[:, :rank] for w, (_, B) in zip(weights, pairs, strict=True))


def rows_and_rows(pairs, weights):
    """B's rows stacked as A's are."""
    return torch.cat([A for A, _ in pairs]), torch.cat([B.T for _, B in pairs])


@exercise(
    "11.1",
    "exactly the weighted sum, of two pairs and of three of unequal ranks",
    {
        "the weights are forgotten": stacked(lambda w, _: 1),
        "the weight is on both factors: the product has it squared": stacked(on_A=lambda w: w),
        "the weights are divided by their sum: they count as they are": stacked(
            lambda w, every: w / sum(every)
        ),
        "divided by the number of pairs: a sum is wanted, no mean": stacked(
            lambda w, every: w / len(every)
        ),
        "the sign of a negative weight is lost": (
            stacked(lambda w, _: abs(w)),
            stacked(lambda w, _: abs(w) ** 0.5, on_A=lambda w: abs(w) ** 0.5),
        ),
        "every pair gets the first weight": stacked(lambda w, every: every[0]),
        "the first pair alone is there": stacked(lambda w, every: w * (w == every[0])),
        "the last pair alone is there": stacked(lambda w, every: w * (w == every[-1])),
        "A's and B's do not stand in the same order": (
            stacked(order=-1),
            lambda pairs, weights: (
                stacked()(pairs, weights)[0],
                stacked()(pairs[::-1], weights[::-1])[1],
            ),
        ),
        "the rank is the sum of the ranks: stack rows of A and columns of B": averaged_factors,
        "A and B are exchanged: A (r, d) comes first": lambda p, w: stacked()(p, w)[::-1],
        "the first two pairs alone are there: there may be more": lambda p, w: stacked()(
            p[:2], w[:2]
        ),
        "A's rows are stacked (dim 0), and B's columns (dim 1)": (
            rows_and_rows,
            lambda p, w: (torch.cat([A for A, _ in p]), torch.cat([B for _, B in p])),
            lambda p, w: (torch.cat([A for A, _ in p], 1), torch.cat([B for _, B in p], 1)),
        ),
    },
)
def add_pairs() -> Iterator[Case]:
    """The product of the stack is the weighted sum of the products."""
    for ranks, weights in (((2, 3), [0.7, -0.4]), ((1, 2, 4), [1.5, 0.5, 0.25])):
        pairs = [random_pair(rank) for rank in ranks]
        total = sum(w * change(pair) for w, pair in zip(weights, pairs, strict=True))
        what = f"the sum of pairs of rank {', '.join(map(str, ranks))} with weights {weights}"
        yield product_case(what, (pairs, weights), total, sum(ranks), 1e-5)


# -------------------------------------------------------------------------------- the chain


def chained(second_A=lambda A1, B1, A2, B2: A2 + A2 @ B1 @ A1, keep=1, swap=False):
    """A chain whose second A is computed otherwise, or whose first is left out."""

    def attempt(first, second):
        (A1, B1), (A2, B2) = (second, first) if swap else (first, second)
        return torch.cat([keep * A1, second_A(A1, B1, A2, B2)]), torch.cat([B1, B2], dim=1)

    return attempt


@exercise(
    "11.2",
    "equal to the two dense matrices, one after the other, in both orders of size",
    {
        "that is the sum: the term with both products is missing": chained(lambda a, b, A2, c: A2),
        "the order is turned round: the tokens meet the first pair first": chained(swap=True),
        "the term with both is there and the second pair's own is not": chained(
            lambda A1, B1, A2, B2: A2 @ B1 @ A1
        ),
        "the term with both is there and the first pair's own is not": chained(keep=0),
        "the term with both is subtracted": chained(lambda A1, B1, A2, B2: A2 - A2 @ B1 @ A1),
        "the term with both is there twice": chained(lambda A1, B1, A2, B2: A2 + 2 * A2 @ B1 @ A1),
        "A and B are exchanged: A (r, d) comes first": lambda f, s: chained()(f, s)[::-1],
    },
)
def chain_pairs() -> Iterator[Case]:
    """I + B A is the product of the two dense matrices, in the right order."""
    identity = torch.eye(WIDTH)
    for ranks in ((2, 3), (4, 1)):
        first, second = (random_pair(rank) for rank in ranks)
        expected = (identity + change(second)) @ (identity + change(first)) - identity
        what = f"the chain of a pair of rank {ranks[0]} and then one of rank {ranks[1]}"
        yield product_case(what, (first, second), expected, sum(ranks), 1e-4)


# -------------------------------------------------------------------- a pair for each sample


def each(pick=lambda which: which, keep=1, pick_B=None):
    """Every sample by itself; ``pick(which)`` says with which adapter."""

    def attempt(x, all_A, all_B, which):
        A, B = all_A[pick(which)], all_B[(pick_B or pick)(which)]
        return keep * x + torch.einsum("bti,bri,bor->bto", x, A, B)

    return attempt


def all_adapters(x, all_A, all_B, which):
    """x and the change of every adapter."""
    return x + torch.einsum("bti,kri,kor->bto", x, all_A, all_B)


@exercise(
    "11.3",
    "each sample's own pair, in any order and with repetitions, gradients included",
    {
        "every sample gets the first adapter": each(lambda which: 0 * which),
        "every sample gets the adapter of the first sample": each(
            lambda which: which[:1].expand_as(which)
        ),
        "the adapters go to the samples in the wrong order": each(lambda which: which.flip(0)),
        "every sample gets the B of the first sample": each(
            pick_B=lambda which: which[:1].expand_as(which)
        ),
        "A is gathered and B is not: take all_B[which] too": each(pick_B=lambda which: 0 * which),
        "x itself is lost: add the change to x": each(keep=0),
        "x is added twice": each(keep=2),
        "reshape is no transpose: .mT exchanges the last two dimensions": lambda x, A, B, which: (
            x + x @ A[which].reshape(len(which), *A.shape[:0:-1]) @ B[which].mT
        ),
        "A and B are not transposed: x @ A.mT, then @ B.mT": lambda x, A, B, which: (
            x + x @ A[which] @ B[which]
        ),
        "which is not looked at: sample i gets adapter i": lambda x, A, B, which: each()(
            x, A, B, torch.arange(len(x)) % len(A)
        ),
        "A and B are exchanged: x meets A first": lambda x, A, B, which: (
            x + x @ B[which] @ A[which]
        ),
        "every sample gets the sum of all adapters": all_adapters,
        "every sample gets the mean of all adapters": lambda x, A, B, which: (
            x + (all_adapters(x, A, B, which) - x) / len(A)
        ),
        "the factors of all adapters are averaged": lambda x, A, B, which: (
            x + x @ A.mean(0).T @ B.mean(0).T
        ),
    },
)
def adapt_each() -> Iterator[Case]:
    """Compared with one sample after another."""
    for count, picks, rank in ((3, [2, 0, 2, 1], 2), (2, [1, 1], 3)):
        x = torch.randn(len(picks), 4, 5).requires_grad_(rank == 3)
        A = torch.randn(count, rank, 5, requires_grad=True)
        B = torch.randn(count, 5, rank, requires_grad=True)
        one_by_one = [one + one @ A[k].T @ B[k].T for one, k in zip(x, picks, strict=True)]
        yield Case(
            f"{len(picks)} samples with the adapters {picks} of {count}",
            (x, A, B, torch.tensor(picks)),
            torch.stack(one_by_one),
            form="one row of tokens for each sample: (B, N, d), as x",
            leaves=lambda x, A, B, which: (
                {"all_A": A, "all_B": B} | ({"x": x} if x.requires_grad else {})
            ),
        )
