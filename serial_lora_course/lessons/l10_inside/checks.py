"""Checks of the exercises on what is inside an adapter: rank, the adapter itself, overlap, and its making.

Matrices are built from singular values, ranks, angles and pairs that were chosen first, so the expected
numbers need no decomposition of the kind that the learner writes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


def orthonormal(rows: int, columns: int) -> Tensor:
    """Random orthonormal columns, float64, by Gram and Schmidt: (rows, columns)."""
    basis: list[Tensor] = []
    for _ in range(columns):
        vector = torch.randn(rows, dtype=torch.float64)
        for _ in range(2):  # the second time takes the rounding of the first away
            for known in basis:
                vector = vector - known * (known @ vector)
        basis.append(vector / vector.norm())
    return torch.stack(basis, dim=1)


def with_values(rows: int, columns: int, values: list[float]) -> Tensor:
    """A matrix (rows, columns) with these singular values, float64; the others are zero."""
    if not values:
        return torch.zeros(rows, columns)
    count, chosen = len(values), torch.tensor(values, dtype=torch.float64)
    return orthonormal(rows, count) @ torch.diag(chosen) @ orthonormal(columns, count).T


@exercise(
    "10.1",
    "the cliff is found in float32, float16 and bfloat16, in square and oblong matrices, and where part of a "
    "matrix never changed",
)
def rank_of_change() -> Iterator[Case]:
    """The rank of a change, seen through rounding.

    Values of three powers of ten refuse every share of the largest one as a threshold, and a row and a
    column of zeros make the very last fall the largest.
    """
    for rows, columns, values, kind, padding in (
        (48, 48, [3.0, 0.5, 0.4, 0.3], torch.float32, 0),
        (30, 50, [1.0, 0.1, 0.01, 2e-3], torch.float32, 0),
        (60, 24, [0.9, 0.8, 0.7], torch.bfloat16, 0),
        (40, 40, [0.3, 0.2, 0.1, 0.05, 0.04], torch.float16, 0),
        (28, 28, [0.5], torch.float32, 0),
        (24, 24, [2.0, 1.5], torch.bfloat16, 1),
    ):
        before = with_values(rows, columns, [4 - 0.05 * i for i in range(min(rows, columns))])
        after = before + with_values(rows, columns, values)
        edge = (0, padding, 0, padding)  # zeros, which no training moved
        before, after = (torch.nn.functional.pad(each, edge).to(kind) for each in (before, after))
        yield Case(
            f"the rank of a change of rank {len(values)} at {rows}x{columns}, in {kind}",
            (before, after),
            len(values),
            advice="divide each singular value of after - before by the next, look for the largest "
            "fall in the first half, and count the values in front of it",
            error="singular values need float64 here: after.double() - before.double()",
        )


@exercise(
    "10.2",
    "B A is the product that was merged, for several widths and ranks, through rounding, and where none of "
    "W_q, W_k and W_v has an inverse",
)
def recover_pair() -> Iterator[Case]:
    """Pairs that were chosen, merged, and rounded a little; once each weight alone is singular."""
    for width, rank, singular in ((8, 2, False), (12, 3, True), (9, 1, False)):
        before = torch.randn(3 * width, width, dtype=torch.float64)
        if singular:
            before[::width] = before[1::width]  # two equal rows in each of the three
        A, B = (
            torch.randn(*shape, dtype=torch.float64) for shape in ((rank, width), (width, rank))
        )
        product = torch.einsum("or,ri->oi", B, A)
        rounding = 1e-7 * torch.randn(3 * width, width, dtype=torch.float64)
        after = before + torch.einsum("ko,oi->ki", before, product) + rounding
        shapes = f"the shapes of A and B at rank {rank}"
        yield Case(
            f"the pair of rank {rank} at width {width}",
            (before, after, rank),
            Parts({shapes: [(rank, width), (width, rank)], f"B A at rank {rank}": product}),
            read=lambda pair, *_: (
                [tuple(each.shape) for each in pair],
                pair[1] @ pair[0] if pair[0].shape[0] == pair[1].shape[-1] else None,
            ),
            form="return A (r, d), then B (d, r)",
            tolerance=1e-4,
        )


def mixed(columns: Tensor) -> Tensor:
    """Other columns, of other lengths, that span the same space."""
    count = columns.shape[1]
    mixing = torch.randn(count, count, dtype=torch.float64) + 3 * torch.eye(count)
    return columns @ (mixing * torch.linspace(0.02, 0.16, count))


@exercise(
    "10.3",
    "the overlap is right for subspaces rotated by chosen angles, from 0 to 90 degrees, of one size and of two",
)
def overlap() -> Iterator[Case]:
    """Subspaces that were turned by chosen angles, given by columns that are mixed and scaled."""
    for angles, size, first, second in (
        ([10.3, 40.7, 75.2], 9, 0, 0),
        ([0.0, 30.4], 6, 0, 2),
        ([20.6, 50.1], 8, 3, 0),
        ([90.0], 5, 0, 0),
    ):
        count, expected = len(angles), torch.tensor(angles, dtype=torch.float64)
        basis, turns = orthonormal(size, 2 * count + first + second), torch.deg2rad(expected)
        own, away, more = basis.split([count, count, first + second], dim=1)
        one = torch.cat([own, more[:, :first]], dim=1)  # what is added is at right angles to all
        other = torch.cat([own * turns.cos() + away * turns.sin(), more[:, first:]], dim=1)
        yield Case(
            f"the overlap of {count + first} directions with {count + second}, in {size} dimensions",
            (mixed(one), mixed(other)),
            float(turns.cos().square().sum()) / (count + first),
            advice="make both column sets orthonormal by QR, and average the squared lengths of the columns of Q2^T Q1",
            tolerance=1e-5,
        )


def fresh(seed: int, rank: int) -> Tensor:
    """A before training (rank, 24), of a seed."""
    numbers = torch.Generator().manual_seed(100 * seed + rank)
    return torch.randn(rank, 24, generator=numbers, dtype=torch.float64)


def only_method(said: tuple, *_: object) -> tuple:
    """What counts of "cannot say": not the rank, nor the seed."""
    return said[:1]


@exercise(
    "10.4",
    "method, rank and seed are found in files of both methods, in float16, at several ranks and for the first and "
    "the last seed, also of a LoRA with one A for q, k and v; and nothing is said of a change without a cliff",
)
def how_it_was_made() -> Iterator[Case]:
    """Pairs whose A moved a little from its start, merged in front of W or beside it, then rounded."""
    for method, rank, seed in (
        ("Serial LoRA", 2, 4),
        ("LoRA", 3, 0),
        ("LoRA", 2, 9),
        ("Serial LoRA", 4, 6),
        ("one A", 3, 5),
        ("no cliff", 0, 0),
    ):
        width, parts = 24, torch.randn(3, 24, 24, dtype=torch.float64)
        A = torch.stack([fresh(seed, rank), *torch.randn(2, rank, width, dtype=torch.float64)])
        A = A + 0.2 * torch.randn(3, rank, width, dtype=torch.float64)
        A = A[:1].expand_as(A) if method == "one A" else A
        B = torch.randn(3, width, rank, dtype=torch.float64)
        if method == "Serial LoRA":
            changed = parts + torch.einsum("pok,kr,ri->poi", parts, B[0], A[0])
        elif method == "no cliff":
            changed = parts + torch.randn(3, width, width, dtype=torch.float64)
        else:
            changed = parts + torch.einsum("por,pri->poi", B, A)
        before, after = (each.reshape(3 * width, width).half() for each in (parts, changed))
        told = {"method": "LoRA" if method == "one A" else method, "rank": rank, "seed": seed}
        if method == "no cliff":
            told = {"method": "cannot say"}  # what it says of rank and seed does not count
        yield Case(
            f"a file of {method}",
            (before, after, fresh),
            Parts({f"the {what}, {method}": x for what, x in told.items()}),
            read=only_method if len(told) == 1 else None,
            form="return three things: the method, the rank of a pair, the seed",
        )
