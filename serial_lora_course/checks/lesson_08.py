"""Checks of lesson 08: rank of a change, spectrum of a product, between, effective rank, angles.

Matrices are built from singular values, ranks and angles that were chosen first, so the expected
numbers need no decomposition of the kind that the learner writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.linalg import qr, svdvals
from torch.overrides import TorchFunctionMode

from serial_lora_course.checking.message import require
from serial_lora_course.checks.cases import Case
from serial_lora_course.checks.checking import exercise

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


def with_values(rows: int, columns: int, values: list[float]) -> Tensor:
    """A matrix (rows, columns) with these singular values, float64; the others are zero."""
    if not values:
        return torch.zeros(rows, columns)
    chosen, count = torch.tensor(values, dtype=torch.float64), len(values)
    return orthonormal(rows, count) @ torch.diag(chosen) @ orthonormal(columns, count).T


def mixing(count: int) -> Tensor:
    """A matrix that mixes columns, but does not change the space that they span."""
    return torch.randn(count, count, dtype=torch.float64) + 3 * torch.eye(count)


@exercise(
    "8.1", "four changes hundreds of times smaller than their weights, one of them no change at all"
)
def rank_of_change() -> Iterator[Case]:
    """The rank of a change that is far smaller than the weights, seen through float32.

    The last value of the two oblong changes lies below the threshold of the larger side, and above
    that of the smaller one; the last of the square one just above the threshold.
    """
    cases = [
        (48, 48, 4, [0.03, 0.02, 0.01, 7e-5]),
        (30, 50, 3, [0.05, 0.02, 0.01, 3.8e-5]),
        (60, 24, 6, [0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 4e-5]),
        (20, 20, 0, []),
    ]
    for rows, columns, rank, chosen in cases:
        full = min(rows, columns) // (1 if rows == columns else 2)  # values above zero
        weight = with_values(rows, columns, [8 - 0.1 * i for i in range(full)])
        before = weight.float()
        after = (before.double() + with_values(rows, columns, chosen)).float()
        values, whole = svdvals(after.double() - before.double()), svdvals(after.double())
        threshold = max(rows, columns) * EPS * whole[0]
        ranks = [int((svdvals(each.double()) > threshold).sum()) for each in (before, after)]
        above = {
            "rounding alone lifts values above zero, and they are counted: the threshold is "
            "missing, or it is made with float64's eps instead of float32's": values > 0,
            "the threshold is too low: the larger of the two sides, max(m, n), is a factor of it": (
                values > threshold * min(rows, columns) / max(rows, columns)
            ),
            "the threshold goes with the largest value of the change: what was rounded is after, "
            "so its largest value counts": values > max(rows, columns) * EPS * values[0],
            "that is the rank of after itself: subtract before": whole > threshold,
            "values below the threshold are counted, not those above": values <= threshold,
            "the threshold is too high: max(m, n) and the largest singular value of after make it, "
            "not the number of entries and not the Frobenius norm": (
                values > max(rows, columns) * EPS * whole.norm()
            ),
        }
        counts = {cause: int(counted.sum()) for cause, counted in above.items()}
        counts["the ranks of before and after are subtracted: subtract the matrices"] = abs(
            ranks[1] - ranks[0]
        )
        yield Case(
            f"the rank of a change at {rows}x{columns}, far smaller than W, with {rank} values "
            "above the threshold",
            (before, after),
            rank,
            counts,
            otherwise="count the singular values of after - before that are above "
            "max(m, n) * eps * (largest singular value of after), with float32's eps",
        )


class LargestResult(TorchFunctionMode):
    """Notes the number of entries of the largest tensor that any call returns."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.numel())
        return result

    def require_less(self, rows: int, columns: int) -> None:
        """No tensor had the size of the product."""
        require(
            self.entries < rows * columns,
            "the largest tensor that was made",
            f"at most {rows} x 2",
            f"{self.entries} entries",
            "right values, but the (m, n) product is made: QR of left and of right.T gives an "
            "(r, r) matrix with the same values",
        )


