"""Checks of the exercises on what is inside an adapter: rank, spectrum, between, effective rank, angles.

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

from serial_lora_course.checking.case import Case, Parts
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


def with_values(rows: int, columns: int, values: list[float]) -> Tensor:
    """A matrix (rows, columns) with these singular values, float64; the others are zero."""
    if not values:
        return torch.zeros(rows, columns)
    chosen, count = torch.tensor(values, dtype=torch.float64), len(values)
    return orthonormal(rows, count) @ torch.diag(chosen) @ orthonormal(columns, count).T


def mixing(count: int) -> Tensor:
    """A matrix that mixes columns, but does not change the space that they span."""
    return torch.randn(count, count, dtype=torch.float64) + 3 * torch.eye(count)


# ------------------------------------------------------------------------ 8.1 the rank of a change


def rank(change=lambda before, after: after - before, limit=None):
    """How many values of a change are above a limit, of what it is and what the limit is made of."""

    def attempt(before, after):
        before, after = before.double(), after.double()
        values, side = svdvals(change(before, after)), max(after.shape)
        threshold = limit(side, svdvals(after), values) if limit else side * EPS * svdvals(after)[0]
        return int((values > threshold).sum())

    return attempt


@exercise(
    "10.1",
    "four changes hundreds of times smaller than their weights, one of them no change at all",
    {
        "rounding alone lifts values above zero, and they are counted: the threshold is missing, or "
        "it is made with float64's eps instead of float32's": (
            rank(limit=lambda *_: 0),
            rank(limit=lambda side, whole, _: side * torch.finfo(torch.float64).eps * whole[0]),
        ),
        "the threshold is too low: the larger of the two sides, max(m, n), is a factor of it": (
            lambda before, after: rank(
                limit=lambda _, whole, __: min(after.shape) * EPS * whole[0]
            )(before, after),
            rank(limit=lambda _, whole, __: EPS * whole[0]),
        ),
        "the threshold goes with the largest value of the change: what was rounded is after, so its "
        "largest value counts": rank(limit=lambda side, _, values: side * EPS * values[0]),
        "that is the rank of after itself: subtract before": rank(lambda before, after: after),
        "values below the threshold are counted, not those above": lambda before, after: (
            min(after.shape) - rank()(before, after)
        ),
        "the threshold is too high: the largest singular value of after makes it, not the "
        "Frobenius norm": rank(limit=lambda side, whole, _: side * EPS * whole.norm()),
        "the ranks of before and after are subtracted: subtract the matrices": (
            lambda before, after: abs(
                int(torch.linalg.matrix_rank(after) - torch.linalg.matrix_rank(before))
            )
        ),
    },
)
def rank_of_change() -> Iterator[Case]:
    """The rank of a change that is far smaller than the weights, seen through float32.

    The last value of the two oblong changes lies below the threshold of the larger side, and above
    that of the smaller one; the last of the square one just above the threshold.
    """
    for rows, columns, expected, chosen in (
        (48, 48, 4, [0.03, 0.02, 0.01, 7e-5]),
        (30, 50, 3, [0.05, 0.02, 0.01, 3.8e-5]),
        (60, 24, 6, [0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 4e-5]),
        (20, 20, 0, []),
    ):
        full = min(rows, columns) // (1 if rows == columns else 2)  # values above zero
        before = with_values(rows, columns, [8 - 0.1 * i for i in range(full)]).float()
        after = (before.double() + with_values(rows, columns, chosen)).float()
        yield Case(
            f"the rank of a change at {rows}x{columns}, far smaller than W, with {expected} values "
            "above the threshold",
            (before, after),
            expected,
            advice="count the singular values of after - before that are above "
            "max(m, n) * eps * (largest singular value of after), with float32's eps",
        )


# ----------------------------------------------------------------- 8.2 the spectrum of a product


class LargestResult(TorchFunctionMode):
    """Notes the number of entries of the largest tensor that any call returns."""

    def __enter__(self):
        self.entries = 0
        return super().__enter__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.numel())
        return result


def by_triangles(combine):
    """The values of what is made of the two triangles of a product's factors."""
    return lambda left, right: combine(qr(left).R, qr(right.T).R)


right_spectrum = by_triangles(lambda one, other: svdvals(one @ other.T))


