"""Checks of lesson 03: the adapter, its place, its merge, and three probes that find bugs.

The blocks here are written with matrices and einsum, apart from the lesson's own, so that the same
slip cannot hide in both.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from serial_lora_course.checks.checking import call, exercise, require, require_close, require_equal


def adapted_tokens(x: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float) -> Tensor:
    """x + scale x A^T B^T by way of the dense matrix I + scale B A."""
    dense = torch.eye(x.shape[-1]) + scale * torch.einsum("or,ri->oi", lora_B, lora_A)
    return torch.einsum("...i,oi->...o", x, dense)


def _call_and_keep(adapter: nn.Module, x: Tensor):
    """The adapter's output, after a look at whether the tokens that came in are still the same."""
    given = x.clone()
    output = call(adapter, given)
    require(
        torch.equal(given, x),
        "the tokens that came in",
        "as before",
        "changed",
        "x is changed in place (+=): the residual stream needs it whole, so make a new tensor",
    )
    return output


@exercise("3.1")
def serial_adapter(attempt) -> str:
    """Names, shapes, start, and the forward pass of the learner's module."""
    for width, rank, scale in ((8, 2, 1.0), (12, 3, 0.5)):
        adapter = call(attempt, width, rank, scale)
        require(
            isinstance(adapter, nn.Module),
            "the kind of thing that was made",
            "an nn.Module",
            type(adapter).__name__,
            "inherit from nn.Module and call super().__init__() first",
        )
        shapes = {name: tuple(p.shape) for name, p in adapter.named_parameters()}
        expected = {"lora_A": (rank, width), "lora_B": (width, rank)}
        if shapes == {"lora_A": (width, rank), "lora_B": (rank, width)}:
            cause = "A and B are swapped: A (r, d) leads down to the rank, B (d, r) back up"
        elif "scale" in shapes:
            cause = "the scale is fixed, a plain number: only A and B are learnt"
        elif not shapes:
            cause = "plain tensors are not trained: wrap them in nn.Parameter"
        elif any("bias" in name or len(shape) == 1 for name, shape in shapes.items()):
            cause = "a pair has no bias"
        elif len(shapes) > 2:
            cause = "that is a pair per projection: one pair serves q, k and v"
        else:
            cause = "name the parameters lora_A and lora_B: other tools find them by these names"
        require(shapes == expected, "the parameters and their shapes", expected, shapes, cause)
        zero_A = not adapter.lora_A.detach().any()
        require(
            not adapter.lora_B.detach().any(),
            "lora_B at the start",
            "all zero",
            "other numbers",
            "A and B are swapped at the start: B is the zero one"
            if zero_A
            else "B is not zero: a fresh adapter would change the model it adapts",
        )
        require(
            not zero_A,
            "lora_A at the start",
            "random numbers",
            "all zero",
            "with A and B both zero, neither ever gets a gradient: nothing could learn",
        )
        start = adapter.lora_A.detach()
        require(
            bool(torch.isfinite(start).all()) and bool((start != start[0, 0]).any()),
            "lora_A at the start",
            "random numbers",
            "the same number everywhere" if bool((start == start[0, 0]).all()) else "nan or inf",
            "equal rows of A learn the same: draw random numbers, such as nn.init.normal_ does",
        )
        closed = [name for name, p in adapter.named_parameters() if not p.requires_grad]
        require(
            not closed,
            "parameters that ask for no gradient",
            "none",
            ", ".join(closed),
            "A and B are what is trained: leave requires_grad as nn.Parameter sets it",
        )
        with torch.no_grad():
            adapter.lora_B.normal_()
        A, B = adapter.lora_A.detach(), adapter.lora_B.detach()
        x = torch.randn(2, 5, width)
        product = torch.einsum("...i,ri,or->...o", x, A, B)
        require_close(
            f"the output at width {width}, rank {rank}, scale {scale}",
            _call_and_keep(adapter, x),
            adapted_tokens(x, A, B, scale),
            suspects={
                "x itself is lost: return x plus the product": scale * product,
                "the scale is forgotten": x + product,
                "the scale multiplies x too: it belongs to the product alone": (
                    scale * (x + product)
                ),
                "A and B are swapped in the product": x + scale * (x @ B @ A),
                "scale is divided by the rank here: this course uses it as it is": (
                    x + scale / rank * product
                ),
            },
        )
    return "two named matrices, B zero and A not, and the output of I + scale B A at two sizes"


