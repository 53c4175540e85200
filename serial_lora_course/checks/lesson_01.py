"""Checks of lesson 01: ranks and misses, equal pairs, the nearest pair, a gradient, an undoing.

Each compares with another road to the same number: chosen singular values, whole weights in place
of pairs, least squares in place of QR, autograd, and the inverse of the large matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from serial_lora_course.checks.checking import call, exercise, require, require_close, require_equal

PARTS = ("q", "k", "v")


def with_singular_values(values: Sequence[float], rows: int, columns: int) -> Tensor:
    """A matrix (rows, columns) that has these singular values, in random directions."""
    left, _ = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(columns, len(values), dtype=torch.float64))
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


SHARES = (0.5, 0.23, 0.2, 0.05, 1.0, 0.65, 0.0)
VALUES = (8.0, 4.2, 3.9, 2.0, 0.9)  # ranks 0, 1, ... miss 1, 0.61, 0.44, 0.22, 0.09, 0
RANKS = (2, 3, 4, 5, 0, 1, 5)


@exercise("1.1")
def rank_for_miss(attempt) -> str:
    """The smallest rank that is good enough, for a matrix of chosen singular values."""
    matrix = with_singular_values(VALUES, 7, 5)
    got = []
    for share in SHARES:
        rank = call(attempt, matrix, share * (1 + 1e-9))  # so that no rounding decides at 1
        if rank is not None:
            require(
                type(rank) is int,
                f"the kind of answer for a miss of {share}",
                "a plain int",
                type(rank).__name__,
                "a rank is a whole number: int(...) makes one from a tensor or a float",
            )
        got.append(rank)
    squares = [value**2 for value in VALUES]
    whole, ranks = sum(squares), range(len(VALUES) + 1)
    behind = [sum(squares[rank:]) / whole for rank in ranks]
    plain = [sum(VALUES[rank:]) / sum(VALUES) for rank in ranks]
    following = [value / whole**0.5 for value in (*VALUES, 0.0)]

    def first(misses: list[float]) -> tuple[int, ...]:
        return tuple(sum(miss > share for miss in misses) for share in SHARES)

    require_equal(
        f"the ranks for misses of {', '.join(map(str, SHARES))} with singular values {VALUES}",
        tuple(got) if any(rank is not None for rank in got) else None,
        RANKS,
        suspects={
            "the root is forgotten: a miss is the root of the share of the squares": first(behind),
            "the values are added without squares: Frobenius norms add squares": first(plain),
            "the miss is not divided by the size of the whole: it is a share": first(
                [(part * whole) ** 0.5 for part in behind]
            ),
            "only one singular value is looked at: all that are left out count": first(following),
            "that is a share of the strongest value: divide by the size of the whole": first(
                [value / VALUES[0] for value in (*VALUES, 0.0)]
            ),
            "that looks at what is kept: the miss is about what is left out": tuple(
                sum((1 - part) ** 0.5 < share for part in behind) for share in SHARES
            ),
            "one too many: at rank r the layers S[:r] are kept, and S[r:] are missing": tuple(
                rank + 1 for rank in RANKS
            ),
            "one too few: at rank r the layers from S[r] on are missing, S[r] too": tuple(
                rank - 1 for rank in RANKS
            ),
            "rank 0 is never tried: a miss of 1 allows it": tuple(max(rank, 1) for rank in RANKS),
            "the full rank is never reached: it misses nothing": tuple(
                min(rank, len(VALUES) - 1) for rank in RANKS
            ),
            "where only the full rank is good enough, nothing is returned: return that": tuple(
                rank if rank < len(VALUES) else None for rank in RANKS
            ),
            'a miss of 0 is never allowed: "at most" is <=, not <': (*RANKS[:-1], None),
        },
        otherwise="try ranks 0, 1, 2, ... in order and return the first that is good enough",
    )
    require_equal(
        "the rank for a miss of 1e-6, of a (6, 9) matrix of rank 2",
        call(attempt, with_singular_values((5.0, 5.0), 6, 9), 1e-6),
        2,
        otherwise="a matrix may have a lower rank than its shape allows",
    )
    return "seven shares on chosen singular values, both ends too, and a matrix not of full rank"


def _changes_of_pairs(pairs, weights: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """B_p A_p of what the learner returned, after a look at the form."""
    require(
        isinstance(pairs, dict) and set(pairs) == set(weights),
        "the parts",
        sorted(weights),
        sorted(pairs) if isinstance(pairs, dict) else type(pairs).__name__,
        "return a dict with one pair for every part that came in",
    )
    changes = {}
    for part, weight in weights.items():
        pair = pairs[part]
        out, width = weight.shape
        several = isinstance(pair, (tuple, list))
        shapes = [tuple(getattr(m, "shape", ())) for m in pair] if several else type(pair).__name__
        wanted = [(rank, width), (out, rank)]
        if shapes == wanted[::-1]:
            cause = "the order is A_p first, B_p second"
        elif shapes == [(rank, width), (width, rank)]:
            cause = "that B still has d rows: B_p writes where W_p writes, so it has W_p's rows"
        elif shapes == [(rank, width), (out, width)]:
            cause = "a whole (out, d) matrix is no pair: the second factor is (out, r)"
        else:
            cause = "A_p is (r, d) and B_p is (out, r)"
        require(shapes == wanted, f"the shapes of the pair of {part}", wanted, shapes, cause)
        changes[part] = pair[1] @ pair[0]
    return changes


@exercise("1.2")
def lora_pairs_of(attempt) -> str:
    """B_p A_p against W_p (I + B A) - W_p, for square and other weights."""
    for sizes, width, rank in (((5, 5, 5), 5, 2), ((6, 3, 4), 7, 3)):
        weights = {p: torch.randn(out, width) for p, out in zip(PARTS, sizes, strict=True)}
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        kept = {part: weight.clone() for part, weight in weights.items()}
        what = f"a call with three weights {width} wide, and a pair of rank {rank}"
        got = _changes_of_pairs(call(attempt, weights, A, B, what=what), weights, rank)
        for part, weight in kept.items():
            whole = weight @ (torch.eye(width) + B @ A)
            suspects = {"W itself is in it: a pair holds the change alone": whole}
            if weight.shape[0] == width:
                suspects |= {
                    "B is passed on as it is: W_p has to act on it first": B @ A,
                    "W_p acts on A's side: the token meets A first, W_p last": B @ A @ weight,
                    "W_p is transposed: nn.Linear's weight (out, d) is the W of the formula": (
                        weight.T @ B @ A
                    ),
                    "W_p is in it twice: put it on one side only": weight @ B @ A @ weight,
                    "q's weight serves for every part: each has a W_p of its own": (
                        kept["q"] @ B @ A
                    ),
                }
            require_close(
                f"B_p A_p of {part}, for W {weight.shape[0]}x{width} and rank {rank}",
                got[part],
                whole - weight,
                suspects=suspects,
            )
            require(
                torch.equal(weights[part], weight),
                "the weight that came in",
                "as before",
                "changed",
                "a frozen weight was changed in place: make new tensors",
            )
    return "the change of each weight, square or not, is the one that the serial pair makes"


@exercise("1.3")
def nearest_serial_pair(attempt) -> str:
    """W B A against the best, which is found by least squares and an eigenbasis."""
    for width, rank in ((6, 2), (5, 3)):
        weights = {part: torch.randn(width, width, dtype=torch.float64) for part in PARTS}
        changes = {part: torch.randn(width, width, dtype=torch.float64) for part in PARTS}
        tall, wanted = (torch.cat([each[p] for p in PARTS]) for each in (weights, changes))
        free = torch.linalg.lstsq(tall, wanted).solution  # (d, d), the best C of any rank
        met = tall @ free
        _, axes = torch.linalg.eigh(met.T @ met)  # ascending
        best = met @ axes[:, -rank:] @ axes[:, -rank:].T
        what = f"a call with three weights and three changes {width}x{width}, and rank {rank}"
        pair = call(attempt, weights, changes, rank, what=what)
        several = isinstance(pair, (tuple, list))
        form = [tuple(getattr(m, "shape", ())) for m in pair] if several else type(pair).__name__
        require(
            form == [(rank, width), (width, rank)],
            f"the shapes of A and B at rank {rank}",
            [(rank, width), (width, rank)],
            form,
            "the order is A (r, d) first, B (d, r) second"
            if form == [(width, rank), (rank, width)]
            else "A holds r rows of Vh, B solves R B = U S with r columns",
        )
        A, B = pair
        own = torch.linalg.solve(weights["q"], first_layers(changes["q"], rank))
        missed = f"(miss {float((wanted - best).norm() / wanted.norm()):.3f})"
        require_close(
            f"the stacked change W B A at width {width}, rank {rank} {missed}",
            tall @ B.detach() @ A.detach(),
            best,
            suspects={
                "C is cut to rank r after solving: cut Q^T times the change, then solve": (
                    tall @ first_layers(free, rank)
                ),
                "the wishes are cut to rank r before the projection: project first": (
                    tall @ torch.linalg.lstsq(tall, first_layers(wanted, rank)).solution
                ),
                "only q is looked at: stack all parts": tall @ own,
                "the wishes of the parts are averaged: stack them instead": (
                    tall @ _nearest_to_mean(weights, changes, rank)
                ),
                "the singular values are left out: B solves R B = U S": (
                    _with_values(tall, wanted, rank, power=0)
                ),
                "the singular values are in it twice: put them into A or into B": (
                    _with_values(tall, wanted, rank, power=2)
                ),
                "A holds columns of Vh: the v_i are its rows, Vh[:r]": (
                    _with_values(tall, wanted, rank, columns=True)
                ),
                "R is left out: B has to solve R B = U S": (
                    tall @ first_layers(torch.linalg.qr(tall)[0].T @ wanted, rank)
                ),
            },
            otherwise="follow the three steps: QR of the stacked W, SVD of Q^T times the stacked "
            "change, then solve R B = U S",
            tolerance=1e-4,
        )
    return "no other pair of that rank comes closer, at two widths and ranks"


def first_layers(matrix: Tensor, rank: int) -> Tensor:
    """The best matrix of that rank, by way of an eigenbasis of its rows."""
    _, axes = torch.linalg.eigh(matrix.T @ matrix)
    return matrix @ axes[:, -rank:] @ axes[:, -rank:].T


def _nearest_to_mean(weights: dict[str, Tensor], changes: dict[str, Tensor], rank: int) -> Tensor:
    mean_weight = sum(weights.values()) / len(weights)
    mean_change = sum(changes.values()) / len(changes)
    return torch.linalg.solve(mean_weight, first_layers(mean_change, rank))


def _with_values(
    tall: Tensor, wanted: Tensor, rank: int, power: int = 1, columns: bool = False
) -> Tensor:
    """The first layers with the singular values to a power, or with Vh read the wrong way round."""
    basis, _ = torch.linalg.qr(tall)
    U, S, Vh = torch.linalg.svd(basis.T @ wanted)
    A = Vh.T[:rank] if columns else Vh[:rank]
    return basis @ (U[:, :rank] * S[:rank] ** power) @ A


def attention_loss(
    weights: dict[str, Tensor], x: Tensor, goal: Tensor, adapted: Tensor | None = None
) -> Tensor:
    """The squared distance of one-headed attention over tokens x (N, d) from a goal (N, d)."""
    tokens = x if adapted is None else adapted
    q, k, v = (tokens @ weights[part].T for part in PARTS)
    return (F.softmax(q @ k.T, dim=-1) @ v - goal).square().sum()


@exercise("1.4")
def serial_gradient_of_B(attempt) -> str:
    """The gradient of B against autograd's, through an attention with softmax."""
    for width, rank, scale in ((6, 2, 1.0), (5, 3, 0.5)):
        weights = {p: torch.randn(width, width) / width**0.5 for p in PARTS}
        x, goal, A = torch.randn(4, width), torch.randn(4, width), torch.randn(rank, width)
        for weight in weights.values():
            weight.requires_grad_()
        attention_loss(weights, x, goal).backward()
        g = {part: weight.grad for part, weight in weights.items()}
        W = {part: weight.detach() for part, weight in weights.items()}
        B = torch.zeros(width, rank, requires_grad=True)
        attention_loss(W, x, goal, x + scale * x @ A.T @ B.T).backward()
        total = sum(W[p].T @ g[p] for p in PARTS)
        what = f"a call with weights and gradients {width}x{width}, rank {rank}, scale {scale}"
        given = [tensor for part in PARTS for tensor in (W[part], g[part])] + [A]
        before = [tensor.clone() for tensor in given]
        require_close(
            f"the gradient of B at width {width}, rank {rank}, scale {scale}",
            call(attempt, W, g, A, scale, what=what),
            B.grad,
            suspects={
                "the scale is forgotten": total @ A.T,
                "W is left out: that is the gradient of LoRA's B": scale * sum(g.values()) @ A.T,
                "W is not transposed: gradients travel back through W^T": (
                    scale * sum(W[p] @ g[p] for p in PARTS) @ A.T
                ),
                "only q is counted: k and v read the same tokens": scale * W["q"].T @ g["q"] @ A.T,
                "the parts are averaged: gradients of one matrix add up": scale * total @ A.T / 3,
                "the gradient is transposed: W^T g, not W^T g^T or g^T W": (
                    scale * sum(g[p].T @ W[p] for p in PARTS) @ A.T
                ),
                "the weights are added up before they are multiplied: add the products": (
                    scale * sum(W.values()).T @ sum(g.values()) @ A.T
                ),
                "the sign is turned: that is the step, not the gradient": -scale * total @ A.T,
                "A is left out: B meets A x, not x": scale * total,
                "it has to be transposed: the gradient has the shape of B, (d, r)": (
                    scale * A @ total.T
                ),
                "the scale is applied twice": scale**2 * total @ A.T,
            },
        )
        require(
            all(torch.equal(*pair) for pair in zip(given, before, strict=True)),
            "the tensors that came in",
            "as before",
            "changed",
            "something was changed in place: make new tensors",
        )
    return "equal to autograd's through an attention with softmax, at two widths, ranks and scales"


