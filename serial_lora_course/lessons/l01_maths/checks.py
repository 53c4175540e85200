"""Checks of lesson 01: LoRA's bet, LoRA itself, Serial LoRA and the LoRA in it, its best copy, a control.

Each compares with the same numbers computed another way: by eigenvectors in place of SVD and QR, and by
dense weights in place of pairs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.fresh import A_START, B_START, TRAINED, facts_of, fresh_pair
from serial_lora_course.checking.message import likely, require
from serial_lora_course.checking.running import exercise


def best_by_axes(matrix: Tensor, chosen: list[int]) -> Tensor:
    """The chosen terms of a matrix (m, n), from an eigenbasis of its rows."""
    _, axes = torch.linalg.eigh(matrix.T @ matrix)  # (n, n), ascending
    some = axes.flip(1)[:, chosen]
    return matrix @ some @ some.T


@exercise(
    "1.1",
    "the chosen terms of each part are kept, the largest and others, for several sizes",
)
def keep() -> Iterator[Case]:
    """Terms that are made from an eigenbasis."""
    for width, chosen in ((4, [0, 1]), (5, [3, 1, 4]), (3, [2])):
        update = torch.randn(3 * width, width, dtype=torch.float64)
        kept = torch.cat([best_by_axes(part, chosen) for part in update.chunk(3)])
        what = f"the terms {chosen} of each part of a {3 * width}x{width} change"
        yield Case(what, (update, chosen), kept, tolerance=1e-6)


# ------------------------------------------------------------------------------- 1.2 LoRA itself


def advice_on_trained(found: dict[str, tuple]) -> str:
    """What most likely went wrong with what is trained."""
    causes = {
        "the scale is a parameter: make it a plain number, as only A and B are trained": ()
        in found.values(),
        "the base is trained too: base.requires_grad_(False) freezes it": (
            set(found) > {"lora_A", "lora_B"}
        ),
        "nn.Linear keeps its matrix as .weight, which becomes a part of the name: use nn.Parameter": (
            any(name.endswith(".weight") for name in found)
        ),
        "the shapes are wrong: A is (rank, base.in_features), B is (base.out_features, rank)": (
            set(found) == {"lora_A", "lora_B"}
        ),
    }
    return likely(
        causes,
        "the layer has no parameters lora_A and lora_B: wrap both tensors in nn.Parameter under these names",
    )


ADVICE = {
    TRAINED: advice_on_trained,
    B_START: "B does not start at zero, so a fresh adapter would change the model it adapts",
    A_START: "A does not start with new random numbers of ordinary size for each layer; if A and B "
    "are both zero, neither ever gets a gradient",
}


def layer_by(kind: Callable) -> Callable:
    """What a class makes of tokens with a pair A, B; without a pair, what a fresh layer is like."""

    def attempt(do, weight, bias, A=None, B=None, alpha=4.0, x=None):
        base = nn.Linear(*weight.T.shape, bias=bias is not None)
        base.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        rank = 2 if A is None else len(A)
        layer = kind(base, rank, alpha)
        if do == "start":
            return facts_of(layer, kind(copy.deepcopy(base), rank, alpha), base=True)
        layer.lora_A, layer.lora_B = A, B
        result = layer.merged_weight() if do == "merge" else layer(x)
        same = torch.equal(base.weight, weight)
        cause = "the base's weight is changed in place, as += does: return a new tensor"
        require(same, "the base's weight, after the call", "as before", "changed", cause)
        return result

    return attempt


@exercise(
    "1.2",
    "a fresh layer equals its base, a trained one equals W + (alpha / r) B A with the bias, square or not; "
    "only A and B are trained; merging gives that weight and does not change the base",
    through=layer_by,
)
def lora_linear() -> Iterator[Case]:
    """A fresh layer's facts; outputs and merged weights against a dense weight."""
    given = ("start", torch.randn(4, 6), torch.randn(4))
    yield Case("a fresh layer", given, fresh_pair((2, 6), (4, 2)), advice=ADVICE)
    for out, width, rank, alpha, bias in ((6, 6, 3, 4.5, True), (4, 7, 2, 1.0, False)):
        W, b = torch.randn(out, width), torch.randn(out) if bias else None
        A, B = (nn.Parameter(torch.randn(*size)) for size in ((rank, width), (out, rank)))
        x, dense = torch.randn(2, 3, width), W + alpha * torch.einsum("or,ri->oi", B, A) / rank
        with_bias = "with" if bias else "without"
        kind = f"rank {rank}, alpha {alpha:g}, base {out}x{width} {with_bias} bias"
        leaves = lambda do, W, b, A, B, alpha, x=None: {"lora_A": A, "lora_B": B}  # noqa: E731
        given = (W, b, A, B, alpha)
        yield Case(f"the output, {kind}", ("run", *given, x), F.linear(x, dense, b), leaves=leaves)
        yield Case(f"the merged weight, {kind}", ("merge", *given), dense, leaves=leaves)


