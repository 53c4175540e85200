"""Checks of lesson 01: ranks and misses, equal pairs, the nearest pair, a gradient.

Each compares with another road to the same number: chosen singular values, whole weights in place
of pairs, least squares in place of QR, and autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from serial_lora_course.checks.cases import Case, Part
from serial_lora_course.checks.checking import exercise
from serial_lora_course.checks.failing import likely, require

PARTS = ("q", "k", "v")

# --------------------------------------------------------------------- 1.1 the rank for a miss


def with_singular_values(values: Sequence[float], rows: int, columns: int) -> Tensor:
    """A matrix (rows, columns) that has these singular values, in random directions."""
    left, _ = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values), dtype=torch.float64))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


VALUES = (8.0, 4.2, 3.9, 2.0, 0.9)  # ranks 0, 1, ... miss 1, 0.61, 0.44, 0.22, 0.09, 0
RANKS = {0.5: 2, 0.23: 3, 0.2: 4, 0.05: 5, 1.0: 0, 0.65: 1, 0.0: 5}  # the rank for each share


@exercise(
    "1.1", "seven shares on chosen singular values, both ends too, and a matrix not of full rank"
)
def rank_for_miss() -> Iterator[Case]:
    """The smallest rank that is good enough, for a matrix of chosen singular values."""
    matrix = with_singular_values(VALUES, 7, 5)
    squares, full = [value**2 for value in VALUES], len(VALUES)
    whole = sum(squares)
    behind = [sum(squares[rank:]) / whole for rank in range(full + 1)]
    misses = {  # of each rank, as somebody measures them
        "the root is forgotten: a miss is the root of the share of the squares": behind,
        "the values are added without squares: Frobenius norms add squares": [
            sum(VALUES[rank:]) / sum(VALUES) for rank in range(full + 1)
        ],
        "the miss is not divided by the size of the whole: it is a share": [
            (part * whole) ** 0.5 for part in behind
        ],
        "only one singular value is looked at: all that are left out count": [
            value / whole**0.5 for value in (*VALUES, 0.0)
        ],
        "that is a share of the strongest value: divide by the size of the whole": [
            value / VALUES[0] for value in (*VALUES, 0.0)
        ],
    }
    for share, rank in RANKS.items():
        causes = {cause: sum(miss > share for miss in by) for cause, by in misses.items()}
        causes |= {
            "that looks at what is kept: the miss is about what is left out": sum(
                (1 - part) ** 0.5 < share for part in behind
            ),
            "one too many: at rank r the layers S[:r] are kept, and S[r:] are missing": rank + 1,
            "one too few: at rank r the layers from S[r] on are missing, S[r] too": rank - 1,
            "rank 0 is never tried: a miss of 1 allows it": max(rank, 1),
            "the full rank is never reached: it misses nothing": min(rank, full - 1),
        }
        if rank == full:
            causes["where only the full rank is good enough, nothing is returned: return that"] = (
                None
            )
        if share == 0:
            causes['a miss of 0 is never allowed: "at most" is <=, not <'] = None
        yield Case(
            f"the rank for a miss of {share} with singular values {VALUES}",
            (matrix, share * (1 + 1e-9)),  # so that no rounding decides at 1
            rank,
            causes,
            otherwise="try ranks 0, 1, 2, ... in order and return the first that is good enough",
        )
    yield Case(
        "the rank for a miss of 1e-6, of a (6, 9) matrix of rank 2",
        (with_singular_values((5.0, 5.0), 6, 9), 1e-6),
        2,
        otherwise="a matrix may have a lower rank than its shape allows",
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
        conditions = {
            "the order is A_p first, B_p second": form == wanted[::-1],
            "that B still has d rows: B_p writes where W_p writes, so it has W_p's rows": (
                form == [(rank, width), (width, rank)]
            ),
            "a whole (out, d) matrix is no pair: the second factor is (out, r)": (
                form == [(rank, width), (out, width)]
            ),
        }
        cause = likely(conditions, "A_p is (r, d) and B_p is (out, r)")
        require(form == wanted, f"the shapes of the pair of {part}", wanted, form, cause)
    return [pairs[part][1] @ pairs[part][0] for part in weights]


def shapes_of(pair: Any) -> list[tuple[int, ...]] | str:
    """The shapes of a pair of matrices, or what was there in the place of one."""
    if not isinstance(pair, (tuple, list)):
        return type(pair).__name__
    return [tuple(getattr(matrix, "shape", ())) for matrix in pair]


@exercise("1.2", "the change of each weight, square or not, is the one that the serial pair makes")
def lora_pairs_of() -> Iterator[Case]:
    """B_p A_p against W_p (I + B A) - W_p, for square and other weights."""
    for sizes, width, rank in (((5, 5, 5), 5, 2), ((6, 3, 4), 7, 3)):
        weights = {p: torch.randn(out, width) for p, out in zip(PARTS, sizes, strict=True)}
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        parts = []
        for part, weight in weights.items():
            whole = weight @ (torch.eye(width) + B @ A)
            causes = {"W itself is in it: a pair holds the change alone": whole}
            if weight.shape[0] == width:
                causes |= {
                    "B is passed on as it is: W_p has to act on it first": B @ A,
                    "W_p acts on A's side: the token meets A first, W_p last": B @ A @ weight,
                    "W_p is transposed: nn.Linear's weight is the formula's W": weight.T @ B @ A,
                    "W_p is in it twice: put it on one side only": weight @ B @ A @ weight,
                    "q's weight serves for every part: each has its own W_p": weights["q"] @ B @ A,
                }
            what = f"B_p A_p of {part}, for W {weight.shape[0]}x{width} and rank {rank}"
            parts.append(Part(what, whole - weight, causes))
        yield Case(
            f"a call with three weights {width} wide, and a pair of rank {rank}",
            (weights, A, B),
            parts,
            read=lambda pairs, weights=weights, rank=rank: changes_of(pairs, weights, rank),
        )


# -------------------------------------------------------------------------- 1.3 the nearest pair


@exercise("1.3", "no other pair of that rank comes closer, at two widths and ranks")
def nearest_serial_pair() -> Iterator[Case]:
    """W B A against the best, which is found by least squares and an eigenbasis."""
    for width, rank in ((6, 2), (5, 3)):
        weights = {part: torch.randn(width, width, dtype=torch.float64) for part in PARTS}
        changes = {part: torch.randn(width, width, dtype=torch.float64) for part in PARTS[::-1]}
        tall, wanted = (torch.cat([each[p] for p in PARTS]) for each in (weights, changes))
        free = torch.linalg.lstsq(tall, wanted).solution  # (d, d), the best C of any rank
        best = first_layers(tall @ free, rank)
        basis, _ = torch.linalg.qr(tall)
        U, S, Vh = torch.linalg.svd(basis.T @ wanted)
        left, mean = basis @ U[:, :rank], {0: weights, 1: changes}
        mean_weight, mean_change = (sum(each.values()) / 3 for each in mean.values())

        def change_by(pair: Any, tall=tall, width=width, rank=rank) -> Tensor:
            form, right = shapes_of(pair), [(rank, width), (width, rank)]
            order = "the order is A (r, d) first, B (d, r) second"
            rows = "A holds r rows of Vh, B solves R B = U S with r columns"
            cause = order if form == right[::-1] else rows
            require(form == right, f"the shapes of A and B at rank {rank}", right, form, cause)
            A, B = (torch.as_tensor(each).detach().to(tall) for each in pair)
            return tall @ B @ A

        missed = f"(miss {float((wanted - best).norm() / wanted.norm()):.3f})"
        causes = {
            "C is cut to rank r after solving: cut Q^T times the change, then solve": (
                tall @ first_layers(free, rank)
            ),
            "the wishes are cut to rank r before the projection: project first": (
                tall @ torch.linalg.lstsq(tall, first_layers(wanted, rank)).solution
            ),
            "the changes are stacked in another order than the weights: go by the names": (
                basis @ first_layers(basis.T @ torch.cat([*changes.values()]), rank)
            ),
            "only q is looked at: stack all parts": (
                tall @ torch.linalg.solve(weights["q"], first_layers(changes["q"], rank))
            ),
            "the wishes of the parts are averaged: stack them instead": (
                tall @ torch.linalg.solve(mean_weight, first_layers(mean_change, rank))
            ),
            "the singular values are left out: B solves R B = U S": left @ Vh[:rank],
            "the singular values are in it twice: in A or in B": left * S[:rank] ** 2 @ Vh[:rank],
            "A holds columns of Vh: the v_i are its rows, Vh[:r]": left * S[:rank] @ Vh.T[:rank],
            "R is left out: B has to solve R B = U S": tall @ first_layers(basis.T @ wanted, rank),
        }
        what = f"the stacked change W B A at width {width}, rank {rank} {missed}"
        yield Case(
            what,
            (weights, changes, rank),
            best,
            causes,
            read=change_by,
            otherwise="follow the three steps: QR of the stacked W, SVD of Q^T times the stacked "
            "change, then solve R B = U S",
            tolerance=1e-4,
        )


def first_layers(matrix: Tensor, rank: int) -> Tensor:
    """The best matrix of that rank, by way of an eigenbasis of its rows."""
    _, axes = torch.linalg.eigh(matrix.T @ matrix)  # ascending
    return matrix @ axes[:, -rank:] @ axes[:, -rank:].T


# ----------------------------------------------------------------------------- 1.4 the gradient


def attention_loss(
    weights: dict[str, Tensor], x: Tensor, goal: Tensor, adapted: Tensor | None = None
) -> Tensor:
    """The squared distance of one-headed attention over tokens x (N, d) from a goal (N, out)."""
    tokens = x if adapted is None else adapted
    q, k, v = (tokens @ weights[part].T for part in PARTS)
    return (F.softmax(q @ k.T, dim=-1) @ v - goal).square().sum()


@exercise(
    "1.4", "equal to autograd's through an attention with softmax, for square weights and others"
)
def serial_gradient_of_B() -> Iterator[Case]:
    """The gradient of B against autograd's, through an attention with softmax."""
    for outs, width, rank, scale in (((6, 6, 6), 6, 2, 1.0), ((4, 4, 3), 5, 3, 0.5)):
        sizes = zip(PARTS, outs, strict=True)
        weights = {p: torch.randn(out, width) / width**0.5 for p, out in sizes}
        x, goal, A = torch.randn(4, width), torch.randn(4, outs[-1]), torch.randn(rank, width)
        for weight in weights.values():
            weight.requires_grad_()
        attention_loss(weights, x, goal).backward()
        g = {part: weights[part].grad for part in PARTS[::-1]}
        W = {part: weight.detach() for part, weight in weights.items()}
        B = torch.zeros(width, rank, requires_grad=True)
        attention_loss(W, x, goal, x + scale * x @ A.T @ B.T).backward()
        total = sum(W[p].T @ g[p] for p in PARTS)
        causes = {
            "the scale is forgotten": total @ A.T,
            "only q is counted: k and v read the same tokens": scale * W["q"].T @ g["q"] @ A.T,
            "only v is counted: add the parts up, each on top of the others": (
                scale * W["v"].T @ g["v"] @ A.T
            ),
            "the parts are averaged: gradients of one matrix add up": scale * total @ A.T / 3,
            "the sign is turned: that is the step, not the gradient": -scale * total @ A.T,
            "A is left out: B meets A x, not x": scale * total,
            "it has to be transposed: the gradient has the shape of B, (d, r)": scale * A @ total.T,
            "the scale is applied twice": scale**2 * total @ A.T,
            "scale is divided by the rank: here it counts as it is": scale / rank * total @ A.T,
        }
        if len(set(outs)) == 1 and outs[0] == width:  # slips that only square weights allow
            slips = {
                "W is left out: that is the gradient of LoRA's B": sum(g.values()),
                "W is not transposed: gradients travel back through W^T": sum(
                    W[p] @ g[p] for p in PARTS
                ),
                "the gradient is transposed: W^T g, not W^T g^T or g^T W": sum(
                    g[p].T @ W[p] for p in PARTS
                ),
                "the factors are exchanged: W^T stands left of g": sum(
                    g[p] @ W[p].T for p in PARTS
                ),
                "the weights are added up before they are multiplied: add the products": (
                    sum(W.values()).T @ sum(g.values())
                ),
                "weights and gradients are paired by their place: pair them by their names": sum(
                    w.T @ h for w, h in zip(W.values(), g.values(), strict=True)
                ),
            }
            causes |= {cause: scale * by @ A.T for cause, by in slips.items()}
        what = f"the gradient of B for weights of {outs} x {width}, rank {rank}, scale {scale}"
        yield Case(what, (W, g, A, scale), B.grad, causes)
