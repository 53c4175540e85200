"""Checks of lesson 03: the adapter, its place, its merge, and three probes that find bugs."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from serial_lora_course.checking.message import likely, require
from serial_lora_course.checks.blocks import (
    DenseBlock,
    EqualPairs,
    Faithful,
    Ineffective,
    OnTheStream,
    Pair,
    PairEach,
    SharedPair,
    adapted_tokens,
)
from serial_lora_course.checks.cases import Case, call, run_cases
from serial_lora_course.checks.checking import exercise

# ------------------------------------------------------------------------------- 3.1 the adapter


@exercise("3.1")
def serial_adapter(attempt) -> str:
    """Names, shapes, start, forward pass and gradients of the learner's module."""
    for width, rank, scales in ((12, 3, (0.5,)), (8, 2, ())):
        adapter = call(attempt, width, rank, *scales)
        _require_parameters(adapter, width, rank)
        _require_start(adapter)
        another = call(attempt, width, rank, *scales)
        require(
            not torch.equal(adapter.lora_A, another.lora_A),
            "lora_A of two adapters, made one after the other",
            "different numbers",
            "the same",
            "every adapter gets the same A: draw new numbers for each, and set no seed in a layer",
        )
        kept = (
            "what depends on lora_A or lora_B is computed in forward: kept from __init__, it is old"
        )
        call(copy.deepcopy, adapter, what="copy.deepcopy(adapter)", cause=kept)
        with torch.no_grad():
            adapter.lora_B.normal_()
        table = _forward_cases(adapter, width, rank, scales[0] if scales else 1.0)
        run_cases(lambda table=table: table, "", adapter)
    return (
        "two named matrices, B zero and A not, the output of I + scale B A for tokens of any "
        "shape, and the gradients of x, A and B"
    )


def _require_parameters(adapter: nn.Module, width: int, rank: int) -> None:
    kind = type(adapter).__name__
    cause = "inherit from nn.Module and call super().__init__() first"
    module = isinstance(adapter, nn.Module)
    require(module, "the kind of thing that was made", "an nn.Module", kind, cause)
    shapes = {name: tuple(p.shape) for name, p in adapter.named_parameters()}
    expected = {"lora_A": (rank, width), "lora_B": (width, rank)}
    conditions = {
        "A and B are swapped: A (r, d) leads down to the rank, B (d, r) back up": (
            shapes == {"lora_A": (width, rank), "lora_B": (rank, width)}
        ),
        "the scale is fixed, a plain number: only A and B are learnt": "scale" in shapes,
        "plain tensors are not trained: wrap them in nn.Parameter": not shapes,
        "nn.Linear keeps its matrix as .weight, which becomes a part of the name: use nn.Parameter": (
            any(name.endswith(".weight") and len(shape) == 2 for name, shape in shapes.items())
        ),
        "the shapes come from the arguments: A (rank, width), B (width, rank)": (
            set(shapes) == set(expected)
        ),
        "a pair has no bias": any("bias" in n or len(shape) == 1 for n, shape in shapes.items()),
        "that is a pair per projection: one pair serves q, k and v": len(shapes) > 2,
    }
    cause = likely(
        conditions,
        "name the parameters lora_A and lora_B: other tools find them by these names",
    )
    require(shapes == expected, "the parameters and their shapes", expected, shapes, cause)
    kinds = {name: str(p.dtype).removeprefix("torch.") for name, p in adapter.named_parameters()}
    cause = "adapters are float32, as torch.randn and torch.zeros make them: x is float32 too"
    wanted = dict.fromkeys(kinds, "float32")
    require(kinds == wanted, "the kind of numbers in the parameters", wanted, kinds, cause)