class Sizes(TorchFunctionMode):
    """Notes how large the matrices are that are inverted or solved with."""

    NAMES = ("inv", "solve", "pinv", "lstsq", "lu", "svd", "eig", "qr", "cholesky", "matrix_power")

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "").removeprefix("linalg_")
        if name.startswith(self.NAMES) and args and isinstance(args[0], Tensor):
            self.largest = max(self.largest, *args[0].shape[-2:])
        return func(*args, **(kwargs or {}))


@exercise("1.5")
def undo_merge(attempt) -> str:
    """The old weight, by way of small matrices only."""
    for outputs, width, rank, scale in ((7, 7, 2, 1.0), (12, 8, 3, 0.5)):
        old = torch.randn(outputs, width)
        A, B = torch.randn(rank, width) / width**0.5, torch.randn(width, rank) / width**0.5
        eye, small = torch.eye(width), torch.eye(rank)
        merged = old @ (eye + scale * B @ A)
        given = [tensor.clone() for tensor in (merged, A, B)]
        with Sizes() as sizes:
            got = call(attempt, *given, scale)

        def with_small(matrix: Tensor, factor: float = scale, A=A, B=B, merged=merged) -> Tensor:
            return merged - factor * merged @ B @ torch.linalg.inv(matrix) @ A

        require_close(
            f"the old weight, W {outputs}x{width}, rank {rank}, scale {scale}",
            got,
            old,
            suspects={
                "that subtracts s W' B A: right for LoRA, here only the first term of a series": (
                    merged - scale * merged @ B @ A
                ),
                "LoRA's way, W' - s B A: Serial LoRA multiplied": (
                    merged - scale * B @ A if outputs == width else merged
                ),
                "the scale inside the (r, r) matrix is forgotten": with_small(small + A @ B),
                "the scale in front is forgotten": with_small(small + scale * A @ B, 1.0),
                "the scale is forgotten": with_small(small + A @ B, 1.0),
                "the I in the (r, r) matrix is forgotten": with_small(scale * A @ B),
                "the sign inside is turned: it is I + s A B": with_small(small - scale * A @ B),
                "the sign in front is turned: it is I - s B N A": with_small(
                    small + scale * A @ B, -scale
                ),
                "the (r, r) matrix is multiplied with: solve with it": with_small(
                    torch.linalg.inv(small + scale * A @ B)
                ),
                "that merges once more: divide, do not multiply": merged @ (eye + scale * B @ A),
                "that is the merged weight itself: nothing is undone": merged,
                "that is the change alone: W' minus it is wanted": (
                    merged - with_small(small + scale * A @ B)
                ),
            },
            tolerance=1e-4,
        )
        require(
            sizes.largest <= rank,
            f"the largest matrix that is inverted or solved with, at rank {rank}",
            f"{rank} x {rank}",
            f"{sizes.largest} x {sizes.largest}",
            "the numbers are right, by way of a (d, d) matrix: use the push-through identity",
        )
        require(
            all(torch.equal(*pair) for pair in zip(given, (merged, A, B), strict=True)),
            "the tensors that came in",
            "as before",
            "changed",
            "something was changed in place: return a new tensor",
        )
    return "the old weight comes back, square or not, and nothing larger than (r, r) was inverted"
