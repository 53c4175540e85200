"""Checks of lesson 08: rank of a change, spectrum of a product, between, effective rank, angles.

Matrices are built from singular values, ranks and angles that were chosen first, so the expected
numbers need no decomposition of the kind that the learner writes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from serial_lora_course.checks.checking import (
    call,
    exercise,
    require,
    require_close,
    require_equal,
    require_returned,
)

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
    chosen = torch.tensor(values, dtype=torch.float64)
    count = len(values)
    return orthonormal(rows, count) @ torch.diag(chosen) @ orthonormal(columns, count).T


@exercise("8.1")
def rank_of_change(attempt) -> str:
    """The rank of a change that is far smaller than the weights, seen through float32.

    The last value of the two oblong changes lies below the threshold of the larger side, and above
    that of the smaller one.
    """
    cases = [
        (48, 48, 4, [0.03, 0.02, 0.01, 0.01]),
        (30, 50, 3, [0.05, 0.02, 0.01, 3.8e-5]),
        (60, 24, 6, [0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 4e-5]),
        (20, 20, 0, []),
    ]
    for rows, columns, rank, values in cases:
        weight = with_values(rows, columns, [8 - 0.1 * i for i in range(min(rows, columns) // 2)])
        change = with_values(rows, columns, values) if values else torch.zeros(rows, columns)
        before, after = weight.float(), (weight.float().double() + change).float()
        kept = before.clone(), after.clone()
        got = call(attempt, before, after, what=f"a change at {rows}x{columns}")
        what = (
            f"the rank of a change at {rows}x{columns}, far smaller than W, "
            f"with {rank} values above the threshold"
        )
        _refuse_other_kinds(what, got, rank)
        require_equal(
            what,
            got,
            rank,
            _rank_suspects(before, after, rank),
            otherwise="count the singular values of after - before that are above "
            "max(m, n) * eps * (largest singular value of after), with float32's eps",
        )
        require(
            torch.equal(before, kept[0]) and torch.equal(after, kept[1]),
            "the weights that came in",
            "as before",
            "changed",
            "the weights were changed in place: make new tensors",
        )
    return "four changes hundreds of times smaller than their weights, one of them no change at all"


def _refuse_other_kinds(what: str, got, expected: int) -> None:
    if isinstance(got, Tensor) and got.numel() > 1:
        require(
            False,
            what,
            expected,
            got,
            "that is a tensor with a value for each direction: count them with .sum()",
        )


def _rank_suspects(before: Tensor, after: Tensor, rank: int) -> dict[str, int]:
    difference = after.double() - before.double()
    values = torch.linalg.svdvals(difference)
    size, largest = max(after.shape), torch.linalg.svdvals(after.double())[0]
    suspects = {
        "rounding alone lifts values above zero, and they are counted: the threshold is missing, "
        "or it is made with float64's eps instead of float32's": int((values > 0).sum()),
        "the threshold is too low: the larger of the two sides, max(m, n), is a factor of it": int(
            (values > min(after.shape) * EPS * largest).sum()
        ),
        "the threshold goes with the largest value of the change: what was rounded is after, so "
        "its largest value counts": int((values > size * EPS * values[0]).sum()),
        "that is the rank of after itself: subtract before": int(
            (torch.linalg.svdvals(after.double()) > size * EPS * largest).sum()
        ),
        "values below the threshold are counted: those above it are wanted": int(
            (values <= size * EPS * largest).sum()
        ),
    }
    return {cause: value for cause, value in suspects.items() if value != rank}


@exercise("8.2")
def product_spectrum(attempt) -> str:
    """The chosen singular values of a product, found without making the product."""
    for rows, columns, values in (
        (12, 9, [5.0, 2.0, 0.5]),
        (7, 15, [3.0, 1.0, 0.2, 0.01]),
        (20, 20, [4.0]),
    ):
        rank = len(values)
        mixing = torch.randn(rank, rank, dtype=torch.float64) + 3 * torch.eye(rank)
        left = orthonormal(rows, rank) @ torch.diag(torch.tensor(values).double()) @ mixing
        right = torch.linalg.inv(mixing) @ orthonormal(columns, rank).T
        expected = torch.tensor(values, dtype=torch.float64)
        got = call(attempt, left, right)
        triangles = [torch.linalg.qr(left).R, torch.linalg.qr(right.T).R]
        own = [torch.linalg.svdvals(matrix) for matrix in (left, right)]
        dense = torch.zeros(min(rows, columns), dtype=torch.float64)
        dense[:rank] = expected
        suspects = {
            "one of the triangles has to be transposed: R1 R2^T": (
                torch.linalg.svdvals(triangles[0] @ triangles[1])
            ),
            "the singular values of the two factors are multiplied: that is right only where "
            "their directions fit": own[0] * own[1],
            "QR of right as it comes gives a wide triangle: take that of right.T": (
                torch.linalg.svdvals(triangles[0] @ torch.linalg.qr(right).R)
            ),
            "those are the values of left alone": own[0],
            "those are the values of right alone": own[1],
            "the smallest comes first: the largest is wanted first": expected.flip(0),
            "those are the squares, the eigenvalues: take the root": expected**2,
            "there are zeros behind the r values: an (m, n) matrix was decomposed": dense,
            "the diagonals of the triangles are no singular values": (
                triangles[0].diag() * triangles[1].diag()
            ).abs(),
        }
        suspects = {
            c: v
            for c, v in suspects.items()
            if v.shape != expected.shape or not torch.allclose(v, expected)
        }
        require_close(
            f"the spectrum of a product {rows}x{rank} times {rank}x{columns}",
            got,
            expected,
            suspects,
            tolerance=1e-8,
        )
    _require_thin(attempt)
    return "three spectra that were chosen first, and that no (m, n) matrix was made"


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


def _require_thin(attempt) -> None:
    rows, columns = 300, 200
    left, right = torch.zeros(rows, 2), torch.zeros(2, columns)
    left[3, 0], left[5, 1] = 2.0, 3.0
    right[0, 11], right[1, 7] = 5.0, 0.5
    what = f"the spectrum of a product of {rows}x2 and 2x{columns}"
    with LargestResult() as seen:
        got = call(attempt, left, right)
    require_close(what, got, torch.tensor([10.0, 1.5]))
    require(
        seen.entries < rows * columns,
        "the largest tensor that was made",
        f"at most {rows} x 2",
        f"{seen.entries} entries",
        "right values, but the (m, n) product is made: QR of left and of right.T gives an (r, r) "
        "matrix with the same values",
    )


@exercise("8.3")
def share_in_between(attempt) -> str:
    """The share, counted index by index."""
    cases = [
        ("the middle above, below and inside", [1.0, 1, 1, 1], [2.0, 0, 4, 2], [3.0, 3, 3, 3]),
        ("outer curves that cross", [5.0, 4, 3, 2, 1], [4.5, 3.5, 3.2, 2.8, 4], [4.0, 3, 4, 3, 5]),
        ("ties", [2.0, 2, 2, 2], [2.0, 1, 1.5, 1.7], [1.0, 1, 1, 1]),
        ("always", [3.0, 2], [2.0, 1.5], [1.0, 1]),
        ("curves that all fall", [9.0, 6, 3, 1], [7.0, 4, 2.5, 0.7], [8.0, 5, 2, 0.5]),
    ]
    for what, one, middle, other in cases:
        triples = list(zip(one, middle, other, strict=True))
        inside = sum(min(a, c) < b < max(a, c) for a, b, c in triples)
        expected = inside / len(triples)
        lowest, highest = min(one + other), max(one + other)
        counts = {
            "each value is compared with the smallest and the largest of all: compare it with the "
            "two of its own index": [sum(lowest < b < highest for b in middle)],
            "only one order is counted: sometimes one is above, sometimes other": [
                sum(a < b < c for a, b, c in triples),
                sum(a > b > c for a, b, c in triples),
            ],
            "ties are counted: strictly between": [
                sum(min(a, c) <= b <= max(a, c) for a, b, c in triples)
            ],
            "one of two conditions is enough here: both are needed": [
                sum(b > min(a, c) or b < max(a, c) for a, b, c in triples)
            ],
            "nearness is counted, on either side: the middle has to be between": [
                sum(abs(b - a) < abs(c - a) for a, b, c in triples)
            ],
            "that is the share outside": [len(triples) - inside],
        }
        got = call(attempt, *(torch.tensor(values) for values in (one, middle, other)))
        got = _number(f"the share for {what}", got, expected)
        if abs(got - expected) > 1e-6:
            matching = [
                cause
                for cause, values in counts.items()
                if any(abs(got - value / len(triples)) < 1e-6 for value in values)
            ]
            if abs(got - inside) < 1e-6:
                matching.insert(0, "that is how many, not which share: divide by their number")
            if abs(got - 100 * expected) < 1e-4:
                matching.insert(0, "that is a percentage: a share is between 0 and 1")
            require(
                False,
                f"the share for {what}",
                expected,
                got,
                matching[0]
                if matching
                else "index by index: min(one, other) < middle < max(one, other)",
            )
    return "counted index by index, with outer curves that cross and with ties"


def _number(what: str, got, expected: float) -> float:
    """The plain number that was asked for; a tensor or nothing is named as such."""
    require_returned(what, got, expected)
    require(
        not isinstance(got, Tensor),
        what,
        expected,
        got,
        "still a tensor: .item() makes a plain number of it"
        if isinstance(got, Tensor) and got.numel() == 1
        else "that is a tensor with a value for each index: take the mean",
    )
    require(isinstance(got, (int, float)), what, expected, got, "a plain number is wanted")
    return float(got)


@exercise("8.4")
def effective_rank_of(attempt) -> str:
    """Hand-made spectra; the entropy is summed in a loop."""
    cases = [
        ([1.0, 1, 1, 1], "four equal values"),
        ([8.0, 4, 2, 1, 1], "five falling values"),
        ([3.0, 1, 0, 0], "two values and two zeros"),
        ([0.02], "a single value"),
        ([400.0, 100, 20], "three large values"),
    ]
    for values, words in cases:
        shares = [value / math.fsum(values) for value in values if value > 0]
        entropy = -math.fsum(share * math.log(share) for share in shares)
        what, expected = f"the effective rank of {words}", math.exp(entropy)
        got = _number(what, call(attempt, torch.tensor(values)), expected)
        suspects = {
            "0 * ln 0 is not a number: leave the zeros out": math.nan,
            "the minus in front of the sum is missing": math.exp(-entropy),
            "that is the entropy: take exp of it": entropy,
            "the entropy is in bits but exp has base e: use the natural logarithm": math.exp(
                entropy / math.log(2)
            ),
            "divided by the largest value: the shares have to add up to one": _entropy_of(
                [value / max(values) for value in values]
            ),
            "the values are not divided by their sum": _entropy_of(values),
            "the squares are taken as shares: here it is the values themselves": _entropy_of(
                [value**2 / math.fsum(v**2 for v in values) for value in values]
            ),
            "that is the stable rank, sum of squares over the largest square": math.fsum(
                value**2 for value in values
            )
            / max(values) ** 2,
            "that is how many values are not zero: the rank": float(len(shares)),
        }
        if math.isnan(got) or abs(got - expected) > 1e-4 * expected:
            matching = [cause for cause, value in suspects.items() if _same(got, value)]
            require(
                False,
                what,
                expected,
                got,
                matching[0] if matching else "shares of the sum, minus the sum of p ln p, then exp",
            )
    return "five spectra, with zeros, equal values, a single value and large ones"


def _entropy_of(shares: list[float]) -> float:
    exponent = -math.fsum(share * math.log(share) for share in shares if share > 0)
    return math.exp(exponent) if exponent < 700 else math.inf


def _same(got: float, value: float) -> bool:
    return (math.isnan(got) and math.isnan(value)) or abs(got - value) <= 1e-4 * abs(value)


@exercise("8.5")
def angles_between(attempt) -> str:
    """Subspaces that were turned by chosen angles, given by columns that are mixed and scaled."""
    for degrees, size, more in (([10.0, 40, 75], 9, 0), ([0.0, 30], 6, 2), ([90.0], 5, 0)):
        count = len(degrees)
        basis = orthonormal(size, 2 * count + more)
        turns = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        own, away = basis[:, :count], basis[:, count : 2 * count]
        turned = own * turns.cos() + away * turns.sin()  # (n, count), orthonormal again
        wider = torch.cat([turned, basis[:, 2 * count :]], dim=1)
        one, other = own @ _mixing(count), wider @ _mixing(count + more)
        expected = torch.tensor(degrees, dtype=torch.float64)
        raw = torch.linalg.svdvals(one.T @ other)
        unit = torch.linalg.svdvals(_unit(one).T @ _unit(other))
        suspects = {
            "radians: torch.rad2deg makes degrees of them": torch.deg2rad(expected),
            "the largest comes first: the smallest is wanted first": expected.flip(0),
            "those are the cosines: take the arccosine": torch.cos(turns),
            "those are the sines' angles: the singular values of Q1^T Q2 are cosines": 90
            - expected,
            "the columns are not orthonormal: use the Q of their QR": torch.rad2deg(
                torch.arccos(raw.clamp(max=1))
            ),
            "columns of length one are not yet at right angles: use the Q of their QR": (
                torch.rad2deg(torch.arccos(unit.clamp(max=1)))
            ),
        }
        got = call(attempt, one, other)
        if isinstance(got, Tensor) and got.isnan().any():
            require(
                False,
                f"the angles of {count} turned directions",
                expected,
                got,
                "a cosine that is rounded to above 1 has no arccosine: clamp(max=1) first, and "
                "take the arccosine of cosines only",
            )
        suspects = {
            c: v
            for c, v in suspects.items()
            if v.shape != expected.shape or not torch.allclose(v, expected, atol=1e-3)
        }
        require_close(
            f"the angles of {count} turned directions, in degrees",
            got,
            expected,
            suspects,
            otherwise="orthonormal columns by QR, the singular values of Q1^T Q2, their arccosines "
            "in degrees",
            tolerance=1e-5,
        )
    return "three pairs of subspaces that were turned by chosen angles, from 0 to 90 degrees"


def _mixing(count: int) -> Tensor:
    """A matrix that mixes columns and changes their lengths, but not the space they span."""
    mixing = torch.randn(count, count, dtype=torch.float64) + 3 * torch.eye(count)
    return mixing * torch.linspace(0.5, 4, count, dtype=torch.float64)


def _unit(matrix: Tensor) -> Tensor:
    return matrix / matrix.norm(dim=0)
