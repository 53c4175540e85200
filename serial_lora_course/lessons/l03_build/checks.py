"""Checks of lesson 03: the adapter, its place, its merge, and three probes that find bugs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking.case import Case, Parts, call
from serial_lora_course.checking.running import exercise
from serial_lora_course.lessons.l03_build.blocks import (
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

# ------------------------------------------------------------------------------- 3.1 the adapter

SHAPES = "the parameters and their shapes"


def advice_on_shapes(found: dict[str, tuple]) -> str:
    """What most likely went wrong with the parameters, whatever they are called."""
    if "scale" in found:
        return "the scale is fixed, a plain number: only A and B are learnt"
    if not found:
        return "plain tensors are not trained: wrap them in nn.Parameter"
    if any(name.endswith(".weight") for name in found):
        return "nn.Linear keeps its matrix as .weight, which becomes a part of the name: use nn.Parameter"
    if set(found) == {"lora_A", "lora_B"}:
        return "the shapes come from the arguments: A (rank, width), B (width, rank)"
    if any("bias" in name or len(shape) == 1 for name, shape in found.items()):
        return "a pair has no bias"
    if len(found) > 2:
        return "that is a pair per projection: one pair serves q, k and v"
    return "name the parameters lora_A and lora_B: other tools find them by these names"


ADVICE_3_1 = {
    "what was made": "inherit from nn.Module and call super().__init__() first",
    SHAPES: advice_on_shapes,
    "lora_B at the start": "B is not zero: a fresh adapter would change the model it adapts",
    "lora_A at the start": "A starts with random numbers of ordinary size, as nn.init.normal_ or "
    "kaiming_uniform_ draw them: torch.empty holds anything",
}
KEPT = "what depends on lora_A or lora_B is computed in forward: kept from __init__, it is old"


def start_of(A: Tensor) -> str:
    """What an A at the start is like, in words."""
    if not A.any():
        return "all zero"
    if bool((A == A[:1]).all()):
        return "every row like the first"
    spread = float(A.std())
    fine = bool(A.isfinite().all()) and 1e-3 < spread < 10
    return "random numbers of ordinary size" if fine else f"numbers that spread by {spread:.1g}"


def adapter_by(kind: Callable) -> Callable:
    """What a class makes of tokens with the pair A, B; without tokens, what it is like at the start."""

    def attempt(arguments: tuple, A=None, B=None, x=None, training=True):
        torch.manual_seed(0)
        adapter = kind(*arguments)
        if x is None:
            return facts(adapter, kind(*arguments))
        adapter.lora_A, adapter.lora_B = A, B
        return adapter.train(training)(x)

    return attempt


def facts(adapter: nn.Module, another: nn.Module) -> dict[str, object]:
    """All that counts in a fresh adapter."""
    if not isinstance(adapter, nn.Module):
        return dict.fromkeys(EXPECTED, "") | {"what was made": f"a {type(adapter).__name__}"}
    named = dict(adapter.named_parameters())
    found: dict[str, object] = {"what was made": "an nn.Module"}
    found[SHAPES] = {name: tuple(p.shape) for name, p in named.items()}
    found["the kind of numbers"] = ", ".join(sorted({str(p.dtype) for p in named.values()}))
    if set(named) != {"lora_A", "lora_B"}:
        return dict.fromkeys(EXPECTED, "") | found
    found["lora_B at the start"] = "other numbers" if adapter.lora_B.any() else "all zero"
    found["lora_A at the start"] = start_of(adapter.lora_A.detach())
    found["parameters without a gradient"] = (
        ", ".join(n for n, p in named.items() if not p.requires_grad) or "none"
    )
    same = torch.equal(adapter.lora_A, another.lora_A)
    found["lora_A of a second adapter"] = "the same" if same else "other numbers"
    call(copy.deepcopy, adapter, what="copy.deepcopy(adapter)", cause=KEPT)
    return found


EXPECTED = {
    "what was made": "an nn.Module",
    SHAPES: {},
    "the kind of numbers": "torch.float32",
    "lora_B at the start": "all zero",
    "lora_A at the start": "random numbers of ordinary size",
    "parameters without a gradient": "none",
    "lora_A of a second adapter": "other numbers",
}


def adapter_with(
    forward: Callable = lambda x, A, B, s: x + s * x @ A.T @ B.T,
    A: Callable = torch.randn,
    B: Callable = torch.zeros,
    names: tuple[str, str] = ("lora_A", "lora_B"),
    wrap: Callable = nn.Parameter,
    end: Callable = lambda adapter: None,
    default: float = 1.0,
) -> type[nn.Module]:
    """An adapter class with one thing changed; ``end`` is called at the end of ``__init__``."""

    class Adapter(nn.Module):
        def __init__(self, width, rank, scale=default):
            super().__init__()
            self.scale = scale
            setattr(self, names[0], wrap(A(rank, width)))
            setattr(self, names[1], wrap(B(width, rank)))
            end(self)

        def forward(self, x):
            return forward(x, self.lora_A, self.lora_B, self.scale)

    return Adapter


class OldProduct(adapter_with()):
    """The product is taken once, at the start."""

    def __init__(self, *given):
        super().__init__(*given)
        self.product = (self.lora_B @ self.lora_A).detach()

    def forward(self, x):
        """(..., d) -> (..., d)."""
        return x + self.scale * x @ self.product.T


class OldTranspose(OldProduct):
    """A transposed view is kept from the start."""

    def __init__(self, *given):
        super().__init__(*given)
        self.transposed = self.lora_A.T


class TrainOnly(adapter_with()):
    """Works in train mode alone."""

    def forward(self, x):
        """(..., d) -> (..., d)."""
        return super().forward(x) if self.training else x


class EarlyParameters(nn.Module):
    """Parameters before super().__init__()."""

    def __init__(self, width, rank, scale=1.0):
        self.lora_A = nn.Parameter(torch.randn(rank, width))


class LinearLayers(nn.Module):
    """The matrices as nn.Linear: other names."""

    def __init__(self, width, rank, scale=1.0):
        super().__init__()
        self.lora_A = nn.Linear(width, rank, bias=False)
        self.lora_B = nn.Linear(rank, width, bias=False)


def seeded(*size: int) -> Tensor:
    """The same numbers at every call."""
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def with_parameter(name: str, make: Callable) -> Callable:
    """Registers one parameter more."""
    return lambda adapter: adapter.register_parameter(name, nn.Parameter(make(adapter)))


BETWEEN = {
    f"{f.__name__} is between A and B: such a change cannot be merged": (
        adapter_with(lambda x, A, B, s, f=f: x + s * f(x @ A.T) @ B.T)
    )
    for f in (torch.relu, F.gelu, F.silu, torch.tanh)
}


@exercise(
    "3.1",
    "two named matrices, B zero and A not, the output of I + scale B A for tokens of any shape, and the "
    "gradients of x, A and B",
    {
        "A and B are swapped: A (r, d) leads down to the rank, B (d, r) back up": adapter_with(
            A=lambda rank, width: torch.randn(width, rank),
            B=lambda width, rank: torch.zeros(rank, width),
        ),
        "B is not zero: a fresh adapter would change the model it adapts": (
            adapter_with(B=torch.randn)
        ),
        "A and B are swapped at the start: B is the zero one": (
            adapter_with(A=torch.zeros, B=torch.randn)
        ),
        "with A and B both zero, neither ever gets a gradient: nothing could learn": (
            adapter_with(A=torch.zeros)
        ),
        "equal rows of A learn the same: draw random numbers, such as nn.init.normal_ does": (
            adapter_with(A=lambda rank, width: torch.full((rank, width), 0.1)),
            adapter_with(A=lambda rank, width: torch.randn(1, width).repeat(rank, 1)),
        ),
        "every adapter gets the same A: draw new numbers for each, and set no seed in a layer": (
            adapter_with(A=seeded),
            adapter_with(A=torch.eye),
        ),
        "a large A makes the first steps explode: numbers of ordinary size, as nn.init.normal_ draws": (
            adapter_with(A=lambda *size: 100 * torch.randn(size))
        ),
        "torch.empty holds anything, NaN and infinity too: draw random numbers": (
            adapter_with(A=lambda *size: torch.full(size, torch.inf) * torch.randn(size))
        ),
        "the scale is fixed, a plain number: only A and B are learnt": adapter_with(
            end=lambda a: (
                delattr(a, "scale") or with_parameter("scale", lambda a: torch.ones(()))(a)
            )
        ),
        "plain tensors are not trained: wrap them in nn.Parameter": adapter_with(wrap=torch.clone),
        "nn.Linear keeps its matrix as .weight, which becomes a part of the name: use nn.Parameter": (
            LinearLayers
        ),
        "the shapes come from the arguments: A (rank, width), B (width, rank)": adapter_with(
            A=lambda rank, width: torch.randn(4, width), B=lambda width, rank: torch.zeros(width, 4)
        ),
        "a pair has no bias": adapter_with(
            end=with_parameter("bias", lambda a: torch.zeros(len(a.lora_B)))
        ),
        "that is a pair per projection: one pair serves q, k and v": adapter_with(
            end=lambda a: [with_parameter(f"lora_{n}", lambda a: a.lora_A.clone())(a) for n in "kv"]
        ),
        "name the parameters lora_A and lora_B: other tools find them by these names": (
            adapter_with(names=("down", "up"))
        ),
        "adapters are float32, as torch.randn and torch.zeros make them: x is float32 too": (
            adapter_with(B=partial(torch.zeros, dtype=torch.float64))
        ),
        "A and B are what is trained: leave requires_grad as nn.Parameter sets it": (
            adapter_with(end=lambda a: a.lora_A.requires_grad_(False))
        ),
        "super().__init__() has to run first: nn.Module registers parameters only after it": (
            EarlyParameters
        ),
        KEPT: OldTranspose,
        "x comes back unchanged: compute the product in forward, from lora_A and lora_B as they are then": (
            OldProduct,
            adapter_with(lambda x, A, B, s: x),
        ),
        "the adapter works in train mode alone: in eval mode too, it is the model": TrainOnly,
        "x itself is lost: return x plus the product": (
            adapter_with(lambda x, A, B, s: s * x @ A.T @ B.T)
        ),
        "x is added twice": adapter_with(lambda x, A, B, s: 2 * x + s * x @ A.T @ B.T),
        "the product is subtracted": adapter_with(lambda x, A, B, s: x - s * x @ A.T @ B.T),
        "the scale is applied twice": adapter_with(lambda x, A, B, s: x + s**2 * x @ A.T @ B.T),
        "the scale is forgotten": adapter_with(lambda x, A, B, s: x + x @ A.T @ B.T),
        "the scale multiplies x too: it belongs to the product alone": (
            adapter_with(lambda x, A, B, s: s * (x + x @ A.T @ B.T))
        ),
        "A and B are swapped in the product": adapter_with(lambda x, A, B, s: x + s * x @ B @ A),
        "scale is divided by the rank: here it counts as it is": (
            adapter_with(lambda x, A, B, s: x + s / len(A) * x @ A.T @ B.T)
        ),
        "the default of scale is 1, so that nothing is hidden in it": adapter_with(default=2.0),
        "dropout is between A and B: here the adapter has none": (
            adapter_with(lambda x, A, B, s: x + s * F.dropout(x @ A.T, 0.5) @ B.T)
        ),
        "tokens have any number of dimensions: x @ A.T takes the last of them, whatever stands before": (
            adapter_with(lambda x, A, B, s: x + s * torch.einsum("bnd,rd,or->bno", x, A, B))
        ),
        "A is detached, and would never learn: leave detach away": (
            adapter_with(lambda x, A, B, s: x + s * x @ A.detach().T @ B.T)
        ),
        "x is detached on its way through the pair: what comes before would learn half": (
            adapter_with(lambda x, A, B, s: x + s * x.detach() @ A.T @ B.T)
        ),
    }
    | BETWEEN,
    through=adapter_by,
)
def serial_adapter() -> Iterator[Case]:
    """Names, shapes and start of the learner's module, then its forward pass and gradients."""
    for width, rank, scales in ((12, 3, (0.5,)), (8, 2, ())):
        arguments, scale = (width, rank, *scales), scales[0] if scales else 1.0
        shapes = {SHAPES: {"lora_A": (rank, width), "lora_B": (width, rank)}}
        yield Case(
            f"an adapter of width {width} and rank {rank}",
            (arguments,),
            Parts(EXPECTED | shapes),
            advice=ADVICE_3_1,
        )
        for shape, training in (
            ((2, 5, width), True),
            ((3, width), True),
            ((2, 3, 4, width), False),
        ):
            A, B = nn.Parameter(torch.randn(rank, width)), nn.Parameter(torch.randn(width, rank))
            x = torch.randn(shape).requires_grad_(len(shape) != 3)
            mode, said = (
                "train" if training else "eval",
                f"scale {scale}" if scales else "the default scale",
            )
            yield Case(
                f"the output for x of shape {shape}, in {mode} mode, at rank {rank} and {said}",
                (arguments, A, B, x, training),
                adapted_tokens(x, A, B, scale),
                advice=""
                if scales
                else "the default of scale is 1, so that nothing is hidden in it",
                leaves=lambda _, A, B, x, mode: (
                    ({"x": x} if x.requires_grad else {}) | {"lora_A": A, "lora_B": B}
                ),
            )


