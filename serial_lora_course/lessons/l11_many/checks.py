"""Checks of the exercises on many adapters: sums and stacks of pairs, a pair for each sample, and a test of it.

Pairs are compared by what they are for, the dense product B A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise

WIDTH = 9
FORM_2 = "return all_A (K, r, d), then all_B (K, d, r), where r is the largest rank"
FORM = "return A (r, d), then B (d, r): stack A's rows (dim 0) and B's columns (dim 1)"


def random_pair(rank: int) -> tuple[Tensor, Tensor]:
    """A (r, d) and B (d, r)."""
    return torch.randn(rank, WIDTH), torch.randn(WIDTH, rank)


def change(pair: tuple[Tensor, Tensor]) -> Tensor:
    """B A, entry by entry."""
    return torch.einsum("or,ri->oi", pair[1], pair[0])


def product_case(what: str, arguments: tuple, change: Tensor, rank: int, form: str) -> Case:
    """A pair of this rank, or a stack of pairs, whose product is this change."""
    *count, _, _ = change.shape
    shapes = [(*count, rank, WIDTH), (*count, WIDTH, rank)]
    expected = Parts({f"the shapes of A and B for {what}": shapes, f"B A for {what}": change})

    def read(pair, *_) -> tuple:
        A, B = pair
        return [tuple(A.shape), tuple(B.shape)], B @ A if A.shape[-2] == B.shape[-1] else None

    return Case(what, arguments, expected, read=read, form=form, tolerance=1e-5)


@exercise(
    "11.1", "B A equals the weighted sum, for two pairs and for three pairs of different ranks"
)
def add_pairs() -> Iterator[Case]:
    """The product of the stack is the weighted sum of the products."""
    for ranks, weights in (((2, 3), [0.7, -0.4]), ((1, 2, 4), [1.5, 0.5, 0.25])):
        pairs = [random_pair(rank) for rank in ranks]
        total = sum(w * change(pair) for w, pair in zip(weights, pairs, strict=True))
        what = f"the sum of pairs of rank {', '.join(map(str, ranks))} with weights {weights}"
        yield product_case(what, (pairs, weights), total, sum(ranks), FORM)


@exercise(
    "11.2", "each product B A is what it was, for pairs of equal and different ranks, and of rank 0"
)
def stack_pairs() -> Iterator[Case]:
    """Product by product, in the order of the pairs."""
    for ranks in ((2, 3), (4, 1, 0), (2, 2)):
        pairs = [random_pair(rank) for rank in ranks]
        products = torch.stack([change(pair) for pair in pairs])
        what = f"the stack of pairs of rank {', '.join(map(str, ranks))}"
        yield product_case(what, (pairs,), products, max(ranks), FORM_2)


def one_by_one(x: Tensor, norm: nn.Module, pairs: list, picks: list[int]) -> Tensor:
    """Normed tokens of one sample after another, each through its own pair."""
    normed = zip(norm(x), picks, strict=True)
    return torch.stack([one + one @ (pairs[k][1] @ pairs[k][0]).T for one, k in normed])


def random_norm() -> nn.Module:
    """A norm that is no other's."""
    norm = nn.LayerNorm(WIDTH)
    nn.init.normal_(norm.weight, 1, 0.3)
    nn.init.normal_(norm.bias)
    return norm


def built(kind: Callable) -> Callable:
    """What a class makes of tokens, with a norm, pairs, and the choice of each sample."""

    def attempt(x: Tensor, norm: nn.Module, pairs: list, which: Tensor) -> Tensor:
        return kind(norm, pairs, which)(x)

    return attempt


def mixed_batches() -> Iterator[Case]:
    """Compared with one sample after another."""
    for ranks, picks in (((2, 0, 3), [2, 0, 2, 1]), ((3, 3), [1, 1]), ((1, 2, 3), [2, 0])):
        x, norm = torch.randn(len(picks), 4, WIDTH, requires_grad=True), random_norm()
        pairs = [random_pair(rank) for rank in ranks]
        yield Case(
            f"{len(picks)} samples with the adapters {picks} of {len(pairs)}",
            (x, norm, pairs, torch.tensor(picks)),
            one_by_one(x, norm, pairs, picks),
            form="return tokens for each sample, with the shape (B, N, d) of x",
            leaves=lambda x, *_: {"x": x},
        )


BEHIND = "behind the norm each sample gets its own pair, in any order and with repetitions, and gradients are right"
exercise("11.3", BEHIND, through=built)(mixed_batches)


@exercise(
    "11.4", "a right, a swapped and a shifted server are told apart, and rows that no adapter gave"
)
def served_with() -> Iterator[Case]:
    """Features are picked from passes with one adapter, with a gap or without."""
    every = torch.ones(WIDTH)
    most, signs, one = every.clone(), every.clone(), 0 * every
    most[0], signs[::2], one[0] = 0, -1, 1
    for picks, gaps, tolerance in (
        ([0, 1, 2], {}, 1e-5),  # in order
        ([1, 0, 2, 2], {2: 3e-6 * one}, 1e-5),  # swapped, up to rounding
        ([2, 0, 1, 0, 1, 2], dict(enumerate(3e-4 * torch.stack([one, most, every, signs]))), 1e-4),
        ([1, 1, 0, 2], {0: -5e-3 * one}, 1e-2),
    ):
        alone = torch.randn(3, len(picks), WIDTH)
        features, expected = torch.stack([alone[k, i] for i, k in enumerate(picks)]), list(picks)
        for i, gap in gaps.items():
            features[i] += gap
            expected[i] = picks[i] if gap.abs().max() < tolerance else -1
        yield Case(
            f"{len(picks)} pictures, served with {expected}, tolerance {tolerance:g}",
            (features, alone, tolerance),
            torch.tensor(expected),
            form="return a whole number for each picture, with the shape (N,)",
        )
