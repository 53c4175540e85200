"""Right and wrong answers to the exercises of lesson 08."""

import math

import numpy as np
import torch
from scipy.linalg import qr, subspace_angles
from scipy.stats import entropy

EPS = float(np.finfo(np.float32).eps)


def svd(matrix):
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)


def rank(change=None, reference=None, eps=EPS):
    """The rank of a change with one thing changed."""

    def attempt(before, after):
        before, after = before.double().numpy(), after.double().numpy()
        values = svd(after - before if change is None else change(before, after))
        largest = svd(after if reference is None else reference(before, after))[0]
        threshold = max(after.shape) * eps * largest
        return sum(bool(value > threshold) for value in values)

    return attempt


def spectrum_by_gram(left, right):
    """Roots of the eigenvalues of (left^T left)(right right^T), which is (r, r)."""
    q, r = qr(right.numpy().T, mode="economic")
    thin = left.numpy() @ r.T  # (m, r)
    return torch.from_numpy(np.sqrt(np.linalg.eigvalsh(thin.T @ thin).clip(0))[::-1].copy())


def triangles(left, right):
    return torch.linalg.qr(left).R, torch.linalg.qr(right.T).R


def between_by_signs(one, middle, other):
    return float(
        np.mean([(b - a) * (c - b) > 0 for a, b, c in zip(one, middle, other, strict=True)])
    )


def between_all(one, middle, other):
    outer = torch.cat([one, other])
    return ((middle > outer.min()) & (middle < outer.max())).float().mean().item()


def entropy_rank(shares):
    shares = shares[shares > 0]
    return math.exp(-float((shares * shares.log()).sum()))


def degrees(cosines):
    return torch.rad2deg(torch.arccos(cosines.clamp(max=1)))


def bases(one, other):
    return torch.linalg.qr(one).Q, torch.linalg.qr(other).Q


def cosines(one, other):
    basis, basis_of_other = bases(one, other)
    return torch.linalg.svdvals(basis.T @ basis_of_other)


def unit(matrix):
    return torch.nn.functional.normalize(matrix, dim=0)


RIGHT = {
    "8.1": rank(),
    "8.2": spectrum_by_gram,
    "8.3": between_by_signs,
    "8.4": lambda values: math.exp(entropy(values.double().numpy())),
    "8.5": lambda one, other: torch.from_numpy(
        np.rad2deg(subspace_angles(one.numpy(), other.numpy()))[::-1].copy()
    ),
}