# --------------------------------------------------------------------------------- 3.2 its place


def plain_in(*plain: str) -> Callable:
    """A forward pass in which some of q, k and v read plain tokens."""

    def attempt(block, adapter, x):
        normed = block.norm(x)
        parts = [getattr(block, p)(normed if p in plain else adapter(normed)) for p in "qkv"]
        return x + block.attend(*parts)

    return attempt


def behind_q_k_v(block, adapter, x):
    """Queries, keys and values are adapted, not the tokens."""
    normed = block.norm(x)
    return x + block.attend(*(adapter(getattr(block, p)(normed)) for p in "qkv"))


@exercise(
    "3.2",
    "equal to a block whose q, k and v hold W (I + B A), and so are all gradients",
    {
        "the adapter is before the residual split: it changes the stream itself": (
            lambda block, pair, x: block(pair(x))
        ),
        "the adapter is before the norm, not after it": (
            lambda block, pair, x: x + block.attention(block.norm(pair(x)))
        ),
        "the adapter is on the output, not before q, k and v": (
            lambda block, pair, x: x + pair(block.attention(block.norm(x)))
        ),
        "the adapter is on the whole output of the block": lambda block, pair, x: pair(block(x)),
        "only q is adapted: k and v read the same adapted tokens": plain_in("k", "v"),
        "q reads plain tokens: q, k and v all read the adapted ones": plain_in("q"),
        "k reads plain tokens: q, k and v all read the adapted ones": plain_in("k"),
        "v reads plain tokens: q, k and v all read the adapted ones": plain_in("v"),
        "the adapter is behind q, k and v: it comes before them": behind_q_k_v,
        "block(...) brings a norm and a residual of its own: call block.attention": (
            lambda block, pair, x: block(pair(block.norm(x)))
        ),
        "block(...) brings a norm and a residual of its own, so x is added twice": (
            lambda block, pair, x: x + block(pair(block.norm(x)))
        ),
        "the norm acts twice: once, before the adapter": (
            lambda block, pair, x: x + block.attention(block.norm(pair(block.norm(x))))
        ),
        "the adapted tokens are added to the stream: they belong inside attention": (
            lambda block, pair, x: x + pair(block.norm(x)) + block.attention(block.norm(x))
        ),
        "only the stream is adapted; attention should read the adapted tokens": (
            lambda block, pair, x: pair(x) + block.attention(block.norm(x))
        ),
        "the stream is adapted as well: only attention reads adapted tokens": (
            lambda block, pair, x: pair(x) + block.attention(pair(block.norm(x)))
        ),
        "the residual is lost: add x, unadapted, at the end": (
            lambda block, pair, x: block.attention(pair(block.norm(x)))
        ),
        "the normed tokens go in twice: the adapter's output already holds them": (
            lambda block, pair, x: x + block.attention(block.norm(x) + pair(block.norm(x)))
        ),
        "the norm is left out": lambda block, pair, x: x + block.attention(pair(x)),
        "the adapter is never used": lambda block, pair, x: block(x),
        "the residual comes from the normed tokens: add x": (
            lambda block, pair, x: block.norm(x) + block.attention(pair(block.norm(x)))
        ),
        "the adapter acts twice: call it once": (
            lambda block, pair, x: x + block.attention(pair(pair(block.norm(x))))
        ),
        "a copy of the adapter is used, so the adapter itself would never learn": (
            lambda block, pair, x: x + block.attention(copy.deepcopy(pair)(block.norm(x)))
        ),
        "the tokens are detached before the adapter: what comes before would learn half": (
            lambda block, pair, x: x + block.attention(pair(block.norm(x).detach()))
        ),
    },
)
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
        yield Case(
            f"the block's output at width {width}, rank {rank}, {heads} heads",
            (block, pair, x),
            merged(x),
            leaves=lambda block, pair, x: {
                **({"x": x} if x.is_leaf and x.requires_grad else {}),
                "lora_A": pair.lora_A,
                "lora_B": pair.lora_B,
            },
            tolerance=1e-4,
        )