class DenseBlock(nn.Module):
    """The attention half of a block, one head after another, in plain matrix products."""

    def __init__(self, width: int = 8, heads: int = 2):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)
        self.heads = heads
        for name in ("q", "k", "v", "out"):
            layer = nn.Linear(width, width)
            nn.init.normal_(layer.weight, std=0.5)
            setattr(self, name, layer)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, d) each -> (B, N, d)."""
        size = q.shape[-1] // self.heads
        mixed = []
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            scores = torch.einsum("bnc,bmc->bnm", q[..., part], k[..., part]) / math.sqrt(size)
            mixed.append(torch.einsum("bnm,bmc->bnc", scores.softmax(-1), v[..., part]))
        return self.out(torch.cat(mixed, dim=-1))

    def attention(self, tokens: Tensor) -> Tensor:
        """Normed tokens (B, N, d) -> what attention adds to the stream."""
        return self.attend(self.q(tokens), self.k(tokens), self.v(tokens))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return x + self.attention(self.norm(x))


class Pair(nn.Module):
    """x + B A x; ``fresh`` leaves B at zero."""

    def __init__(self, width: int = 8, rank: int = 2, fresh: bool = True):
        super().__init__()
        self.lora_A = nn.Parameter(torch.randn(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        if not fresh:
            nn.init.normal_(self.lora_B)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return adapted_tokens(x, self.lora_A, self.lora_B, 1.0)


@exercise("3.2")
def adapted_forward(attempt) -> str:
    """The adapter sits after the norm, before q, k and v, and outside the residual stream."""
    for width, rank, heads in ((8, 2, 2), (12, 3, 3)):
        block, pair = DenseBlock(width, heads), Pair(width, rank, fresh=False)
        x = torch.randn(2, 4, width)
        with torch.no_grad():
            normed = block.norm(x)
            only_q = block.attend(block.q(pair(normed)), block.k(normed), block.v(normed))
            merged = copy.deepcopy(block)  # W (I + B A) in place of W, so no adapter is needed
            for layer in (merged.q, merged.k, merged.v):
                layer.weight.copy_(layer.weight @ (torch.eye(width) + pair.lora_B @ pair.lora_A))
            stream = pair(x)
            require_close(
                f"the block's output at width {width}, rank {rank}, {heads} heads",
                call(attempt, block, pair, x),
                merged(x),
                suspects={
                    "the adapter is before the residual split: it changes the stream itself": (
                        stream + block.attention(block.norm(stream))
                    ),
                    "the adapter is before the norm: it belongs after it": (
                        x + block.attention(block.norm(stream))
                    ),
                    "the adapter is on the output: it belongs in front of q, k and v": (
                        x + pair(block.attention(normed))
                    ),
                    "the adapter is on the whole output of the block": pair(block(x)),
                    "only q is adapted: k and v read the same adapted tokens": x + only_q,
                    "the adapted tokens are added to the stream: they belong inside attention": (
                        x + pair(normed) + block.attention(normed)
                    ),
                    "only the stream is adapted; attention should read the adapted tokens": (
                        stream + block.attention(normed)
                    ),
                    "the residual is lost: add x, unadapted, at the end": (
                        block.attention(pair(normed))
                    ),
                    "the normed tokens go in twice: the adapter's output already holds them": (
                        x + block.attention(normed + pair(normed))
                    ),
                    "the norm is left out": x + block.attention(pair(x)),
                    "the adapter is never used": block(x),
                    "the residual comes from the normed tokens: add x": (
                        normed + block.attention(pair(normed))
                    ),
                },
                tolerance=1e-4,
            )
    return "equal to a block whose q, k and v hold W (I + B A), at two sizes"


@exercise("3.3")
def merged_weight(attempt) -> str:
    """W (I + scale B A), compared on tokens and without touching the weight that came in."""
    for outputs, width, rank, scale in ((6, 6, 2, 1.0), (9, 5, 2, 0.25)):
        weight = torch.randn(outputs, width)
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        kept = weight.clone()
        identity = torch.eye(width)
        suspects = {
            "the scale is forgotten": weight @ (identity + B @ A),
            "the I is forgotten: W itself is lost": scale * weight @ B @ A,
            "A and B are swapped or transposed: B A is (d, d), from B (d, r) and A (r, d)": (
                weight @ (identity + scale * A.T @ B.T)
            ),
        }
        if outputs == width:
            suspects |= {
                "that is LoRA, W + B A: Serial LoRA multiplies, W (I + B A)": (
                    weight + scale * B @ A
                ),
                "the order is turned round: the tokens meet I + B A first, so it is on the right": (
                    (identity + scale * B @ A) @ weight
                ),
            }
        got = call(attempt, weight, A, B, scale)
        rows = [adapted_tokens(row, A, B, scale) @ kept.T for row in identity]
        require_close(
            f"the merged weight for W {outputs}x{width}, rank {rank}, scale {scale}",
            got,
            torch.stack(rows).T,
            suspects=suspects,
        )
        require(
            torch.equal(weight, kept),
            "the weight that came in",
            "as before",
            "changed",
            "the weight was changed in place: make a new one, the old one is wanted for unmerging",
        )
    return "equal to adapting each token first, for square and rectangular W; the old W is intact"


class Faithful(nn.Module):
    """Serial LoRA as the paper has it."""

    def __init__(self, fresh: bool = True):
        super().__init__()
        self.block = DenseBlock()
        self.pair = Pair(fresh=fresh)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return x + self.block.attention(self.pair(self.block.norm(x)))


class Ineffective(Faithful):
    """The adapted values are stored, and the plain block runs."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        self.stored = self.block.q(self.pair(self.block.norm(x))).detach()
        return self.block(x)