def _require_start(adapter: nn.Module) -> None:
    A, B = adapter.lora_A.detach(), adapter.lora_B.detach()
    what, zero_A = "lora_A at the start", not A.any()
    swapped = "A and B are swapped at the start: B is the zero one"
    cause = swapped if zero_A else "B is not zero: a fresh adapter would change the model it adapts"
    require(not B.any(), "lora_B at the start", "all zero", "other numbers", cause)
    cause = "with A and B both zero, neither ever gets a gradient: nothing could learn"
    require(not zero_A, what, "random numbers", "all zero", cause)
    cause = "equal rows of A learn the same: draw random numbers, such as nn.init.normal_ does"
    equal = bool((A == A[:1]).all())
    require(not equal, what, "random numbers", "every row like the first", cause)
    spread = float(A.std())
    require(
        bool(A.isfinite().all()) and 1e-3 < spread < 10,
        f"the spread of {what}",
        "between 0.001 and 10",
        spread,
        "A starts with random numbers of ordinary size, as nn.init.normal_ or kaiming_uniform_ "
        "draw them: torch.empty holds anything, and a large A makes the first steps explode",
    )
    closed = [name for name, p in adapter.named_parameters() if not p.requires_grad]
    cause = "A and B are what is trained: leave requires_grad as nn.Parameter sets it"
    require(not closed, "parameters without a gradient", "none", ", ".join(closed), cause)


def _forward_cases(adapter: nn.Module, width: int, rank: int, scale: float) -> Iterator[Case]:
    A, B = adapter.lora_A, adapter.lora_B
    for shape in ((2, 5, width), (3, width), (2, 3, 4, width)):
        x = torch.randn(shape).requires_grad_(len(shape) != 3)
        leaves = {"x": x} if x.requires_grad else {}
        adapter.train(len(shape) != 4)
        product = torch.einsum("...i,ri,or->...o", x, A, B)
        default = "" if scale != 1 else "the default of scale is 1, so that nothing is hidden in it"
        causes = {
            "x itself is lost: return x plus the product": scale * product,
            "x comes back unchanged: compute the product in forward, from lora_A and lora_B as they "
            "are then, in eval mode too": x,
            "x is added twice": 2 * x + scale * product,
            "the product is subtracted": x - scale * product,
            "the scale is applied twice": x + scale**2 * product,
            "the scale is forgotten": x + product,
            "the scale multiplies x too: it belongs to the product alone": scale * (x + product),
            "A and B are swapped in the product": x + scale * (x @ B @ A),
            "scale is divided by the rank: here it counts as it is": x + scale / rank * product,
        }
        for between in (torch.relu, nn.functional.gelu, nn.functional.silu, torch.tanh):
            cause = f"{between.__name__} is between A and B: such a change cannot be merged"
            causes[cause] = x + scale * between(x @ A.T) @ B.T
        what = (
            f"the output for x of shape {shape}, in {'train' if adapter.training else 'eval'} mode, at "
            f"rank {rank} and "
            f"{'scale ' + str(scale) if scale != 1 else 'the default scale'}"
        )
        expected = adapted_tokens(x, A, B, scale)
        yield Case(
            what,
            (x,),
            expected,
            causes,
            otherwise=default,
            error=""
            if len(shape) == 3
            else "tokens have any number of dimensions: x @ A.T takes "
            "the last of them, whatever stands before",
            leaves=lambda x, named=tuple(leaves): {
                **{name: x for name in named},
                "lora_A": A,
                "lora_B": B,
            },
        )


# --------------------------------------------------------------------------------- 3.2 its place


