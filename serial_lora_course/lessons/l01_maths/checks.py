"""Checks of lesson 01: ranks and misses, equal pairs, the nearest pair, a gradient.

Each compares with another road to the same number: chosen singular values, whole weights in place
of pairs, least squares in place of QR, and autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import require
from serial_lora_course.checking.running import exercise

PARTS = ("q", "k", "v")

# --------------------------------------------------------------------- 1.1 the rank for a miss

VALUES = (8.0, 4.2, 3.9, 2.0, 0.9)  # ranks 0, 1, ... miss 1, 0.61, 0.44, 0.22, 0.09, 0
RANKS = {0.5: 2, 0.23: 3, 0.2: 4, 0.05: 5, 1.0: 0, 0.65: 1, 0.0: 5, 0.435: 3}  # by share


def with_singular_values(values: Sequence[float], rows: int, columns: int) -> Tensor:
    """A matrix (rows, columns) that has these singular values, in random directions."""
    left, _ = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values), dtype=torch.float64))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


def missed(S: Tensor, r: int) -> Tensor:
    """The miss of rank r."""
    return S[r:].norm() / S.norm()


def first(
    miss: Callable = missed,
    good: Callable = lambda miss, allowed: miss <= allowed,
    ranks: Callable = lambda S: range(len(S)),
    otherwise: Callable | None = lambda matrix, S: len(S),
) -> Callable:
    """The first rank whose miss is good enough, with one thing changed."""

    def attempt(matrix, allowed):
        S = torch.linalg.svdvals(matrix)
        found = (r for r in ranks(S) if good(miss(S, r), allowed))
        return next(found, otherwise(matrix, S) if otherwise else None)

    return attempt


@exercise(
    "1.1",
    "eight shares on chosen singular values, both ends too, and matrices of other ranks and shapes",
    {
        "the root is forgotten: a miss is the root of the share of the squares": (
            first(lambda S, r: missed(S, r) ** 2)
        ),
        "the values are added without squares: Frobenius norms add squares": (
            first(lambda S, r: S[r:].sum() / S.sum())
        ),
        "the miss is not divided by the size of the whole: it is a share": (
            first(lambda S, r: S[r:].norm())
        ),
        "only one singular value is looked at: all that are left out count": (
            first(lambda S, r: S[r] / S.norm())
        ),
        "that is a share of the strongest value: divide by the size of the whole": (
            first(lambda S, r: S[r] / S[0])
        ),
        "that looks at what is kept: the miss is about what is left out": (
            first(lambda S, r: S[:r].norm() / S.norm(), lambda kept, allowed: kept >= allowed)
        ),
        "one too many: at rank r the layers S[:r] are kept, and S[r:] are missing": (
            lambda matrix, allowed: first()(matrix, allowed) + 1
        ),
        "one too few: at rank r the layers from S[r] on are missing, S[r] too": (
            lambda matrix, allowed: first()(matrix, allowed) - 1,
            first(lambda S, r: S[r + 1 :].norm() / S.norm()),
        ),
        "rank 0 is never tried: a miss of 1 allows it": first(ranks=lambda S: range(1, len(S))),
        "the full rank is never reached: it misses nothing": first(
            ranks=lambda S: range(len(S) - 1), otherwise=lambda matrix, S: len(S) - 1
        ),
        "where only the full rank is good enough, nothing is returned: return that": (
            first(otherwise=None)
        ),
        'a miss of 0 is never allowed: "at most" is <=, not <': (
            first(
                good=lambda miss, allowed: miss < allowed,
                ranks=lambda S: range(len(S) + 1),
                otherwise=None,
            )
        ),
        'a miss that equals the share is not allowed: "at most" is <=, not <': (
            first(good=lambda miss, allowed: miss < allowed)
        ),
        "more is allowed than was asked for: no tolerance is needed here": (
            first(good=lambda miss, allowed: miss <= allowed + 0.01)
        ),
        "the full rank is the smaller side of the matrix, not its columns": (
            first(otherwise=lambda matrix, S: matrix.shape[1])
        ),
        "the full rank is the smaller side of the matrix, not its rows": (
            first(otherwise=lambda matrix, S: matrix.shape[0])
        ),
        "that is the full rank, whatever was allowed": lambda matrix, allowed: min(matrix.shape),
    },
)
def rank_for_miss() -> Iterator[Case]:
    """The smallest rank that is good enough, for matrices of chosen singular values."""
    advice = "try ranks 0, 1, 2, ... in order and return the first that is good enough"
    for rows, columns in ((7, 5), (5, 9)):
        matrix = with_singular_values(VALUES, rows, columns)
        for share, rank in RANKS.items() if rows > columns else [(0.0, 5), (0.5, 2)]:
            what = f"the rank for a miss of {share}, {rows}x{columns}, singular values {VALUES}"
            allowed = share * (1 + 1e-9)  # so that no rounding decides at 1
            yield Case(what, (matrix, allowed), rank, advice=advice)
    what = "the rank for a miss of 0.5 with four singular values of 1, of which rank 3 misses 0.5"
    yield Case(what, (torch.eye(4, dtype=torch.float64), 0.5), 3, advice=advice)
    yield Case(
        "the rank for a miss of 1e-6, of a (6, 9) matrix of rank 2",
        (with_singular_values((5.0, 5.0), 6, 9), 1e-6),
        2,
        advice="a matrix may have a lower rank than its shape allows",
    )


# -------------------------------------------------------------------------- 1.2 equal LoRA pairs


def changes_of(pairs: Any, weights: dict[str, Tensor], rank: int) -> list[Tensor]:
    """B_p A_p of what the learner returned, after a look at the form."""
    found = sorted(pairs) if isinstance(pairs, dict) else type(pairs).__name__
    cause = "return a dict with one pair for every part that came in"
    require(found == sorted(weights), "the parts", sorted(weights), found, cause)
    for part, weight in weights.items():
        out, width = weight.shape
        wanted, form = [(rank, width), (out, rank)], shapes_of(pairs[part])
        cause = "A_p is (r, d) and B_p is (out, r)"
        require(form == wanted, f"the shapes of the pair of {part}", wanted, form, cause)
    return [pairs[part][1] @ pairs[part][0] for part in weights]


def shapes_of(pair: Any) -> list[tuple[int, ...]] | str:
    """The shapes of a pair of matrices, or what was there in the place of one."""
    if not isinstance(pair, (tuple, list)):
        return type(pair).__name__
    return [tuple(getattr(matrix, "shape", ())) for matrix in pair]


def pairs_with(of_B: Callable = torch.matmul, of_A: Callable = lambda weight, A: A) -> Callable:
    """A pair for each part with one thing changed: ``of_B(W, B)`` and ``of_A(W, A)``."""

    def attempt(weights, A, B):
        return {part: (of_A(weight, A), of_B(weight, B)) for part, weight in weights.items()}

    return attempt


@exercise(
    "1.2",
    "the change of each weight, square or not, is the one that the serial pair makes",
    {
        "W itself is in it: a pair holds the change alone": lambda weights, A, B: {
            part: (torch.eye(len(A), A.shape[1]), W @ (torch.eye(len(B)) + B @ A)[:, : len(A)])
            for part, W in weights.items()
        },
        "B is passed on as it is, with d rows: W_p has to act on it first, as B_p writes where W_p "
        "writes": pairs_with(lambda W, B: B),
        "W_p acts on A's side: the token meets A first, W_p last": (
            pairs_with(lambda W, B: B, lambda W, A: A @ W)
        ),
        "W_p is transposed: nn.Linear's weight is the formula's W": pairs_with(
            lambda W, B: W.T @ B
        ),
        "W_p is in it twice: put it on one side only": pairs_with(of_A=lambda W, A: A @ W),
        "q's weight serves for every part: each has its own W_p": lambda weights, A, B: {
            part: (A, weights["q"] @ B) for part in weights
        },
        "the order is A_p first, B_p second": lambda weights, A, B: {
            part: pair[::-1] for part, pair in pairs_with()(weights, A, B).items()
        },
        "both factors are transposed: A_p is (r, d) and B_p is (out, r)": lambda weights, A, B: {
            part: (A.T, (W @ B).T) for part, W in weights.items()
        },
        "a whole (out, d) matrix is no pair: the second factor is (out, r)": (
            lambda weights, A, B: {part: (A, W @ B @ A) for part, W in weights.items()}
        ),
        "return a dict with one pair for every part that came in, not a list": (
            lambda weights, A, B: [(A, W @ B) for W in weights.values()]
        ),
        "only q gets a pair: every part needs one": lambda weights, A, B: {
            "q": (A, weights["q"] @ B)
        },
        "the names of the parts are written out: go through weights.items()": (
            lambda weights, A, B: {part: (A, weights[part] @ B) for part in "qkv"}
        ),
        "two tensors are of different kinds, such as float32 and float64: make both alike": (
            pairs_with(of_A=lambda W, A: A.double())
        ),
    },
)
def lora_pairs_of() -> Iterator[Case]:
    """B_p A_p against W_p (I + B A) - W_p, for square and other weights."""
    for sizes, width, rank in (
        ({"q": 5, "k": 5, "v": 5}, 5, 2),
        ({"q": 6, "k": 3, "out": 4}, 7, 3),
    ):
        weights = {part: torch.randn(out, width) for part, out in sizes.items()}
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        parts = {
            f"B_p A_p of {part}, for W {len(W)}x{width} and rank {rank}": (
                W @ (torch.eye(width) + B @ A) - W
            )
            for part, W in weights.items()
        }
        yield Case(
            f"a call with three weights {width} wide, and a pair of rank {rank}",
            (weights, A, B),
            Parts(parts),
            read=lambda pairs, weights, A, B: changes_of(pairs, weights, len(A)),
        )


# -------------------------------------------------------------------------- 1.3 the nearest pair


def first_layers(matrix: Tensor, rank: int) -> Tensor:
    """The best matrix of that rank, by way of an eigenbasis of its rows."""
    _, axes = torch.linalg.eigh(matrix.T @ matrix)  # ascending
    return matrix @ axes[:, -rank:] @ axes[:, -rank:].T


def stacked(each: dict[str, Tensor], names: Iterable[str]) -> Tensor:
    """The parts one below the other, in this order."""
    return torch.cat([each[part] for part in names])


def two_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U S and Vh of the first layers."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] * S[:rank], Vh[:rank]


def nearest(change: Callable) -> Callable:
    """A wrong answer; ``change(W, wanted, rank, weights, changes)`` gives B and A."""

    def attempt(weights, changes, rank):
        B, A = change(stacked(weights, weights), stacked(changes, weights), rank, weights, changes)
        return A, B

    return attempt


def three_steps(W, wanted, rank, *_, use=lambda U, S, Vh, r: (U[:, :r] * S[:r], Vh[:r])):
    """The right answer, with the use of U, S and Vh to be changed."""
    Q, R = torch.linalg.qr(W)
    left, A = use(*torch.linalg.svd(Q.T @ wanted), rank)
    return torch.linalg.solve(R, left), A


def with_use(use: Callable) -> Callable:
    """A wrong answer in the last of the three steps."""
    return nearest(lambda W, wanted, rank, *_: three_steps(W, wanted, rank, use=use))


def cut_before(W, wanted, rank, *_):
    """The wishes are cut, then solved for."""
    left, A = two_factors(wanted, rank)
    return torch.linalg.lstsq(W, left).solution, A


def of_means(W, wanted, rank, weights, changes):
    """The parts are averaged."""
    left, A = two_factors(sum(changes.values()) / len(changes), rank)
    return torch.linalg.solve(sum(weights.values()) / len(weights), left), A


def only_q(W, wanted, rank, weights, changes):
    """One part alone."""
    left, A = two_factors(changes["q"], rank)
    return torch.linalg.solve(weights["q"], left), A


def change_by(pair: Any, weights: dict[str, Tensor], changes: dict, rank: int) -> Tensor:
    """The stacked change W B A of what the learner returned, after a look at the form."""
    tall = stacked(weights, weights)
    form, right = shapes_of(pair), [(rank, tall.shape[1]), (tall.shape[1], rank)]
    cause = "A holds r rows of Vh, B solves R B = U S with r columns"
    require(form == right, f"the shapes of A and B at rank {rank}", right, form, cause)
    A, B = (torch.as_tensor(each).detach().to(tall) for each in pair)
    return tall @ B @ A


@exercise(
    "1.3",
    "no other pair of that rank comes closer, at two widths and ranks",
    {
        "C is cut to rank r after solving: cut Q^T times the change, then solve": nearest(
            lambda W, wanted, r, *_: two_factors(torch.linalg.lstsq(W, wanted).solution, r)
        ),
        "the wishes are cut to rank r before the projection: project first": nearest(cut_before),
        "the changes are stacked in another order than the weights: go by the names": nearest(
            lambda W, wanted, r, weights, changes: three_steps(
                torch.cat([*weights.values()]), torch.cat([*changes.values()]), r
            )
        ),
        "only q is looked at: stack all parts": nearest(only_q),
        "the wishes of the parts are averaged: stack them instead": nearest(of_means),
        "the singular values are left out: B solves R B = U S": (
            with_use(lambda U, S, Vh, r: (U[:, :r], Vh[:r]))
        ),
        "the singular values are in it twice: in A or in B": (
            with_use(lambda U, S, Vh, r: (U[:, :r] * S[:r] ** 2, Vh[:r]))
        ),
        "A holds columns of Vh: the v_i are its rows, Vh[:r]": (
            with_use(lambda U, S, Vh, r: (U[:, :r] * S[:r], Vh[:, :r].T))
        ),
        "R is left out: B has to solve R B = U S": nearest(
            lambda W, wanted, r, *_: two_factors(torch.linalg.qr(W)[0].T @ wanted, r)
        ),
        "the order is A (r, d) first, B (d, r) second": (
            lambda weights, changes, r: three_steps(
                stacked(weights, weights), stacked(changes, weights), r
            )
        ),
        "that is one matrix C: A holds r rows of Vh, B solves R B = U S": (
            lambda weights, changes, r: torch.linalg.lstsq(
                stacked(weights, weights), stacked(changes, weights)
            )[0]
        ),
        "the names of the parts are written out: go through the names that came in": nearest(
            lambda W, wanted, r, weights, changes: (
                [weights[part] for part in "qkv"] and three_steps(W, wanted, r)
            )
        ),
    },
)
def nearest_serial_pair() -> Iterator[Case]:
    """W B A against the best, which is found by least squares and an eigenbasis."""
    for width, rank, names in ((6, 2, PARTS), (5, 3, ("q", "k", "out"))):
        weights = {part: torch.randn(width, width, dtype=torch.float64) for part in names}
        changes = {part: torch.randn(width, width, dtype=torch.float64) for part in names[::-1]}
        tall, wanted = stacked(weights, weights), stacked(changes, weights)
        free = torch.linalg.lstsq(tall, wanted).solution  # (d, d), the best C of any rank
        best = first_layers(tall @ free, rank)
        miss = float((wanted - best).norm() / wanted.norm())
        yield Case(
            f"the stacked change W B A at width {width}, rank {rank} (miss {miss:.3f})",
            (weights, changes, rank),
            best,
            read=change_by,
            advice="follow the three steps: QR of the stacked W, SVD of Q^T times the stacked "
            "change, then solve R B = U S",
            tolerance=1e-4,
        )


# ----------------------------------------------------------------------------- 1.4 the gradient


def attention_loss(weights: dict[str, Tensor], x: Tensor, goal: Tensor) -> Tensor:
    """The squared distance of one-headed attention over tokens x (N, d) from a goal (N, out)."""
    q, k, v = (x @ weight.T for weight in weights.values())
    return (F.softmax(q @ k.T, dim=-1) @ v - goal).square().sum()


def gradient(
    of_part: Callable = lambda W, g: W.T @ g,
    parts: Callable = list,
    end: Callable = lambda total, A, s: s * total @ A.T,
) -> Callable:
    """The gradient of B with one thing changed."""

    def attempt(weights, gradients, lora_A, scale):
        total = sum(of_part(weights[part], gradients[part]) for part in parts(weights))
        return end(total, lora_A, scale)

    return attempt


@exercise(
    "1.4",
    "equal to autograd's through an attention with softmax, for square weights and others",
    {
        "the scale is forgotten": gradient(end=lambda total, A, s: total @ A.T),
        "only q is counted: k and v read the same tokens": gradient(parts=lambda W: list(W)[:1]),
        "only v is counted: add the parts up, each on top of the others": (
            gradient(parts=lambda W: list(W)[-1:])
        ),
        "v is left out: it reads the adapted tokens too": gradient(parts=lambda W: list(W)[:2]),
        "the parts are averaged: gradients of one matrix add up": (
            gradient(end=lambda total, A, s: s * total @ A.T / 3)
        ),
        "the sign is turned: that is the step, not the gradient": (
            gradient(end=lambda total, A, s: -s * total @ A.T)
        ),
        "A is left out: B meets A x, not x": gradient(end=lambda total, A, s: s * total),
        "it has to be transposed: the gradient has the shape of B, (d, r)": (
            gradient(end=lambda total, A, s: s * A @ total.T)
        ),
        "the scale is applied twice": gradient(end=lambda total, A, s: s**2 * total @ A.T),
        "scale is divided by the rank: here it counts as it is": (
            gradient(end=lambda total, A, s: s / len(A) * total @ A.T)
        ),
        "W is left out: that is the gradient of LoRA's B": gradient(lambda W, g: g),
        "W is not transposed: gradients travel back through W^T": gradient(lambda W, g: W @ g),
        "the gradient is transposed: W^T g, not W^T g^T or g^T W": gradient(lambda W, g: g.T @ W),
        "the factors are exchanged: W^T stands left of g": gradient(lambda W, g: g @ W.T),
        "the weights are added up before they are multiplied: add the products": (
            lambda W, g, A, s: s * sum(W.values()).T @ sum(g.values()) @ A.T
        ),
        "weights and gradients are paired by their place: pair them by their names": (
            lambda W, g, A, s: gradient()(W, dict(zip(W, g.values(), strict=True)), A, s)
        ),
        "the names of the parts are written out: go through weights.items()": (
            gradient(parts=lambda W: "qkv")
        ),
    },
)
def serial_gradient_of_B() -> Iterator[Case]:
    """The gradient of B against autograd's, through an attention with softmax."""
    for outs, width, rank, scale in (
        ({"q": 6, "k": 6, "v": 6}, 6, 2, 0.7),
        ({"query": 4, "key": 4, "value": 3}, 5, 3, 0.5),
    ):
        weights = {part: torch.randn(out, width) / width**0.5 for part, out in outs.items()}
        x, A = torch.randn(4, width), torch.randn(rank, width)
        goal = torch.randn(4, [*outs.values()][-1])
        for weight in weights.values():
            weight.requires_grad_()
        attention_loss(weights, x, goal).backward()
        g = {part: weights[part].grad for part in [*outs][::-1]}
        W = {part: weight.detach() for part, weight in weights.items()}
        B = torch.zeros(width, rank, requires_grad=True)
        attention_loss(W, x + scale * x @ A.T @ B.T, goal).backward()
        sizes = ", ".join(f"{out}x{width}" for out in outs.values())
        what = f"the gradient of B for weights {sizes}, rank {rank}, scale {scale}"
        yield Case(what, (W, g, A, scale), B.grad)
