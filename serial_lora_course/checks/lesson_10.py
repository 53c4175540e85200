"""Checks of lesson 10: sums and chains of pairs, and a pair for each sample."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from serial_lora_course.checking.message import require, require_returned
from serial_lora_course.checks.cases import Case, call, run_cases
from serial_lora_course.checks.checking import exercise

Pair = tuple[Tensor, Tensor]
WIDTH = 9


def random_pair(rank: int, width: int) -> Pair:
    """A (r, d) and B (d, r)."""
    return torch.randn(rank, width), torch.randn(width, rank)


def change(pair: Pair) -> Tensor:
    """B A, entry by entry."""
    return torch.einsum("or,ri->oi", pair[1], pair[0])


def product_of(attempt, *arguments, what: str, rank: int, width: int) -> Tensor:
    """B A of the pair that the learner returns, its form being right."""
    found = call(attempt, *arguments, what=what)
    require_returned(what, found, "A and B")
    both = isinstance(found, (tuple, list)) and len(found) == 2
    kinds = both and all(isinstance(each, Tensor) for each in found)
    require(kinds, what, "two tensors, A and B", found, "return A, B: two tensors, A first")
    shapes, wanted = [tuple(t.shape) for t in found], [(rank, width), (width, rank)]
    swapped = shapes == wanted[::-1] and rank != width
    narrow = shapes[0][:1] != (rank,) and shapes[0][-1:] == (width,)
    cause = (
        "A and B are exchanged: A (r, d) comes first"
        if swapped
        else "the rank is the sum of the ranks: stack the rows of the A's and the columns of the B's"
        if narrow
        else "A's rows are stacked (dim 0), and B's columns (dim 1)"
    )
    require(shapes == wanted, f"the shapes of A and B for {what}", wanted, shapes, cause)
    return found[1] @ found[0]


@exercise("10.1")
def add_pairs(attempt) -> str:
    """The product of the stack is the weighted sum of the products, also for three of unequal ranks."""
    for ranks, weights in (((2, 3), [0.7, -0.4]), ((1, 2, 4), [1.5, 0.5, 0.25])):
        pairs = [random_pair(rank, WIDTH) for rank in ranks]
        what = f"the sum of pairs of rank {', '.join(map(str, ranks))} with weights {weights}"

        def product(pairs: list[Pair], weights: list[float], what=what, ranks=ranks) -> Tensor:
            return product_of(attempt, pairs, weights, what=what, rank=sum(ranks), width=WIDTH)

        changes, whole = [change(pair) for pair in pairs], sum(weights)

        def total(weigh, changes=changes, weights=weights) -> Tensor:
            return sum(weigh(w) * each for w, each in zip(weights, changes, strict=True))

        causes = {
            "the weights are forgotten": total(lambda w: 1),
            "the weight is on both factors: the product has it squared": total(lambda w: w * w),
            "the weights are divided by their sum: they count as they are": total(
                lambda w, whole=whole: w / whole
            ),
            "divided by the number of pairs: a sum is wanted, no mean": total(
                lambda w, pairs=pairs: w / len(pairs)
            ),
            "the sign of a negative weight is lost": total(abs),
            "every pair gets the first weight": total(lambda w, first=weights[0]: first),
            "the first pair alone is there": weights[0] * changes[0],
            "the last pair alone is there": weights[-1] * changes[-1],
            "the weights go to the pairs in the wrong order": sum(
                w * each for w, each in zip(weights[::-1], changes, strict=True)
            ),
            "A's and B's do not stand in the same order": lambda p=pairs, w=weights: (
                torch.cat([w_i * B for w_i, (_, B) in zip(w, p, strict=True)][::-1], dim=1)
                @ torch.cat([A for A, _ in p])
            ),
        }
        table = [Case(what, (pairs, weights), total(lambda w: w), causes)]
        run_cases(lambda table=table: table, "", product)
    return "exactly the weighted sum, of two pairs and of three of unequal ranks"


@exercise("10.2")
def chain_pairs(attempt) -> str:
    """I + B A is the product of the two dense matrices, in the right order, for unequal ranks."""
    for ranks in ((2, 3), (4, 1)):
        first, second = (random_pair(rank, WIDTH) for rank in ranks)
        what = f"the chain of a pair of rank {ranks[0]} and then one of rank {ranks[1]}"

        def product(first: Pair, second: Pair, what=what, ranks=ranks) -> Tensor:
            return product_of(attempt, first, second, what=what, rank=sum(ranks), width=WIDTH)

        identity, one, two = torch.eye(WIDTH), change(first), change(second)
        expected = (identity + two) @ (identity + one) - identity
        causes = {
            "that is the sum: the term with both products is missing": one + two,
            "the order is turned round: the tokens meet the first pair first, so it stands on the right": (
                (identity + one) @ (identity + two) - identity
            ),
            "the term with both is there and the second pair's own is not": one + two @ one,
            "the term with both is there and the first pair's own is not": two + two @ one,
            "the term with both is subtracted": one + two - two @ one,
            "the term with both is there twice": one + two + 2 * two @ one,
        }
        table = [Case(what, (first, second), expected, causes, tolerance=1e-4)]
        run_cases(lambda table=table: table, "", product)
    return "equal to the two dense matrices, one after the other, in both orders of size"


@exercise("10.3", "each sample's own pair, in any order and with repetitions, gradients included")
def adapt_each() -> Iterator[Case]:
    """Compared with one sample after another."""
    for count, picks, rank in ((3, [2, 0, 2, 1], 2), (2, [1, 1], 3)):
        width = 5
        x = torch.randn(len(picks), 4, width).requires_grad_(rank == 3)
        A = torch.randn(count, rank, width, requires_grad=True)
        B = torch.randn(count, width, rank, requires_grad=True)
        which = torch.tensor(picks)

        def one_by_one(a: Tensor, b: Tensor, picks, x=x) -> Tensor:
            rows = [
                each + torch.einsum("ti,ri,or->to", each, a[k], b[k])
                for each, k in zip(x, picks, strict=True)
            ]
            return torch.stack(rows)

        expected = one_by_one(A, B, picks)
        causes = {
            "every sample gets the first adapter": one_by_one(A, B, [0] * len(picks)),
            "every sample gets the adapter of the first sample": one_by_one(
                A, B, picks[:1] * len(picks)
            ),
            "x itself is lost: add the change to x": expected - x,
            "x is added twice": expected + x,
            "reshape is no transpose: .mT exchanges the last two dimensions": (
                lambda A=A, B=B, p=picks, x=x: torch.stack(
                    [
                        each + each @ A[k].reshape(A[k].T.shape) @ B[k].T
                        for each, k in zip(x, p, strict=True)
                    ]
                )
            ),
            "every sample gets the B of the first sample": lambda A=A, B=B, p=picks: one_by_one(
                A, B[[p[0]] * len(B)], p
            ),
            "every sample gets the sum of all adapters": x
            + sum(one_by_one(A, B, [k] * len(picks)) - x for k in range(count)),
            "every sample gets the mean of all adapters": sum(
                one_by_one(A, B, [k] * len(picks)) for k in range(count)
            )
            / count,
            "A is gathered and B is not: take all_B[which] too": lambda A=A, B=B, p=picks: (
                one_by_one(A, B[[0] * len(B)], p)
            ),
            "the adapters go to the samples in the wrong order": one_by_one(A, B, picks[::-1]),
            "A and B are exchanged: x meets A first": lambda A=A, B=B, p=picks, x=x: torch.stack(
                [each + each @ B[k] @ A[k] for each, k in zip(x, p, strict=True)]
            ),
            "the factors of all adapters are averaged": one_by_one(
                A.mean(0)[None], B.mean(0)[None], [0] * len(picks)
            ),
        }
        yield Case(
            f"{len(picks)} samples with the adapters {picks} of {count}",
            (x, A, B, which),
            expected,
            causes,
            form="one row of tokens for each sample: (B, N, d), as x",
            leaves=lambda x, A, B, which: (
                {"all_A": A, "all_B": B} | ({"x": x} if x.requires_grad else {})
            ),
        )