# --------------------------------------------------------------------------------- 3.3 its merge


@exercise(
    "3.3",
    "equal to adapting each token first, for square and rectangular W; the old W is intact",
    {
        "the scale is forgotten": lambda W, A, B, s: W + W @ B @ A,
        "the scale multiplies W too, not just the product": lambda W, A, B, s: s * (W + W @ B @ A),
        "scale is divided by the rank: here it counts as it is": (
            lambda W, A, B, s: W + s / len(A) * W @ B @ A
        ),
        "W is multiplied by the inverse of the scale": lambda W, A, B, s: W + W @ B @ A / s,
        "the I is forgotten: W itself is lost": lambda W, A, B, s: s * W @ B @ A,
        "A and B are swapped or transposed: B A is (d, d), from B (d, r) and A (r, d)": (
            lambda W, A, B, s: W + s * W @ A.T @ B.T,
            lambda W, A, B, s: W @ (torch.eye(len(B)) + s * A @ B),
        ),
        "the result is transposed: it has W's shape, (out, d)": (
            lambda W, A, B, s: (W + s * W @ B @ A).T
        ),
        "1 + adds one to every entry: I has ones on its diagonal alone, torch.eye(d)": (
            lambda W, A, B, s: W @ (1 + s * B @ A)
        ),
        "* multiplies entry by entry: a matrix product is written @": (
            lambda W, A, B, s: W * (torch.eye(len(B)) + s * B @ A)
        ),
        "the product is subtracted": lambda W, A, B, s: W - s * W @ B @ A,
        "the scale is applied twice": lambda W, A, B, s: W + s**2 * W @ B @ A,
        "that is LoRA, W + B A: Serial LoRA multiplies, W (I + B A)": (
            lambda W, A, B, s: W + s * B @ A
        ),
        "the order is turned round: the tokens meet I + B A first, so it is on the right": (
            lambda W, A, B, s: W + s * B @ A @ W
        ),
    },
)
def merged_weight() -> Iterator[Case]:
    """W (I + scale B A), compared on tokens and without touching the weight that came in."""
    for outputs, width, rank, scale in ((6, 6, 3, 0.5), (9, 5, 2, 0.25)):
        weight, identity = torch.randn(outputs, width), torch.eye(width)
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        rows = [adapted_tokens(row, A, B, scale) @ weight.T for row in identity]
        what = f"the merged weight for W {outputs}x{width}, rank {rank}, scale {scale}"
        yield Case(what, (weight, A, B, scale), torch.stack(rows).T)