@exercise(
    "10.2",
    "three spectra that were chosen first, and that no (m, n) matrix was made",
    {
        "right values, but the (m, n) product is made: QR of left and of right.T gives an (r, r) "
        "matrix with the same values": lambda x, y: svdvals(x @ y)[: x.shape[1]],
        "there are zeros behind the r values: an (m, n) matrix was decomposed": (
            lambda x, y: svdvals(x @ y)
        ),
        "one of the triangles has to be transposed: R1 R2^T": by_triangles(
            lambda one, other: svdvals(one @ other)
        ),
        "QR of right gives a wide triangle: take that of right.T": (
            lambda x, y: svdvals(qr(x).R @ qr(y).R)
        ),
        "the singular values of the two factors are multiplied: that is right only where their "
        "directions fit": lambda x, y: svdvals(x) * svdvals(y),
        "those are the values of left alone": lambda x, _: svdvals(x),
        "those are the values of right alone": lambda _, y: svdvals(y),
        "the smallest comes first: the largest is wanted first": (
            lambda x, y: right_spectrum(x, y).flip(0)
        ),
        "those are the squares, the eigenvalues: take the root": (
            lambda x, y: right_spectrum(x, y) ** 2
        ),
        "the diagonals of the triangles are no singular values": by_triangles(
            lambda one, other: (one.diag() * other.diag()).abs()
        ),
    },
)
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
        what = f"the spectrum of a product {rows}x{rank} times {rank}x{columns}"
        yield Case(what, (left, right), expected, tolerance=1e-8)
    rows, columns, seen = 300, 200, LargestResult()
    left, right = torch.zeros(rows, 2), torch.zeros(2, columns)
    left[3, 0], left[5, 1] = 2.0, 3.0
    right[0, 11], right[1, 7] = 5.0, 0.5
    what = f"the spectrum of a product of {rows}x2 and 2x{columns}"
    small = "every tensor that was made is smaller than the product"
    yield Case(
        what,
        (left, right),
        Parts({what: torch.tensor([10.0, 1.5]), small: True}),
        during=lambda: seen,
        read=lambda got, *_: (got, seen.entries < rows * columns),
    )


# ------------------------------------------------------------------------------- 8.3 in between


def share(between):
    """The share of indices at which a condition on the three values holds."""
    return lambda one, middle, other: between(one, middle, other).float().mean().item()


strictly = share(lambda a, b, c: (torch.minimum(a, c) < b) & (b < torch.maximum(a, c)))
ONE_ORDER = "only one order is counted, the {} one: sometimes one is above, sometimes other"


@exercise(
    "10.3",
    "counted index by index, with outer curves that cross and with ties",
    {
        "each value is compared with the smallest and the largest of all: compare it with the two "
        "of its own index": share(
            lambda a, b, c: (min(a.min(), c.min()) < b) & (b < max(a.max(), c.max()))
        ),
        ONE_ORDER.format("rising"): share(lambda a, b, c: (a < b) & (b < c)),
        ONE_ORDER.format("falling"): share(lambda a, b, c: (a > b) & (b > c)),
        "ties are counted: strictly between": share(
            lambda a, b, c: (torch.minimum(a, c) <= b) & (b <= torch.maximum(a, c))
        ),
        "one of two conditions is enough here: both are needed": share(
            lambda a, b, c: (torch.minimum(a, c) < b) | (b < torch.maximum(a, c))
        ),
        "nearness is counted, on either side: the middle has to be between": share(
            lambda a, b, c: (b - a).abs() < (c - a).abs()
        ),
        "that is the share outside": lambda a, b, c: 1 - strictly(a, b, c),
        "that is how many, not which share: divide by their number": (
            lambda a, b, c: strictly(a, b, c) * len(a)
        ),
        "that is a percentage: a share is between 0 and 1": (
            lambda a, b, c: 100 * strictly(a, b, c)
        ),
    },
)
def share_in_between() -> Iterator[Case]:
    """The share, counted index by index."""
    for what, (one, middle, other) in {
        "the middle above, below and inside": ([1.0, 1, 1, 1], [2.0, 0, 4, 2], [3.0, 3, 3, 3]),
        "outer curves that cross": ([5.0, 4, 3, 2, 1], [4.5, 3.5, 3.2, 2.8, 4], [4.0, 3, 4, 3, 5]),
        "ties": ([2.0, 2, 2, 2], [2.0, 1, 1.5, 1.7], [1.0, 1, 1, 1]),
        "always": ([3.0, 2], [2.0, 1.5], [1.0, 1]),
        "curves that all fall": ([9.0, 6, 3, 1], [7.0, 4, 2.5, 0.7], [8.0, 5, 2, 0.5]),
    }.items():
        triples = zip(one, middle, other, strict=True)
        inside = sum(min(a, c) < b < max(a, c) for a, b, c in triples)
        yield Case(
            f"the share for {what}",
            tuple(map(torch.tensor, (one, middle, other))),
            inside / len(one),
            advice="index by index: min(one, other) < middle < max(one, other)",
        )


