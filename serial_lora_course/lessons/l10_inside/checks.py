"""Checks of the exercises on what is inside an adapter: rank, effective rank, angles.

Matrices are built from singular values, ranks and angles that were chosen first, so the expected
numbers need no decomposition of the kind that the learner writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from serial_lora_course.checking.case import Case
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
    "the rank is right for changes hundreds of times smaller than their weights, and for no change at all",
)
def rank_of_change() -> Iterator[Case]:
    """The rank of a change that is far smaller than the weights, seen through float32.

    The last value of the two oblong changes lies below the threshold of the larger side, and above
    that of the smaller one; the last of the square one just above the threshold.
    """
    for rows, columns, expected, size, chosen in (
        (48, 48, 4, 1, [0.03, 0.02, 0.01, 7e-5]),
        (30, 50, 3, 1, [0.05, 0.02, 0.01, 4.3e-5]),  # the threshold is 4.8e-5
        (40, 30, 4, 1, [0.5, 0.3, 0.2, 1e-4]),
        (48, 48, 3, 1, [2e-3, 1e-3, 9e-4, 3e-5]),
        (60, 24, 6, 1, [0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 4e-5]),
        (20, 20, 0, 1, []),
        (24, 24, 3, 0.001, [3e-6, 2e-6, 3e-7]),  # small weights: a limit of their own
    ):
        full = min(rows, columns) // (1 if rows == columns else 2)  # values above zero
        before = with_values(rows, columns, [size * (8 - 0.1 * i) for i in range(full)]).float()
        after = (before.double() + with_values(rows, columns, chosen)).float()
        yield Case(
            f"the rank of a change at {rows}x{columns} with {expected} values above the threshold",
            (before, after),
            expected,
            advice="count the singular values of after - before that are above "
            "max(m, n) * eps * (largest singular value of after), with float32's eps",
        )


@exercise(
    "10.2",
    "the effective rank is right for seven spectra, with zeros, equal, large and small values, and a "
    "single one",
)
def effective_rank_of() -> Iterator[Case]:
    """Hand-made spectra; the entropy is summed in a loop."""
    for what, values in {
        "two values and two zeros": [3.0, 1, 0, 0],
        "four equal values": [1.0, 1, 1, 1],
        "five falling values": [8.0, 4, 2, 1, 1],
        "a single value": [0.02],
        "two large values and a small one": [400.0, 100, 2],
        "sixteen small values": [0.09 - 0.005 * i for i in range(16)],
        "values that fall by powers of ten": [1.0, 1e-2, *[1e-4] * 20],
    }.items():
        shares = [value / math.fsum(values) for value in values]
        entropy = -math.fsum(share * math.log(share) for share in shares if share > 0)
        yield Case(
            f"the effective rank of {what}",
            (torch.tensor(values),),
            math.exp(entropy),
            advice="divide the values by their sum, take minus the sum of p ln p, then exp",
            nan="0 * ln 0 gives nan: leave the zeros out",
            tolerance=1e-4,
        )


def mixed(columns: Tensor) -> Tensor:
    """Other columns, of other lengths, that span the same space."""
    count = columns.shape[1]
    mixing = torch.randn(count, count, dtype=torch.float64) + 3 * torch.eye(count)
    return columns @ (mixing * torch.linspace(0.02, 0.16, count))  # short: no cosine above 1


@exercise(
    "10.3", "the angles are right for subspaces rotated by chosen angles, from 0 to 90 degrees"
)
def angles_between() -> Iterator[Case]:
    """Subspaces that were turned by chosen angles, given by columns that are mixed and scaled."""
    chosen = (([10.3, 40.7, 75.2], 9, 0), ([0.0, 30.4], 6, 2), ([90.0], 5, 0))
    unturned = [([0.0, 0.0, 0.0, 30.0], 12, 0)] * 8  # some of whose cosines are rounded to above 1
    for angles, size, more in (*chosen, *unturned):
        count, expected = len(angles), torch.tensor(angles, dtype=torch.float64)
        basis, turns = orthonormal(size, 2 * count + more), torch.deg2rad(expected)
        own, away = basis[:, :count], basis[:, count : 2 * count]
        other = torch.cat([own * turns.cos() + away * turns.sin(), basis[:, 2 * count :]], dim=1)
        yield Case(
            f"the angles of {count} rotated directions, in degrees",
            (mixed(own), mixed(other)),
            expected,
            nan="rounding can lift a cosine above 1, where the arccosine is nan: use clamp(max=1) first, and "
            "take the arccosine of nothing but cosines",
            advice="make both column sets orthonormal by QR, and take the arccosines of the singular values of Q1^T Q2, in degrees",
            tolerance=1e-5,
        )