# ------------------------------------------------------------------------------ 3.4 to 3.6 probes

TURNED = "the answer is turned round: True and False are exchanged"
LOOSE = "the tolerance is too loose: this block's change is small, and a change all the same"


def scaled(adapted: Faithful, weight: str, factor: float) -> Faithful:
    """The block with one of its weights made larger or smaller."""
    with torch.no_grad():
        adapted.get_parameter(weight).mul_(factor)
    return adapted


@torch.no_grad()
def changed(
    adapted: nn.Module,
    wanted: Callable[[str], bool] = lambda name: "lora_B" in name,
    fill: Callable[[Tensor], Tensor] = lambda p: torch.full_like(p, 0.3),
) -> nn.Module:
    """A copy in which the parameters of some names hold other numbers."""
    other = copy.deepcopy(adapted)
    for name, parameter in other.named_parameters():
        if wanted(name):
            parameter.copy_(fill(parameter))
    return other


def differs(one: Tensor, other: Tensor) -> bool:
    """Whether any entry differs."""
    return bool((one != other).any())


@exercise(
    "3.4",
    "the no-op is found, and adapters that work are not blamed, however small",
    {
        "B starts at zero, so a fresh adapter has no effect by design: fill B first, with copy_ or normal_ "
        "(p = ... only gives the name to another tensor), then compare": (
            lambda adapted, x: differs(adapted(x), adapted.block(x)),
            lambda adapted, x: differs(adapted(x), changed(adapted, fill=lambda p: p)(x)),
            lambda adapted, x: differs(adapted(x), changed(adapted, lambda n: "lora_A" in n)(x)),
        ),
        "this adapter never reaches the output: change lora_B alone, nothing of the base, and compare "
        "outputs, not parameters": (
            lambda adapted, x: True,
            lambda adapted, x: differs(adapted(x), changed(adapted, lambda name: True)(x)),
        ),
        TURNED: lambda adapted, x: not differs(adapted(x), changed(adapted)(x)),
        LOOSE: (
            lambda adapted, x: not torch.allclose(adapted(x), changed(adapted)(x), atol=1),
            lambda adapted, x: (adapted(x) - changed(adapted)(x)).abs().mean().item() > 1,
        ),
        "a plain True or False is wanted, not a float: compare with 0": (
            lambda adapted, x: (adapted(x) - changed(adapted)(x)).abs().max().item()
        ),
        "a plain True or False is wanted, not a Tensor: bool(...) makes one of a tensor": (
            lambda adapted, x: (adapted(x) != changed(adapted)(x)).any()
        ),
    },
)
def has_effect() -> Iterator[Case]:
    """True for adapters that reach the output, though B starts at zero; False for the no-op."""
    cases = {
        "little": scaled(Faithful(), "block.out.weight", 0.001),
        "much": scaled(Faithful(), "block.out.weight", 1e4),
        "nothing, as the adapted values are stored and not used": Ineffective(),
        "to the stream itself": OnTheStream(),
        "by a pair for each of q, k and v": PairEach(),
    }
    for adds, adapted in cases.items():
        expected = not isinstance(adapted, Ineffective)
        what = f"has_effect on a block whose adapter adds {adds}"
        yield Case(what, (adapted, torch.randn(2, 4, 8)), expected)


