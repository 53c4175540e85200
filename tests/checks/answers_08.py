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
        "no threshold": (lambda b, a: int((torch.linalg.svdvals(a - b) > 0).sum()), "above zero"),
        "the change's largest": (rank(reference=lambda b, a: a - b), "what was rounded is after"),
        "the rank of after": (rank(change=lambda b, a: a), "rank of after itself"),
        "float64's eps": (rank(eps=float(np.finfo(np.float64).eps)), "above zero|float64's eps"),
        "no side": (rank(eps=EPS / 60), "larger of the two sides"),
        "below": (
            lambda b, a: min(a.shape) - rank()(b, a),
            "below the threshold are counted",
        ),
        "torch's own": (
            lambda b, a: int(torch.linalg.matrix_rank(a.double() - b.double())),
            "above zero",
        ),
        "one a direction": (
            lambda b, a: torch.linalg.svdvals(a.double() - b.double()) > 1e-4,
            "one number is wanted",
        ),
    },
    "8.2": {
        "dense": (lambda x, y: torch.linalg.svdvals(x @ y), "zeros behind the r values"),
        "dense, cut": (
            lambda x, y: torch.linalg.svdvals(x @ y)[: x.shape[1]],
            r"the \(m, n\) product is made",
        ),
        "not transposed": (
            lambda x, y: torch.linalg.svdvals(triangles(x, y)[0] @ triangles(x, y)[1]),
            "has to be transposed",
        ),
        "right not turned": (
            lambda x, y: torch.linalg.svdvals(torch.linalg.qr(x).R @ torch.linalg.qr(y).R),
            "take that of right.T",
        ),
        "values multiplied": (
            lambda x, y: torch.linalg.svdvals(x) * torch.linalg.svdvals(y),
            "values of the two",
        ),
        "left alone": (lambda x, y: torch.linalg.svdvals(x), "left alone"),
        "right alone": (lambda x, y: torch.linalg.svdvals(y), "right alone"),
        "smallest first": (lambda x, y: spectrum_by_gram(x, y).flip(0), "smallest comes first"),
        "squares": (lambda x, y: spectrum_by_gram(x, y) ** 2, "squares"),
        "diagonals": (
            lambda x, y: (triangles(x, y)[0].diag() * triangles(x, y)[1].diag()).abs(),
            "diagonals of the triangles",
        ),
    },
    "8.3": {
        "of all": (between_all, "two of its own index"),
        "in a chain": (lambda a, b, c: float(((a < b < c) | (c < b < a)).float().mean()), "with &"),
        "rising only": (
            lambda a, b, c: ((a < b) & (b < c)).float().mean().item(),
            "only one order",
        ),
        "falling only": (
            lambda a, b, c: ((a > b) & (b > c)).float().mean().item(),
            "only one order",
        ),
        "with ties": (
            lambda a, b, c: (
                ((torch.minimum(a, c) <= b) & (b <= torch.maximum(a, c))).float().mean().item()
            ),
            "strictly between",
        ),
        "or": (
            lambda a, b, c: (
                ((torch.minimum(a, c) < b) | (b < torch.maximum(a, c))).float().mean().item()
            ),
            "both are needed",
        ),
        "nearer": (
            lambda a, b, c: ((b - a).abs() < (c - a).abs()).float().mean().item(),
            "nearness",
        ),
        "outside": (lambda a, b, c: 1 - between_by_signs(a, b, c), "share outside"),
        "a count": (lambda a, b, c: between_by_signs(a, b, c) * len(a), "not which share"),
        "percent": (lambda a, b, c: 100 * between_by_signs(a, b, c), "a percentage"),
        "a tensor": (lambda a, b, c: ((b - a) * (c - b) > 0).float().mean(), "still a tensor"),
        "one an index": (lambda a, b, c: (b - a) * (c - b) > 0, "one number is wanted"),
    },
    "8.4": {
        "zeros kept": (
            lambda v: float(torch.exp(-(v / v.sum() * (v / v.sum()).log()).sum())),
            "zeros out",
        ),
        "no minus": (lambda v: 1 / entropy_rank(v / v.sum()), "minus"),
        "no exp": (lambda v: math.log(entropy_rank(v / v.sum())), "take exp of it"),
        "bits": (lambda v: entropy_rank(v / v.sum()) ** (1 / math.log(2)), "in bits"),
        "by the largest": (lambda v: entropy_rank(v / v.max()), "divided by the largest"),
        "not divided": (lambda v: entropy_rank(v), "not divided by their sum|divided by the larg"),
        "squares": (lambda v: entropy_rank(v**2 / (v**2).sum()), "squares are taken"),
        "stable rank": (lambda v: float((v**2).sum() / v.max() ** 2), "the stable rank"),
        "the rank": (lambda v: float((v > 0).sum()), "how many values are not zero"),
        "a tensor": (lambda v: torch.tensor(entropy_rank(v / v.sum())), "still a tensor"),
    },
    "8.5": {
        "radians": (lambda a, b: torch.deg2rad(degrees(cosines(a, b))), "radians"),
        "largest first": (lambda a, b: degrees(cosines(a, b)).flip(0), "largest comes first"),
        "cosines": (lambda a, b: cosines(a, b), "those are the cosines"),
        "arcsine": (
            lambda a, b: torch.rad2deg(torch.arcsin(cosines(a, b).clamp(max=1))),
            "sines' angles",
        ),
        "not orthonormal": (lambda a, b: degrees(torch.linalg.svdvals(a.T @ b)), "not orthonormal"),
        "length one": (
            lambda a, b: degrees(torch.linalg.svdvals(unit(a).T @ unit(b))),
            "of length one are",
        ),
        "no clamp": (
            lambda a, b: torch.rad2deg(torch.arccos(torch.linalg.svdvals(a.T @ b))),
            "clamp",
        ),
        "one angle": (lambda a, b: degrees(cosines(a, b))[0], "orthonormal columns by QR"),
    },
}
