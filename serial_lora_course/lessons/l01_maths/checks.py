"""Checks of lesson 01: what a rank misses, LoRA itself, LoRA's pairs for a shared one, two gradients.

Each compares with another road to the same numbers: approximations that are made and measured, dense
weights in place of pairs, and autograd.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import require
from serial_lora_course.checking.running import exercise

# ------------------------------------------------------------------ 1.1 what each rank misses


def missed_by_making(matrix: Tensor) -> Tensor:
    """The misses of a matrix (m, n), by making each approximation from an eigenbasis of its rows."""
    _, axes = torch.linalg.eigh(matrix.T @ matrix)  # (n, n), ascending
    kept = [matrix @ axes[:, k:] @ axes[:, k:].T for k in reversed(range(len(axes) + 1))]
    left = [(matrix - near).norm() for near in kept[: min(matrix.shape)]]
    return torch.stack([*left, left[0] * 0]) / matrix.norm()


def misses_with(
    of_tails: Callable = lambda S, r: S[r:].norm() / S.norm(), more: int = 1
) -> Callable:
    """The misses with one thing changed: ``of_tails(S, r)`` for ranks 0 to len(S) + more - 1."""

    def attempt(matrix):
        S = torch.linalg.svdvals(matrix)
        return torch.stack([torch.as_tensor(of_tails(S, r)) for r in range(len(S) + more)])

    return attempt


@exercise(
    "1.1",
    "each rank's miss is that of the best matrix, made and measured, for tall, wide and thin matrices",
    {
        "the root is forgotten: a miss is the root of the share of the squares": (
            misses_with(lambda S, r: (S[r:].norm() / S.norm()) ** 2)
        ),
        "the values are added without squares: Frobenius norms add squares": (
            misses_with(lambda S, r: S[r:].sum() / S.sum())
        ),
        "it is not divided by the size of the whole: a miss is a share": (
            misses_with(lambda S, r: S[r:].norm())
        ),
        "that is what is kept: a miss is about what is left out": (
            misses_with(lambda S, r: S[:r].norm() / S.norm())
        ),
        "one minus the root is not the root of one minus: subtract the squares": (
            misses_with(lambda S, r: 1 - S[:r].norm() / S.norm())
        ),
        "rank 0 is left out: entry 0 is 1, as nothing is kept": (
            lambda matrix: misses_with()(matrix)[1:]
        ),
        "the full rank is left out: the last entry is 0, as nothing is missing": misses_with(
            more=0
        ),
        "one too few is left out: at rank r the layers from S[r] on are missing": (
            misses_with(lambda S, r: S[r + 1 :].norm() / S.norm())
        ),
    },
)
def misses() -> Iterator[Case]:
    """Entry r is what the best matrix of rank r misses."""
    for rows, columns, rank in ((7, 5, 5), (4, 6, 4), (6, 6, 3)):
        left, right = torch.randn(rows, rank).double(), torch.randn(rank, columns).double()
        matrix = left @ right
        yield Case(
            f"the misses at ranks 0 to {min(rows, columns)} of a {rows}x{columns} matrix of rank {rank}",
            (matrix,),
            missed_by_making(matrix),
            form=f"one number for each rank from 0 to {min(rows, columns)}, in one tensor",
            nan="1 minus what is kept rounds to a little below 0 at the full rank, which has no root: "
            "add up what is left out, or clamp(min=0)",
            tolerance=1e-6,
        )


# ------------------------------------------------------------------------------- 1.2 LoRA itself

START = {
    "what is trained, and its shapes": {"lora_A": (2, 6), "lora_B": (4, 2)},
    "lora_B at the start": "all zero",
    "lora_A at the start": "random numbers",
}


def advice_on_trained(found: dict[str, tuple]) -> str:
    """What most likely went wrong with what is trained."""
    if () in found.values():
        return "the scale is fixed, a plain number: only A and B are learnt"
    if set(found) > {"lora_A", "lora_B"}:
        return "the base is trained too: base.requires_grad_(False) freezes it"
    if any(name.endswith(".weight") for name in found):
        return "nn.Linear keeps its matrix as .weight, which becomes a part of the name: use nn.Parameter"
    if set(found) == {"lora_A", "lora_B"}:
        return "A is (rank, base.in_features), B is (base.out_features, rank)"
    return "wrap two tensors in nn.Parameter, and call them lora_A and lora_B"


ADVICE = {
    "what is trained, and its shapes": advice_on_trained,
    "lora_B at the start": "B is not zero: a fresh adapter would change the model it adapts",
    "lora_A at the start": "A is not drawn anew for each layer, or not of ordinary size: where A and B are both "
    "zero, neither ever gets a gradient",
}


def layer_by(kind: Callable) -> Callable:
    """What a class makes of tokens with a pair A, B; without a pair, what a fresh layer is like."""

    def attempt(do, weight, bias, A=None, B=None, alpha=4.0, x=None):
        base = nn.Linear(*weight.T.shape, bias=bias is not None)
        base.load_state_dict(
            {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        )
        rank = 2 if A is None else len(A)
        layer = kind(base, rank, alpha)
        if do == "start":
            return start_of(layer, kind(copy.deepcopy(base), rank, alpha))
        for name, value in (("lora_A", A), ("lora_B", B)):
            setattr(layer, name, value)
        result = layer.merged_weight() if do == "merge" else layer(x)
        same = torch.equal(base.weight, weight)
        cause = "the base's weight is changed in place (as += does): return a new tensor"
        require(same, "the base's weight, after the call", "as before", "changed", cause)
        return result

    return attempt


def start_of(layer: nn.Module, another: nn.Module) -> dict[str, Any]:
    """All that counts in a fresh layer, made twice."""
    kind, cause = type(layer).__name__, "inherit from nn.Module and call super().__init__() first"
    require(isinstance(layer, nn.Module), "what was made", "an nn.Module", f"a {kind}", cause)
    trained = {n: p.detach() for n, p in layer.named_parameters() if p.requires_grad}
    shapes = {name: tuple(p.shape) for name, p in trained.items()}
    if set(trained) != {"lora_A", "lora_B"}:
        return dict(zip(START, (shapes, "", ""), strict=True))
    A, spread = trained["lora_A"], float(trained["lora_A"].std())
    random = bool(A.isfinite().all()) and 1e-3 < spread < 10 and not bool((A == A[:1]).all())
    said = "random numbers" if random else f"they spread by {spread:.1g}"
    if torch.equal(A, another.lora_A):
        said = "the same in each layer" if random else said
    zero = "other numbers" if trained["lora_B"].any() else "all zero"
    return dict(zip(START, (shapes, zero, said), strict=True))


def lora_with(
    forward: Callable = lambda s, x: s.base(x) + s.scale * x @ s.lora_A.T @ s.lora_B.T,
    merge: Callable = lambda s: s.base.weight + s.scale * s.lora_B @ s.lora_A,
    A: Callable = torch.randn,
    B: Callable = torch.zeros,
    scale: Callable = lambda alpha, rank: alpha / rank,
    wrap: Callable = nn.Parameter,
    frozen: bool = True,
) -> type[nn.Module]:
    """LoRA with one thing changed."""

    class Layer(nn.Module):
        def __init__(self, base, rank, alpha):
            super().__init__()
            self.base = base.requires_grad_(not frozen)
            self.lora_A = wrap(A(rank, base.in_features))
            self.lora_B = wrap(B(base.out_features, rank))
            self.scale = scale(alpha, rank)
            self.old = (self.lora_B @ self.lora_A).detach()

        def forward(self, x):
            return forward(self, x)

        def merged_weight(self):
            return merge(self)

    return Layer


def in_place(layer: nn.Module) -> Tensor:
    """Adds to the base."""
    layer.base.weight += layer.scale * layer.lora_B.detach() @ layer.lora_A.detach()
    return layer.base.weight


@exercise(
    "1.2",
    "a fresh layer is its base, a trained one is W + (alpha / r) B A with the bias kept, square or not; "
    "only A and B learn; merging gives that weight and leaves the base alone",
    {
        ADVICE["lora_B at the start"]: lora_with(B=torch.randn),
        ADVICE["lora_A at the start"]: tuple(
            lora_with(A=start) for start in (torch.zeros, torch.ones, torch.eye)
        ),
        "the base is trained too: base.requires_grad_(False) freezes it": lora_with(frozen=False),
        "wrap two tensors in nn.Parameter, and call them lora_A and lora_B": lora_with(
            wrap=lambda tensor: tensor
        ),
        "A is (rank, base.in_features), B is (base.out_features, rank)": lora_with(
            A=lambda r, n: torch.randn(n, r), B=lambda m, r: torch.zeros(r, m)
        ),
        "the scale is fixed, a plain number: only A and B are learnt": lora_with(
            scale=lambda alpha, rank: nn.Parameter(torch.tensor(alpha / rank))
        ),
        "the scale is alpha / rank, not alpha": lora_with(scale=lambda alpha, rank: alpha),
        "// rounds down to a whole number: alpha / rank": lora_with(
            scale=lambda alpha, rank: alpha // rank
        ),
        "alpha / sqrt(rank) is rsLoRA's scale: LoRA's is alpha / rank": lora_with(
            scale=lambda alpha, rank: alpha / rank**0.5
        ),
        "the bias is lost: base(x) adds it": lora_with(
            forward=lambda s, x: x @ (s.base.weight + s.scale * s.lora_B @ s.lora_A).T
        ),
        "the base is left out: its output and the pair's are added": lora_with(
            forward=lambda s, x: s.scale * x @ s.lora_A.T @ s.lora_B.T
        ),
        "the pair reads what the base gave: it reads x, beside the base": lora_with(
            forward=lambda s, x: s.base(x) + s.scale * s.base(x) @ s.lora_A.T @ s.lora_B.T
        ),
        "the tokens are changed before the base reads them: that is Serial LoRA": lora_with(
            forward=lambda s, x: s.base(x + s.scale * x @ s.lora_A.T @ s.lora_B.T)
        ),
        "the product is kept from __init__, where B was zero: compute it in forward": lora_with(
            forward=lambda s, x: s.base(x) + s.scale * x @ s.old.T
        ),
        "the scale is left out of the merged weight": lora_with(
            merge=lambda s: s.base.weight + s.lora_B @ s.lora_A
        ),
        "A^T B^T is the transposed change: the weight of nn.Linear is (out, in), so B A": lora_with(
            merge=lambda s: s.base.weight + s.scale * s.lora_A.T @ s.lora_B.T
        ),
        "that is the change alone: the merged weight is W and the change": lora_with(
            merge=lambda s: s.scale * s.lora_B @ s.lora_A
        ),
        "the base's weight is changed in place (as += does): return a new tensor": lora_with(
            merge=in_place
        ),
    },
    through=layer_by,
)
def lora_linear() -> Iterator[Case]:
    """A fresh layer's facts; outputs and merged weights against a dense weight."""
    W, b = torch.randn(4, 6), torch.randn(4)
    yield Case("a fresh layer", ("start", W, b), Parts(START), advice=ADVICE)
    for out, width, rank, alpha, bias in ((6, 6, 3, 4.5, True), (4, 7, 2, 1.0, False)):
        W, b = torch.randn(out, width), torch.randn(out) if bias else None
        A, B = (nn.Parameter(torch.randn(*size)) for size in ((rank, width), (out, rank)))
        x, dense = torch.randn(2, 3, width), W + alpha * torch.einsum("or,ri->oi", B, A) / rank
        kind = (
            f"rank {rank}, alpha {alpha:g}, base {out}x{width} {'with' if bias else 'without'} bias"
        )
        leaves = lambda do, W, b, A, B, alpha, x=None: {"lora_A": A, "lora_B": B}  # noqa: E731
        given = (W, b, A, B, alpha)
        yield Case(f"the output, {kind}", ("run", *given, x), F.linear(x, dense, b), leaves=leaves)
        yield Case(f"the merged weight, {kind}", ("merge", *given), dense, leaves=leaves)