@torch.no_grad()
def silent(adapted: nn.Module, x: Tensor, fill=True, bias=True, tolerance=1e-6) -> bool:
    """Whether x passes when attention is silenced, with one thing changed."""
    quiet = changed(adapted, lambda name: fill and "lora_B" in name)
    quiet.block.out.weight.zero_()
    if bias:
        quiet.block.out.bias.zero_()
    return bool((quiet(x) - x).abs().max() < tolerance)


@torch.no_grad()
def without_method(adapted: nn.Module, x: Tensor) -> bool:
    """The method is replaced, which not every block calls."""
    quiet = changed(adapted)
    quiet.block.attention = torch.zeros_like
    return torch.equal(quiet(x), x)


@exercise(
    "3.5",
    "an adapter on the residual stream is told from one in front of attention",
    {
        "attention still adds something: set weight and bias of block.out to zero first": (
            lambda adapted, x: silent(adapted, x, bias=False),
            lambda adapted, x: torch.equal(adapted(x), x),
            lambda adapted, x: not differs(adapted(x), changed(adapted)(x)),
        ),
        "the stream is adapted here: fill B first, with copy_ or normal_ (p = ... only gives the name to "
        "another tensor), as a fresh adapter hides the change": (
            lambda adapted, x: silent(adapted, x, fill=False),
            lambda adapted, x: True,
        ),
        TURNED: lambda adapted, x: not silent(adapted, x),
        LOOSE: (
            lambda adapted, x: silent(adapted, x, tolerance=10),
            lambda adapted, x: silent(adapted, x, tolerance=0.5),
        ),
        "silence attention at block.out: not every block calls block.attention": without_method,
        "a plain True or False is wanted, not a Tensor: bool(...) makes one of a tensor": (
            lambda adapted, x: torch.tensor(silent(adapted, x))
        ),
    },
)
def keeps_residual() -> Iterator[Case]:
    """True when x itself passes the block unadapted."""
    cases = {
        "changes the stream a little": scaled(OnTheStream(), "pair.lora_A", 0.01),
        "changes the stream a lot": scaled(OnTheStream(), "pair.lora_A", 1e4),
        "stands in front of attention": Faithful(),
        "is a pair for each of q, k and v": PairEach(),
    }
    for does, adapted in cases.items():
        expected = not isinstance(adapted, OnTheStream)
        what = f"keeps_residual on a block whose adapter {does}"
        yield Case(what, (adapted, torch.randn(2, 4, 8)), expected)