@exercise("3.2", "equal to a block whose q, k and v hold W (I + B A), and so are all gradients")
def adapted_forward() -> Iterator[Case]:
    """The adapter sits after the norm, before q, k and v, and outside the residual stream."""
    for width, rank, heads in ((8, 2, 2), (12, 3, 3)):
        block, pair = DenseBlock(width, heads), Pair(width, rank, fresh=False)
        x = torch.randn(2, 4, width).requires_grad_(heads == 3)
        merged = copy.deepcopy(block)  # W (I + B A) in place of W, so no adapter is needed
        dense = torch.eye(width) + pair.lora_B @ pair.lora_A
        for layer in (merged.q, merged.k, merged.v):
            weight = layer.weight.detach() @ dense
            del layer.weight
            layer.weight = weight
        normed, stream = block.norm(x), pair(x)
        inside = block.attention(pair(normed))
        plain, read = (
            [layer(tokens) for layer in (block.q, block.k, block.v)]
            for tokens in (normed, pair(normed))
        )
        only_q = block.attend(read[0], *plain[1:])
        causes = {
            "the adapter is before the residual split: it changes the stream itself": (
                stream + block.attention(block.norm(stream))
            ),
            "the adapter is before the norm, not after it": x + block.attention(block.norm(stream)),
            "the adapter is on the output, not before q, k and v": (
                x + pair(block.attention(normed))
            ),
            "the adapter is on the whole output of the block": pair(block(x)),
            "only q is adapted: k and v read the same adapted tokens": x + only_q,
            "q reads plain tokens: q, k and v all read the adapted ones": (
                x + block.attend(plain[0], *read[1:])
            ),
            "k reads plain tokens: q, k and v all read the adapted ones": (
                x + block.attend(read[0], plain[1], read[2])
            ),
            "v reads plain tokens: q, k and v all read the adapted ones": (
                x + block.attend(*read[:2], plain[2])
            ),
            "the adapter is behind q, k and v: it comes before them": (
                x + block.attend(*map(pair, plain))
            ),
            "block(...) brings a norm and a residual of its own: call block.attention": (
                block(pair(normed))
            ),
            "block(...) brings a norm and a residual of its own, so x is added twice": (
                x + block(pair(normed))
            ),
            "the norm acts twice: once, before the adapter": (
                x + block.attention(block.norm(pair(normed)))
            ),
            "the adapted tokens are added to the stream: they belong inside attention": (
                x + pair(normed) + block.attention(normed)
            ),
            "only the stream is adapted; attention should read the adapted tokens": (
                stream + block.attention(normed)
            ),
            "the stream is adapted as well: only attention reads adapted tokens": stream + inside,
            "the residual is lost: add x, unadapted, at the end": inside,
            "the normed tokens go in twice: the adapter's output already holds them": (
                x + block.attention(normed + pair(normed))
            ),
            "the norm is left out": x + block.attention(pair(x)),
            "the adapter is never used": block(x),
            "the residual comes from the normed tokens: add x": normed + inside,
            "the adapter acts twice: call it once": x + block.attention(pair(pair(normed))),
        }
        what = f"the block's output at width {width}, rank {rank}, {heads} heads"
        yield Case(
            what,
            (block, pair, x),
            merged(x),
            causes,
            leaves=lambda block, pair, x: {
                **({"x": x} if x.is_leaf and x.requires_grad else {}),
                "lora_A": pair.lora_A,
                "lora_B": pair.lora_B,
            },
            tolerance=1e-4,
        )


# --------------------------------------------------------------------------------- 3.3 its merge


@exercise(
    "3.3", "equal to adapting each token first, for square and rectangular W; the old W is intact"
)
def merged_weight() -> Iterator[Case]:
    """W (I + scale B A), compared on tokens and without touching the weight that came in."""
    for outputs, width, rank, scale in ((6, 6, 3, 0.5), (9, 5, 2, 0.25)):
        weight, identity = torch.randn(outputs, width), torch.eye(width)
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        rows = [adapted_tokens(row, A, B, scale) @ weight.T for row in identity]
        causes = {
            "the scale is forgotten": weight @ (identity + B @ A),
            "the scale multiplies W too, not just the product": scale * weight @ (identity + B @ A),
            "scale is divided by the rank: here it counts as it is": (
                weight @ (identity + scale / rank * B @ A)
            ),
            "the I is forgotten: W itself is lost": scale * weight @ B @ A,
            "A and B are swapped or transposed: B A is (d, d), from B (d, r) and A (r, d)": (
                weight @ (identity + scale * A.T @ B.T)
            ),
            "the result is transposed: it has W's shape, (out, d)": torch.stack(rows),
            "1 + adds one to every entry: I has ones on its diagonal alone, torch.eye(d)": (
                weight @ (1 + scale * B @ A)
            ),
            "* multiplies entry by entry: a matrix product is written @": (
                lambda W=weight, BA=scale * B @ A: W * (torch.eye(len(BA)) + BA)
            ),
            "the product is subtracted": weight - scale * weight @ B @ A,
            "the scale is applied twice": weight + scale**2 * weight @ B @ A,
            "that is LoRA, W + B A: Serial LoRA multiplies, W (I + B A)": (
                lambda W=weight, BA=scale * B @ A: W + BA
            ),
            "the order is turned round: the tokens meet I + B A first, so it is on the right": (
                lambda W=weight, BA=scale * B @ A: W + BA @ W
            ),
        }
        what = f"the merged weight for W {outputs}x{width}, rank {rank}, scale {scale}"
        yield Case(what, (weight, A, B, scale), torch.stack(rows).T, causes)