# ------------------------------------------------------------------------- 1.3 equal LoRA pairs


def changes_of(pairs: Any, weights: dict[str, Tensor], A: Tensor, B: Tensor) -> list[Tensor]:
    """B_p A_p of what the learner returned, after a look at the shapes."""
    wanted = {part: [A.shape, (len(W), len(A))] for part, W in weights.items()}
    got = {part: [tuple(each.shape) for each in pair] for part, pair in pairs.items()}
    require(got == wanted, "the shapes of A_p and B_p of each part", wanted, got, FORM_1_3)
    return [pairs[part][1] @ pairs[part][0] for part in weights]


FORM_1_3 = "return a dict with one pair for every part that came in: A_p (r, d) and B_p (out, r)"


def pairs_with(of_B: Callable = torch.matmul, of_A: Callable = lambda weight, A: A) -> Callable:
    """A pair for each part with one thing changed: ``of_B(W, B)`` and ``of_A(W, A)``."""

    def attempt(weights, A, B):
        return {part: (of_A(weight, A), of_B(weight, B)) for part, weight in weights.items()}

    return attempt


@exercise(
    "1.3",
    "the change of each weight, square or not, is the one that the shared pair makes",
    {
        "B is passed on as it is, with d rows: W_p has to act on it first, as B_p writes where W_p "
        "writes": pairs_with(lambda W, B: B),
        "W_p acts on A's side: the token meets A first, W_p last": (
            pairs_with(lambda W, B: B, lambda W, A: A @ W)
        ),
        "W_p is transposed: nn.Linear's weight is the formula's W": pairs_with(
            lambda W, B: W.T @ B
        ),
        "q's weight serves for every part: each has its own W_p": lambda weights, A, B: {
            part: (A, weights["q"] @ B) for part in weights
        },
        "the order is A_p first, B_p second": lambda weights, A, B: {
            part: pair[::-1] for part, pair in pairs_with()(weights, A, B).items()
        },
        "both factors are transposed: A_p is (r, d) and B_p is (out, r)": lambda weights, A, B: {
            part: (A.T, (W @ B).T) for part, W in weights.items()
        },
        "the names of the parts are written out: go through weights.items()": (
            lambda weights, A, B: {part: (A, weights[part] @ B) for part in "qkv"}
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
            read=changes_of,
            form=FORM_1_3,
        )


# ----------------------------------------------------------------------------- 1.4 two gradients


def attention_loss(weights: dict[str, Tensor], x: Tensor, goal: Tensor) -> Tensor:
    """The squared distance of one-headed attention over tokens x (N, d) from a goal (N, out)."""
    q, k, v = (x @ weight.T for weight in weights.values())
    return (F.softmax(q @ k.T, dim=-1) @ v - goal).square().sum()


def gradients_with(
    of_part: Callable = lambda W, g: W.T @ g,
    parts: Callable = list,
    of_A: Callable = lambda total, A, B, s: s * B.T @ total,
    of_B: Callable = lambda total, A, B, s: s * total @ A.T,
) -> Callable:
    """The gradients of A and B with one thing changed."""

    def attempt(weights, gradients, A, B, scale):
        total = sum(of_part(weights[part], gradients[part]) for part in parts(weights))
        return of_A(total, A, B, scale), of_B(total, A, B, scale)

    return attempt


def zeros(total: Tensor, A: Tensor, B: Tensor, s: float) -> Tensor:
    """No gradient."""
    return torch.zeros_like(A)


@exercise(
    "1.4",
    "both equal autograd's through an attention with softmax, for square weights and others",
    {
        "the scale is forgotten": gradients_with(
            of_A=lambda total, A, B, s: B.T @ total, of_B=lambda total, A, B, s: total @ A.T
        ),
        "only q is counted: k and v read the same tokens": gradients_with(
            parts=lambda W: list(W)[:1]
        ),
        "v is left out: it reads the adapted tokens too": gradients_with(
            parts=lambda W: list(W)[:2]
        ),
        "the gradient of A is zero only while B is: here B is not": gradients_with(of_A=zeros),
        "A's gradient passes through B: s B^T times the sum": gradients_with(
            of_A=lambda total, A, B, s: s * A @ total
        ),
        "the order is A's gradient (r, d) first, B's (d, r) second": lambda *given: (
            gradients_with()(*given)[::-1]
        ),
        "a gradient has the shape of its matrix: A's is (r, d), B's is (d, r)": lambda *given: (
            tuple(each.T for each in gradients_with()(*given))
        ),
        "W is left out: gradients reach the pair through W^T": gradients_with(lambda W, g: g),
        "W is not transposed: gradients travel back through W^T": gradients_with(
            lambda W, g: W @ g
        ),
        "weights and gradients are paired by their place: pair them by their names": (
            lambda W, g, *given: gradients_with()(W, dict(zip(W, g.values(), strict=True)), *given)
        ),
        "the names of the parts are written out: go through weights.items()": gradients_with(
            parts=lambda W: "qkv"
        ),
    },
)
def shared_gradients() -> Iterator[Case]:
    """The gradients of A and B against autograd's, through an attention with softmax."""
    for outs, width, rank, scale in (
        ({"q": 6, "k": 6, "v": 6}, 6, 2, 0.7),
        ({"query": 4, "key": 4, "value": 3}, 5, 3, 0.5),
    ):
        W = {part: torch.randn(out, width) / width**0.5 for part, out in outs.items()}
        A, B = (torch.randn(*size, requires_grad=True) for size in ((rank, width), (width, rank)))
        x, goal = torch.randn(4, width), torch.randn(4, [*outs.values()][-1])
        attention_loss(W, x + scale * x @ A.T @ B.T, goal).backward()
        used = {p: w + scale * (w @ B.detach()) @ A.detach() for p, w in W.items()}
        for weight in used.values():
            weight.requires_grad_()
        attention_loss(used, x, goal).backward()
        g = {part: used[part].grad for part in [*outs][::-1]}
        sizes = ", ".join(f"{out}x{width}" for out in outs.values())
        kind = f"for weights {sizes}, rank {rank}, scale {scale}"
        parts = {f"the gradient of A, {kind}": A.grad, f"the gradient of B, {kind}": B.grad}
        given = (W, g, A.detach(), B.detach(), scale)
        yield Case(
            f"a call, {kind}", given, Parts(parts), form="return two tensors, for A and for B"
        )