def lora(adapted: nn.Module, name: str = "lora_A", all_names: bool = False) -> list[Tensor]:
    """The parameters with that in their names."""
    named = adapted.named_parameters(remove_duplicate=not all_names)
    return [parameter for found, parameter in named if name in found]


@exercise(
    "3.6",
    "one shared pair counts once, whatever number of names it has; three pairs count three",
    {
        "both matrices of a pair are counted: count lora_A alone": (
            lambda adapted: len(lora(adapted, "lora"))
        ),
        "a pair with three names is still one pair: named_parameters() lists it once": (
            lambda adapted: len(lora(adapted, all_names=True))
        ),
        "elements are counted, not pairs": lambda adapted: sum(p.numel() for p in lora(adapted)),
        "elements of both matrices are counted, not pairs": (
            lambda adapted: sum(p.numel() for p in lora(adapted, "lora"))
        ),
        "the block's own weights are counted too": lambda adapted: len(list(adapted.parameters())),
        "that is 1 for every block: count": lambda adapted: 1,
        "pairs with equal numbers are taken for one: they are different tensors, and move apart": (
            lambda adapted: len({p.sum().item() for p in lora(adapted)})
        ),
    },
)
def pairs_in() -> Iterator[Case]:
    """The number of different pairs."""
    for kind, expected in ((Faithful, 1), (PairEach, 3), (SharedPair, 1), (EqualPairs, 3)):
        yield Case(
            f"pairs_in on a block of the kind: {kind.__doc__}",
            (kind(),),
            expected,
            advice="go through named_parameters() and count the names that end in lora_A",
        )