@exercise("8.2", "three spectra that were chosen first, and that no (m, n) matrix was made")
def product_spectrum() -> Iterator[Case]:
    """The chosen singular values of a product, found without making the product."""
    for rows, columns, values in (
        (12, 9, [5.0, 2.0, 0.5]),
        (7, 15, [3.0, 1.0, 0.2, 0.01]),
        (20, 20, [4.0]),
    ):
        rank, expected = len(values), torch.tensor(values, dtype=torch.float64)
        mix = mixing(rank)
        left = orthonormal(rows, rank) @ torch.diag(expected) @ mix
        right = torch.linalg.inv(mix) @ orthonormal(columns, rank).T
        one, other = qr(left).R, qr(right.T).R
        causes = {
            "one of the triangles has to be transposed: R1 R2^T": svdvals(one @ other),
            "the singular values of the two factors are multiplied: that is right only where "
            "their directions fit": svdvals(left) * svdvals(right),
            "QR of right gives a wide triangle: take that of right.T": svdvals(one @ qr(right).R),
            "those are the values of left alone": svdvals(left),
            "those are the values of right alone": svdvals(right),
            "the smallest comes first: the largest is wanted first": expected.flip(0),
            "those are the squares, the eigenvalues: take the root": expected**2,
            "there are zeros behind the r values: an (m, n) matrix was decomposed": (
                torch.cat([expected, torch.zeros(min(rows, columns) - rank)])
            ),
            "the diagonals of the triangles are no singular values": (
                (one.diag() * other.diag()).abs()
            ),
        }
        what = f"the spectrum of a product {rows}x{rank} times {rank}x{columns}"
        yield Case(what, (left, right), expected, causes, tolerance=1e-8)
    rows, columns, seen = 300, 200, LargestResult()
    left, right = torch.zeros(rows, 2), torch.zeros(2, columns)
    left[3, 0], left[5, 1] = 2.0, 3.0
    right[0, 11], right[1, 7] = 5.0, 0.5
    yield Case(
        f"the spectrum of a product of {rows}x2 and 2x{columns}",
        (left, right),
        torch.tensor([10.0, 1.5]),
        during=seen,
        after=lambda: seen.require_less(rows, columns),
    )


@exercise("8.3", "counted index by index, with outer curves that cross and with ties")
def share_in_between() -> Iterator[Case]:
    """The share, counted index by index."""
    cases = {
        "the middle above, below and inside": ([1.0, 1, 1, 1], [2.0, 0, 4, 2], [3.0, 3, 3, 3]),
        "outer curves that cross": ([5.0, 4, 3, 2, 1], [4.5, 3.5, 3.2, 2.8, 4], [4.0, 3, 4, 3, 5]),
        "ties": ([2.0, 2, 2, 2], [2.0, 1, 1.5, 1.7], [1.0, 1, 1, 1]),
        "always": ([3.0, 2], [2.0, 1.5], [1.0, 1]),
        "curves that all fall": ([9.0, 6, 3, 1], [7.0, 4, 2.5, 0.7], [8.0, 5, 2, 0.5]),
    }
    for what, curves in cases.items():
        one, middle, other = curves
        triples, count = list(zip(*curves, strict=True)), len(one)
        inside = sum(min(a, c) < b < max(a, c) for a, b, c in triples)
        lowest, highest = min(one + other), max(one + other)
        counts = {
            "each value is compared with the smallest and the largest of all: compare it with the "
            "two of its own index": sum(lowest < b < highest for b in middle),
            "only one order is counted, the rising one: sometimes one is above, sometimes other": (
                sum(a < b < c for a, b, c in triples)
            ),
            "only one order is counted, the falling one: sometimes one is above, sometimes other": (
                sum(a > b > c for a, b, c in triples)
            ),
            "ties are counted: strictly between": sum(
                min(a, c) <= b <= max(a, c) for a, b, c in triples
            ),
            "one of two conditions is enough here: both are needed": sum(
                b > min(a, c) or b < max(a, c) for a, b, c in triples
            ),
            "nearness is counted, on either side: the middle has to be between": sum(
                abs(b - a) < abs(c - a) for a, b, c in triples
            ),
            "that is the share outside": count - inside,
        }
        causes = {cause: number / count for cause, number in counts.items()}
        causes |= {
            "that is how many, not which share: divide by their number": inside,
            "that is a percentage: a share is between 0 and 1": 100 * inside / count,
        }
        yield Case(
            f"the share for {what}",
            tuple(map(torch.tensor, curves)),
            inside / count,
            causes,
            otherwise="index by index: min(one, other) < middle < max(one, other)",
        )


def exp_entropy(shares: Sequence[float]) -> float:
    """exp of the entropy of shares, summed in a loop."""
    exponent = -math.fsum(share * math.log(share) for share in shares if share > 0)
    return math.exp(exponent) if exponent < 700 else math.inf