# --------------------------------------------------------------------- 1.3 Serial LoRA and its LoRA

FORM_1_3 = "one for each of q, k and v, in this order"


def qkv_by(kind: Callable) -> Callable:
    """What a class reads from tokens with a pair A, B, or B_p A_p of the LoRA pairs that it names."""

    def attempt(do, W, A, B, alpha, x=None):
        layer = kind(W, len(A), alpha)
        layer.lora_A, layer.lora_B = A, B
        if do == "run":
            read = layer(x)
            wanted, got = [tuple(x.shape)] * 3, [tuple(each.shape) for each in read]
            require(got == wanted, "the shapes of what forward returns", wanted, got, FORM_1_3)
            return torch.stack([*read])
        pairs = layer.as_lora()
        wanted, got = [(A.shape, B.shape)] * 3, [tuple(each.shape for each in p) for p in pairs]
        require(got == wanted, "the shapes of A_p and B_p", wanted, got, FORM_1_3)
        return torch.stack([B_p @ A_p for A_p, B_p in pairs])

    return attempt


@exercise(
    "1.3",
    "q, k and v equal W_p (I + s B A) x for tokens of any shape, B_p A_p equals the change, and so do gradients",
    through=qkv_by,
)
def serial_qkv() -> Iterator[Case]:
    """Outputs, and the changes that LoRA's pairs make, against dense weights."""
    sizes = (6, 3, 4.5, (2, 4, 6)), (4, 1, 2.0, (5, 4)), (5, 2, 1.0, (5,))
    for width, rank, alpha, shape in sizes:
        W, x = torch.randn(3 * width, width), torch.randn(shape)
        A, B = (nn.Parameter(torch.randn(*size)) for size in ((rank, width), (width, rank)))
        change = torch.einsum("or,ri->oi", B, A)
        dense = torch.eye(width) + alpha / rank * change
        leaves = lambda do, W, A, B, alpha, x=None: {"lora_A": A, "lora_B": B}  # noqa: E731
        rows, given = W.unflatten(0, (3, width)), (W, A, B, alpha)  # (3, d, d)
        read = torch.einsum("...i,poi->p...o", x, rows @ dense)
        kind = f"width {width}, rank {rank}, alpha {alpha:g}"
        what = f"q, k and v of tokens of shape {shape}, {kind}"
        yield Case(what, ("run", *given, x), read, leaves=leaves)
        yield Case(f"the three B_p A_p, {kind}", ("pairs", *given), rows @ change, leaves=leaves)


def onto(W: Tensor) -> Tensor:
    """The projection onto what W's n columns span, (m, m), from eigenvectors."""
    axes = torch.linalg.eigh(W @ W.T)[1][:, -W.shape[1] :]
    return axes @ axes.T


@exercise("1.4", "the copy is the nearest change W C of each rank")
def imitate() -> Iterator[Case]:
    """Projected first, by eigenvectors, and then cut."""
    for width, rank in ((4, 2), (3, 1), (5, 5)):
        W = torch.randn(3 * width, width, dtype=torch.float64)
        wanted = torch.randn(3 * width, width, dtype=torch.float64)
        what = f"the copy of a {3 * width}x{width} change by W C of rank {rank}"
        nearest = best_by_axes(onto(W) @ wanted, [*range(rank)])
        yield Case(what, (W, wanted, rank), nearest, tolerance=1e-6)


@exercise(
    "1.5", "the directions are W's, the singular values are the new ones, and M is as large as W"
)
def stretched() -> Iterator[Case]:
    """From the eigenvectors of WᵀW, in place of an SVD."""
    changes = {
        "the same": torch.ones_like,
        "reversed": lambda S: S.flip(0),
        "squared": torch.square,
    }
    for width, (how, change) in zip((4, 2, 5), changes.items(), strict=True):
        W = torch.randn(3 * width, width, dtype=torch.float64)
        squares, V = torch.linalg.eigh(W.T @ W)  # ascending
        S = squares.flip(0).sqrt()
        M = W @ V.flip(1) @ torch.diag(change(S) / S) @ V.flip(1).T
        expected = M * (W.square().sum() / M.square().sum()).sqrt()
        yield Case(f"{how}, for W of {3 * width}x{width}", (W, change), expected, tolerance=1e-6)