WRONG = {
    "8.1": {
        ("no threshold", "above zero"): lambda b, a: int((torch.linalg.svdvals(a - b) > 0).sum()),
        ("the change's largest", "what was rounded is after"): rank(reference=lambda b, a: a - b),
        ("the rank of after", "rank of after itself"): rank(change=lambda b, a: a),
        ("float64's eps", "above zero|float64's eps"): rank(eps=float(np.finfo(np.float64).eps)),
        ("no side", "larger of the two sides"): rank(eps=EPS / 60),
        ("below", "below the threshold are counted"): lambda b, a: min(a.shape) - rank()(b, a),
        ("torch's own", "above zero"): lambda b, a: int(
            torch.linalg.matrix_rank(a.double() - b.double())
        ),
        ("Frobenius", "not the Frobenius norm"): lambda b, a: int(
            (torch.linalg.svdvals(a.double() - b.double()) > max(a.shape) * EPS * a.norm()).sum()
        ),
        ("difference of ranks", "ranks of before and after"): lambda b, a: int(
            torch.linalg.matrix_rank(a) - torch.linalg.matrix_rank(b)
        ),
        ("one a direction", "one number is wanted"): lambda b, a: (
            torch.linalg.svdvals(a.double() - b.double()) > 1e-4
        ),
    },
    "8.2": {
        ("dense", "zeros behind the r values"): lambda x, y: torch.linalg.svdvals(x @ y),
        ("dense, cut", r"the \(m, n\) product is made"): lambda x, y: torch.linalg.svdvals(x @ y)[
            : x.shape[1]
        ],
        ("not transposed", "has to be transposed"): lambda x, y: torch.linalg.svdvals(
            triangles(x, y)[0] @ triangles(x, y)[1]
        ),
        ("right not turned", "take that of right.T"): lambda x, y: torch.linalg.svdvals(
            torch.linalg.qr(x).R @ torch.linalg.qr(y).R
        ),
        ("values multiplied", "values of the two"): lambda x, y: (
            torch.linalg.svdvals(x) * torch.linalg.svdvals(y)
        ),
        ("left alone", "left alone"): lambda x, y: torch.linalg.svdvals(x),
        ("right alone", "right alone"): lambda x, y: torch.linalg.svdvals(y),
        ("smallest first", "smallest comes first"): lambda x, y: spectrum_by_gram(x, y).flip(0),
        ("squares", "squares"): lambda x, y: spectrum_by_gram(x, y) ** 2,
        ("diagonals", "diagonals of the triangles"): lambda x, y: (
            triangles(x, y)[0].diag() * triangles(x, y)[1].diag()
        ).abs(),
    },
    "8.3": {
        ("of all", "two of its own index"): between_all,
        ("in a chain", "with &"): lambda a, b, c: float(((a < b < c) | (c < b < a)).float().mean()),
        ("rising only", "only one order"): lambda a, b, c: (
            ((a < b) & (b < c)).float().mean().item()
        ),
        ("falling only", "only one order"): lambda a, b, c: (
            ((a > b) & (b > c)).float().mean().item()
        ),
        ("with ties", "strictly between"): (
            lambda a, b, c: (
                ((torch.minimum(a, c) <= b) & (b <= torch.maximum(a, c))).float().mean().item()
            )
        ),
        ("or", "both are needed"): (
            lambda a, b, c: (
                ((torch.minimum(a, c) < b) | (b < torch.maximum(a, c))).float().mean().item()
            )
        ),
        ("nearer", "nearness"): lambda a, b, c: (
            ((b - a).abs() < (c - a).abs()).float().mean().item()
        ),
        ("outside", "share outside"): lambda a, b, c: 1 - between_by_signs(a, b, c),
        ("a count", "not which share"): lambda a, b, c: between_by_signs(a, b, c) * len(a),
        ("percent", "a percentage"): lambda a, b, c: 100 * between_by_signs(a, b, c),
        ("a tensor", "still a tensor"): lambda a, b, c: ((b - a) * (c - b) > 0).float().mean(),
        ("one an index", "one number is wanted"): lambda a, b, c: (b - a) * (c - b) > 0,
    },
    "8.4": {
        ("zeros kept", "zeros out"): lambda v: float(
            torch.exp(-(v / v.sum() * (v / v.sum()).log()).sum())
        ),
        ("no minus", "minus"): lambda v: 1 / entropy_rank(v / v.sum()),
        ("no exp", "take exp of it"): lambda v: math.log(entropy_rank(v / v.sum())),
        ("bits", "in bits"): lambda v: entropy_rank(v / v.sum()) ** (1 / math.log(2)),
        ("by the largest", "divided by the largest"): lambda v: entropy_rank(v / v.max()),
        ("not divided", "not divided by their sum|divided by the larg"): lambda v: entropy_rank(v),
        ("squares", "squares are taken"): lambda v: entropy_rank(v**2 / (v**2).sum()),
        ("nats and 2", "in nats"): lambda v: 2 ** math.log(entropy_rank(v / v.sum())),
        ("by the norm", "root of the sum of squares"): lambda v: entropy_rank(v / v.norm()),
        ("squared shares", "squared shares"): lambda v: float(1 / (v / v.sum()).square().sum()),
        ("small ones left out", "shares of the sum"): lambda v: entropy_rank(
            torch.where(v > 0.01 * v.sum(), v / v.sum(), 0 * v)
        ),
        ("stable rank", "the stable rank"): lambda v: float((v**2).sum() / v.max() ** 2),
        ("the rank", "how many values are not zero"): lambda v: float((v > 0).sum()),
        ("a tensor", "still a tensor"): lambda v: torch.tensor(entropy_rank(v / v.sum())),
    },
    "8.5": {
        ("radians", "radians"): lambda a, b: torch.deg2rad(degrees(cosines(a, b))),
        ("largest first", "largest comes first"): lambda a, b: degrees(cosines(a, b)).flip(0),
        ("cosines", "those are the cosines"): lambda a, b: cosines(a, b),
        ("arcsine", "sines' angles"): lambda a, b: torch.rad2deg(
            torch.arcsin(cosines(a, b).clamp(max=1))
        ),
        ("not orthonormal", "not orthonormal"): lambda a, b: degrees(torch.linalg.svdvals(a.T @ b)),
        ("length one", "of length one are"): lambda a, b: degrees(
            torch.linalg.svdvals(unit(a).T @ unit(b))
        ),
        ("no clamp", "clamp"): lambda a, b: torch.rad2deg(
            torch.arccos(torch.linalg.svdvals(a.T @ b))
        ),
        ("no clamp after QR", "clamp"): lambda a, b: torch.rad2deg(torch.arccos(cosines(a, b))),
        ("the diagonal", "compares single columns"): lambda a, b: degrees(
            (bases(a, b)[0].T @ bases(a, b)[1]).diagonal()
        ),
        ("rounded", "orthonormal columns by QR"): lambda a, b: degrees(cosines(a, b)).round(),
        ("one angle", "orthonormal columns by QR"): lambda a, b: degrees(cosines(a, b))[0],
    },
}