class OnTheStream(Faithful):
    """The block's input is adapted before the residual split."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        return self.block(self.pair(x))


class PairEach(nn.Module):
    """A pair for each of q, k and v."""

    def __init__(self, fresh: bool = True):
        super().__init__()
        self.block = DenseBlock()
        self.pairs = nn.ModuleDict({name: Pair(fresh=fresh) for name in "qkv"})

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        normed = self.block.norm(x)
        q, k, v = (getattr(self.block, name)(self.pairs[name](normed)) for name in "qkv")
        return x + self.block.attend(q, k, v)


class SharedPair(PairEach):
    """One pair that q, k and v all refer to: three names, one pair."""

    def __init__(self, fresh: bool = True):
        super().__init__(fresh)
        self.pairs["k"] = self.pairs["v"] = self.pairs["q"]


def _require_answer(what: str, got, expected, cause: str) -> None:
    require(
        isinstance(got, (bool, int)),
        what,
        expected,
        got,
        "a plain True, False or number is wanted: .item() or bool() makes one from a tensor",
    )
    require_equal(what, got, expected, otherwise=cause)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def _require_untouched(module: nn.Module, before: dict[str, Tensor]) -> None:
    require(
        all(torch.equal(value, before[name]) for name, value in module.state_dict().items()),
        "the block that came in, afterwards",
        "as before",
        "changed",
        "the probe changes the block it was given: work on copy.deepcopy(adapted)",
    )


@exercise("3.4")
def has_effect(attempt) -> str:
    """True for adapters that reach the output, though B starts at zero; False for the no-op."""
    cases = [(Faithful, True), (Ineffective, False), (OnTheStream, True), (PairEach, True)]
    for kind, expected in cases:
        adapted, x = kind(), torch.randn(2, 4, 8)
        before = _state(adapted)
        _require_answer(
            f"has_effect on a block of the kind: {kind.__doc__}",
            call(attempt, adapted, x),
            expected,
            "B starts at zero, so a fresh adapter has no effect by design: fill B first, then "
            "compare"
            if expected
            else "this adapter never reaches the output: change lora_B alone, nothing of the "
            "base, and compare outputs, not parameters",
        )
        _require_untouched(adapted, before)
    return "the no-op is found, and three adapters that work are not blamed"


@exercise("3.5")
def keeps_residual(attempt) -> str:
    """True when x itself passes the block unadapted."""
    for kind, expected in [(Faithful, True), (OnTheStream, False), (PairEach, True)]:
        adapted, x = kind(), torch.randn(2, 4, 8)
        before = _state(adapted)
        _require_answer(
            f"keeps_residual on a block of the kind: {kind.__doc__}",
            call(attempt, adapted, x),
            expected,
            "attention still adds something: set weight and bias of block.out to zero first"
            if expected
            else "the stream is adapted here: fill B first, a fresh adapter hides the change",
        )
        _require_untouched(adapted, before)
    return "an adapter on the residual stream is told from one in front of attention"


@exercise("3.6")
def pairs_in(attempt) -> str:
    """The number of different pairs."""
    for kind, expected in [(Faithful, 1), (PairEach, 3), (SharedPair, 1)]:
        got = call(attempt, kind())
        what = f"pairs_in on a block of the kind: {kind.__doc__}"
        require_equal(
            what,
            got,
            expected,
            suspects={
                "both matrices of a pair are counted: count lora_A alone": 2 * expected,
                "a pair with three names is still one pair: named_parameters() lists it once": 3,
                "elements are counted, not pairs": expected * 2 * 8,
                "elements of both matrices are counted, not pairs": expected * 2 * 2 * 8,
            },
            otherwise="go through named_parameters() and count the names that end in lora_A",
        )
    return "one shared pair counts once, whatever number of names it has; three pairs count three"