# ------------------------------------------------------------------------------ 3.4 to 3.6 probes


TURNED = "the answer is turned round: True and False are exchanged"
LOOSE = "the tolerance is too loose: this block's change is small, and a change all the same"
REBOUND = "with copy_ or normal_ (p = ... only gives the name to another tensor)"


def scaled(adapted: Faithful, weight: str, factor: float) -> Faithful:
    """The block with one of its weights made larger or smaller."""
    with torch.no_grad():
        adapted.get_parameter(weight).mul_(factor)
    return adapted


@exercise("3.4", "the no-op is found, and adapters that work are not blamed, however small")
def has_effect() -> Iterator[Case]:
    """True for adapters that reach the output, though B starts at zero; False for the no-op."""
    cases = {  # block, and what a tolerance that is too loose says of it, where that is sure
        "little": (scaled(Faithful(), "block.out.weight", 0.001), {LOOSE: False}),
        "much": (scaled(Faithful(), "block.out.weight", 1e4), {LOOSE: True}),
        "nothing, as the adapted values are stored and not used": (Ineffective(), {}),
        "to the stream itself": (OnTheStream(), {}),
        "by a pair for each of q, k and v": (PairEach(), {}),
    }
    for adds, (adapted, loose) in cases.items():
        expected = not isinstance(adapted, Ineffective)
        causes = {
            "B starts at zero, so a fresh adapter has no effect by design: fill B first, "
            f"{REBOUND}, then compare": False,
            "this adapter never reaches the output: change lora_B alone, nothing of the base, "
            "and compare outputs, not parameters": True,
            TURNED: not expected,
            **loose,
        }
        what = f"has_effect on a block whose adapter adds {adds}"
        yield Case(what, (adapted, torch.randn(2, 4, 8)), expected, causes)


@exercise("3.5", "an adapter on the residual stream is told from one in front of attention")
def keeps_residual() -> Iterator[Case]:
    """True when x itself passes the block unadapted."""
    cases = {
        "changes the stream a little": (
            scaled(OnTheStream(), "pair.lora_A", 0.01),
            {LOOSE: True},
        ),
        "changes the stream a lot": (scaled(OnTheStream(), "pair.lora_A", 1e4), {LOOSE: False}),
        "stands in front of attention": (Faithful(), {}),
        "is a pair for each of q, k and v": (PairEach(), {}),
    }
    for does, (adapted, loose) in cases.items():
        expected = not isinstance(adapted, OnTheStream)
        causes = {
            "attention still adds something: set weight and bias of block.out to zero first": False,
            f"the stream is adapted here: fill B first, {REBOUND}, as a fresh adapter hides "
            "the change": True,
            TURNED: not expected,
            **loose,
        }
        what = f"keeps_residual on a block whose adapter {does}"
        advice = "silence attention at block.out: not every block calls block.attention"
        yield Case(what, (adapted, torch.randn(2, 4, 8)), expected, causes, otherwise=advice)


@exercise(
    "3.6", "one shared pair counts once, whatever number of names it has; three pairs count three"
)
def pairs_in() -> Iterator[Case]:
    """The number of different pairs."""
    for kind, expected in ((Faithful, 1), (PairEach, 3), (SharedPair, 1), (EqualPairs, 3)):
        adapted = kind()
        causes = {
            "both matrices of a pair are counted: count lora_A alone": 2 * expected,
            "a pair with three names is still one pair: named_parameters() lists it once": (
                expected if kind is Faithful else 3
            ),
            "elements are counted, not pairs": expected * 2 * 8,
            "elements of both matrices are counted, not pairs": expected * 2 * 2 * 8,
            "the block's own weights are counted too": len(list(adapted.parameters())),
            "that is 1 for every block: count": 1,
            "pairs with equal numbers are taken for one: they are different tensors, and move apart": (
                1 if kind is EqualPairs else expected
            ),
        }
        what = f"pairs_in on a block of the kind: {kind.__doc__}"
        yield Case(
            what,
            (adapted,),
            expected,
            causes,
            otherwise="go through named_parameters() and count the names that end in lora_A",
        )
