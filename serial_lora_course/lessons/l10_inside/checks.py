"""Checks of the exercises on what is inside an adapter: rank, effective rank, angles.

Matrices are built from singular values, ranks and angles that were chosen first, so the expected
numbers need no decomposition of the kind that the learner writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.linalg import matrix_rank, qr, svdvals

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise

EPS = torch.finfo(torch.float32).eps


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


# ------------------------------------------------------------------------------ the rank of a change


def with_values(rows: int, columns: int, values: list[float]) -> Tensor:
    """A matrix (rows, columns) with these singular values, float64; the others are zero."""
    if not values:
        return torch.zeros(rows, columns)
    count, chosen = len(values), torch.tensor(values, dtype=torch.float64)
    return orthonormal(rows, count) @ torch.diag(chosen) @ orthonormal(columns, count).T


def rank(limit=lambda b, a, values: max(a.shape) * EPS * svdvals(a)[0], of=lambda b, a: a - b):
    """How many values of ``of`` the two matrices are above a limit."""

    def attempt(before, after):
        before, after = before.double(), after.double()
        values = svdvals(of(before, after))
        return int((values > limit(before, after, values)).sum())

    return attempt


@exercise(
    "10.1",
    "five changes hundreds of times smaller than their weights, one of them no change at all",
    {
        "rounding alone lifts values above zero, and they are counted: the threshold is missing, or "
        "it is made with float64's eps instead of float32's": (
            rank(lambda *_: 0),
            rank(lambda b, a, _: max(a.shape) * torch.finfo(torch.float64).eps * svdvals(a)[0]),
        ),
        "the threshold is too low: it is the longer side, max(m, n), times eps, times the largest "
        "singular value": (
            rank(lambda b, a, _: min(a.shape) * EPS * svdvals(a)[0]),
            rank(lambda b, a, _: a.shape[0] * EPS * svdvals(a)[0]),
            rank(lambda b, a, _: EPS * svdvals(a)[0]),
            rank(lambda b, a, _: max(a.shape) * EPS * a.abs().max()),
        ),
        "the threshold goes with the largest value of the change: what was rounded is after, so its "
        "largest value counts": rank(lambda b, a, values: max(a.shape) * EPS * values[0]),
        "one limit for all matrices knows nothing of their size: it goes with the largest singular value of "
        "after": (rank(lambda *_: 1e-4), rank(lambda *_: 1e-5), rank(lambda *_: 1e-6)),
        "that is the rank of after itself: subtract before": rank(of=lambda b, a: a),
        "values below the threshold are counted, not those above": lambda before, after: (
            min(after.shape) - rank()(before, after)
        ),
        "the threshold is too high: it is the longer side times eps, times the largest singular "
        "value of after, not its Frobenius norm": (
            rank(lambda b, a, _: max(a.shape) * EPS * a.norm()),
            rank(lambda b, a, _: sum(a.shape) * EPS * svdvals(a)[0]),
        ),
        "the ranks of before and after are subtracted: subtract the matrices": (
            lambda before, after: abs(int(matrix_rank(after) - matrix_rank(before)))
        ),
    },
)
def rank_of_change() -> Iterator[Case]:
    """The rank of a change that is far smaller than the weights, seen through float32.

    The last value of the two oblong changes lies below the threshold of the larger side, and above
    that of the smaller one; the last of the square one just above the threshold.
    """
    for rows, columns, expected, size, chosen in (
        (48, 48, 4, 1, [0.03, 0.02, 0.01, 7e-5]),
        (30, 50, 3, 1, [0.05, 0.02, 0.01, 3.8e-5]),
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


# --------------------------------------------------------------------------------- effective rank


def exp_entropy(shares: list[float]) -> float:
    """exp of the entropy of shares, summed in a loop."""
    exponent = -math.fsum(share * math.log(share) for share in shares if share > 0)
    return math.exp(exponent) if exponent < 700 else math.inf


def of_shares(shares=lambda v: v / v.sum()):
    """The effective rank with other shares of the values."""
    return lambda values: exp_entropy(shares(values.double()).tolist())


@exercise(
    "10.2",
    "five spectra, with zeros, equal values, a single value and large ones",
    {
        "0 * ln 0 is not a number: leave the zeros out": (
            lambda v: float(torch.exp(-(v / v.sum() * (v / v.sum()).log()).sum()))
        ),
        "the minus in front of the sum is missing": lambda v: 1 / of_shares()(v),
        "that is the entropy: take exp of it": lambda v: math.log(of_shares()(v)),
        "the entropy is in bits but exp has base e: use the natural logarithm": (
            lambda v: of_shares()(v) ** (1 / math.log(2))
        ),
        "2 to the power of an entropy that is in nats: exp belongs to the natural logarithm": (
            lambda v: 2 ** math.log(of_shares()(v))
        ),
        "divided by the largest value: the shares have to add up to one": of_shares(
            lambda v: v / v.max()
        ),
        "the values are not divided by their sum": of_shares(lambda v: v),
        "the squares are taken as shares: here it is the values themselves": of_shares(
            lambda v: v**2 / (v**2).sum()
        ),
        "softmax makes other shares: divide the values by their sum": of_shares(
            lambda v: v.softmax(0)
        ),
        "that is one over the sum of the squared shares, another count of directions": (
            lambda v: float(v.sum() ** 2 / (v**2).sum())
        ),
        "that is how many values are not zero: the rank": lambda v: float((v > 0).sum()),
    },
)
def effective_rank_of() -> Iterator[Case]:
    """Hand-made spectra; the entropy is summed in a loop."""
    for what, values in {
        "two values and two zeros": [3.0, 1, 0, 0],
        "four equal values": [1.0, 1, 1, 1],
        "five falling values": [8.0, 4, 2, 1, 1],
        "a single value": [0.02],
        "two large values and a small one": [400.0, 100, 2],
    }.items():
        yield Case(
            f"the effective rank of {what}",
            (torch.tensor(values),),
            exp_entropy([value / math.fsum(values) for value in values]),
            advice="shares of the sum, minus the sum of p ln p, then exp",
            nan="0 * ln 0 is not a number: leave the zeros out",
            tolerance=1e-4,
        )


# ----------------------------------------------------------------------------------------- angles

ABOVE_ONE = "a cosine that is rounded to above 1 has no arccosine: clamp(max=1) first, and take the arccosine of cosines only"


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosines of the angles between two spaces, the largest first."""
    return svdvals(qr(one).Q.T @ qr(other).Q).clamp(max=1)