# ---------------------------------------------------------------------------- 8.4 effective rank


def exp_entropy(shares: Sequence[float]) -> float:
    """exp of the entropy of shares, summed in a loop."""
    exponent = -math.fsum(share * math.log(share) for share in shares if share > 0)
    return math.exp(exponent) if exponent < 700 else math.inf


def of_shares(shares):
    """The effective rank with other shares of the values."""
    return lambda values: exp_entropy(shares(values.double()).tolist())


right_rank = of_shares(lambda v: v / v.sum())


@exercise(
    "10.4",
    "five spectra, with zeros, equal values, a single value and large ones",
    {
        "0 * ln 0 is not a number: leave the zeros out": (
            lambda v: float(torch.exp(-(v / v.sum() * (v / v.sum()).log()).sum()))
        ),
        "the minus in front of the sum is missing": lambda v: 1 / right_rank(v),
        "that is the entropy: take exp of it": lambda v: math.log(right_rank(v)),
        "the entropy is in bits but exp has base e: use the natural logarithm": (
            lambda v: right_rank(v) ** (1 / math.log(2))
        ),
        "2 to the power of an entropy that is in nats: exp belongs to the natural logarithm": (
            lambda v: 2 ** math.log(right_rank(v))
        ),
        "divided by the largest value: the shares have to add up to one": of_shares(
            lambda v: v / v.max()
        ),
        "the values are not divided by their sum": of_shares(lambda v: v),
        "the squares are taken as shares: here it is the values themselves": of_shares(
            lambda v: v**2 / (v**2).sum()
        ),
        "divided by the root of the sum of squares: the shares have to add up to one": of_shares(
            lambda v: v / v.norm()
        ),
        "that is one over the sum of the squared shares, another count of directions": (
            lambda v: float(v.sum() ** 2 / (v**2).sum())
        ),
        "that is the stable rank, sum of squares over the largest square": (
            lambda v: float((v**2).sum() / v.max() ** 2)
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


# ------------------------------------------------------------------------------------ 8.5 angles


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Cosines of the angles between two spaces, the largest first."""
    return svdvals(qr(one).Q.T @ qr(other).Q).clamp(max=1)


def degrees(cosines: Tensor) -> Tensor:
    """Angles of cosines, in degrees."""
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))


def unit(columns: Tensor) -> Tensor:
    """The same columns, of length one."""
    return columns / columns.norm(dim=0)


@exercise(
    "10.5",
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
            lambda a, b: degrees(svdvals(unit(a).T @ unit(b)))
        ),
        "a cosine that is rounded to above 1 has no arccosine: clamp(max=1) first, and take the "
        "arccosine of cosines only": lambda a, b: torch.rad2deg(
            torch.arccos(svdvals(qr(a).Q.T @ qr(b).Q))
        ),
    },
)
def angles_between() -> Iterator[Case]:
    """Subspaces that were turned by chosen angles, given by columns that are mixed and scaled."""
    chosen = (([10.3, 40.7, 75.2], 9, 0), ([0.0, 30.4], 6, 2), ([90.0], 5, 0))
    unturned = [([0.0, 0.0, 0.0, 30.0], 12, 0)] * 8  # some of whose cosines are rounded to above 1
    for angles, size, more in (*chosen, *unturned):
        yield turned(angles, size, more)


def turned(angles: list[float], size: int, more: int) -> Case:
    """Two spaces in ``size`` dimensions at these angles, the second with ``more`` directions."""
    count, expected = len(angles), torch.tensor(angles, dtype=torch.float64)
    basis, turns = orthonormal(size, 2 * count + more), torch.deg2rad(expected)
    own, away = basis[:, :count], basis[:, count : 2 * count]
    other = torch.cat([own * turns.cos() + away * turns.sin(), basis[:, 2 * count :]], dim=1)
    mixed = [
        columns @ (mixing(len(columns.T)) * torch.linspace(0.5, 4, len(columns.T)))
        for columns in (own, other)
    ]
    return Case(
        f"the angles of {count} turned directions, in degrees",
        tuple(mixed),
        expected,
        nan="a cosine that is rounded to above 1 has no arccosine: clamp(max=1) first, and take "
        "the arccosine of cosines only",
        advice="orthonormal columns by QR, singular values of Q1^T Q2, their arccosines in degrees",
        tolerance=1e-5,
    )