@exercise("8.4", "five spectra, with zeros, equal values, a single value and large ones")
def effective_rank_of() -> Iterator[Case]:
    """Hand-made spectra; the entropy is summed in a loop."""
    cases = {
        "four equal values": [1.0, 1, 1, 1],
        "five falling values": [8.0, 4, 2, 1, 1],
        "two values and two zeros": [3.0, 1, 0, 0],
        "a single value": [0.02],
        "two large values and a small one": [400.0, 100, 2],
    }
    for what, values in cases.items():
        largest, total = max(values), math.fsum(values)
        squares = [value**2 for value in values]
        expected = exp_entropy([value / total for value in values])
        causes = {
            "the minus in front of the sum is missing": 1 / expected,
            "that is the entropy: take exp of it": math.log(expected),
            "the entropy is in bits but exp has base e: use the natural logarithm": (
                expected ** (1 / math.log(2))
            ),
            "divided by the largest value: the shares have to add up to one": exp_entropy(
                [value / largest for value in values]
            ),
            "the values are not divided by their sum": exp_entropy(values),
            "the squares are taken as shares: here it is the values themselves": exp_entropy(
                [square / math.fsum(squares) for square in squares]
            ),
            "2 to the power of an entropy that is in nats: exp belongs to the natural logarithm": (
                2 ** math.log(expected)
            ),
            "divided by the root of the sum of squares: the shares have to add up to one": (
                exp_entropy([value / math.sqrt(math.fsum(squares)) for value in values])
            ),
            "that is one over the sum of the squared shares, another count of directions": (
                total**2 / math.fsum(squares)
            ),
            "that is the stable rank, sum of squares over the largest square": (
                math.fsum(squares) / largest**2
            ),
            "that is how many values are not zero: the rank": float(sum(map(bool, values))),
        }
        yield Case(
            f"the effective rank of {what}",
            (torch.tensor(values),),
            expected,
            causes,
            otherwise="shares of the sum, minus the sum of p ln p, then exp",
            nan="0 * ln 0 is not a number: leave the zeros out",
            tolerance=1e-4,
        )


@exercise("8.5", "subspaces that were turned by chosen angles, from 0 to 90 degrees")
def angles_between() -> Iterator[Case]:
    """Subspaces that were turned by chosen angles, given by columns that are mixed and scaled."""
    unturned = [([0.0, 0.0, 0.0, 30.0], 12, 0)] * 8  # some of whose cosines are rounded to above 1
    cases = (([10.3, 40.7, 75.2], 9, 0), ([0.0, 30.4], 6, 2), ([90.0], 5, 0), *unturned)
    for degrees, size, more in cases:
        count, expected = len(degrees), torch.tensor(degrees, dtype=torch.float64)
        basis, turns = orthonormal(size, 2 * count + more), torch.deg2rad(expected)
        own, away = basis[:, :count], basis[:, count : 2 * count]
        turned = own * turns.cos() + away * turns.sin()  # (n, count), orthonormal again
        wider = torch.cat([turned, basis[:, 2 * count :]], dim=1)
        one, other = (
            columns @ (mixing(len(columns.T)) * torch.linspace(0.5, 4, len(columns.T)))
            for columns in (own, wider)
        )

        def in_degrees(one: Tensor, other: Tensor) -> Tensor:
            return torch.rad2deg(torch.arccos(svdvals(one.T @ other).clamp(max=1)))

        beside = (qr(one).Q.T @ qr(other).Q).diagonal().clamp(-1, 1)
        causes = {
            "the diagonal of Q1^T Q2 compares single columns: take its singular values": (
                torch.rad2deg(torch.arccos(beside))
            ),
            "radians: torch.rad2deg makes degrees of them": turns,
            "the largest comes first: the smallest is wanted first": expected.flip(0),
            "those are the cosines: take the arccosine": turns.cos(),
            "those are the sines' angles: singular values of Q1^T Q2 are cosines": 90 - expected,
            "the columns are not orthonormal: use the Q of their QR": in_degrees(one, other),
            "columns of length one are not yet at right angles: use the Q of their QR": in_degrees(
                one / one.norm(dim=0), other / other.norm(dim=0)
            ),
        }
        what = f"the angles of {count} turned directions, in degrees"
        yield Case(
            what,
            (one, other),
            expected,
            causes,
            nan="a cosine that is rounded to above 1 has no arccosine: clamp(max=1) first, and "
            "take the arccosine of cosines only",
            otherwise="orthonormal columns by QR, the singular values of Q1^T Q2, their arccosines "
            "in degrees",
            tolerance=1e-5,
        )