def degrees(cosines: Tensor) -> Tensor:
    """Angles of cosines, in degrees."""
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))


@exercise(
    "10.3",
    "subspaces that were turned by chosen angles, from 0 to 90 degrees",
    {
        "the diagonal of Q1^T Q2 compares single columns: take its singular values": (
            lambda a, b: degrees((qr(a).Q.T @ qr(b).Q).diagonal())
        ),
        "radians: torch.rad2deg makes degrees of them": lambda a, b: torch.arccos(cosines(a, b)),
        "the largest comes first: the smallest is wanted first": (
            lambda a, b: degrees(cosines(a, b)).flip(0)
        ),
        "those are the cosines: take the arccosine": cosines,
        "those are the sines' angles: singular values of Q1^T Q2 are cosines": (
            lambda a, b: 90 - degrees(cosines(a, b))
        ),
        "the columns are not orthonormal: use the Q of their QR": (
            lambda a, b: degrees(svdvals(a.T @ b))
        ),
        "columns of length one are not yet at right angles: use the Q of their QR": (
            lambda a, b: degrees(svdvals((a / a.norm(dim=0)).T @ (b / b.norm(dim=0))))
        ),
        ABOVE_ONE: lambda a, b: torch.rad2deg(torch.arccos(svdvals(qr(a).Q.T @ qr(b).Q))),
    },
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
            f"the angles of {count} turned directions, in degrees",
            (mixed(own), mixed(other)),
            expected,
            nan=ABOVE_ONE,
            advice="orthonormal columns by QR, singular values of Q1^T Q2, their arccosines in degrees",
            tolerance=1e-5,
        )


def mixed(columns: Tensor) -> Tensor:
    """Other columns, of other lengths, that span the same space."""
    count = columns.shape[1]
    mixing = torch.randn(count, count, dtype=torch.float64) + 3 * torch.eye(count)
    return columns @ (mixing * torch.linspace(0.5, 4, count))
