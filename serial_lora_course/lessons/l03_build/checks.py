"""Checks of lesson 03: the adapter, its place, its merge, a probe, and `inject` itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import require
from serial_lora_course.checking.running import exercise
from serial_lora_course.lessons.l03_build.blocks import (
    DenseBlock,
    Faithful,
    OnOneToken,
    OnTheStream,
    Pair,
    PairEach,
    TwoTowers,
    adapted_tokens,
)

# ------------------------------------------------------------------------------- 3.1 the adapter

SHAPES, B_START, A_START = (
    "the parameters and their shapes",
    "lora_B at the start",
    "lora_A at the start",
)
EXPECTED = {
    "what was made": "an nn.Module",
    SHAPES: {},
    B_START: "all zero",
    A_START: "random numbers of ordinary size",
    "lora_A of a second adapter": "other numbers",
    "the kinds of numbers": "torch.float32",
    "parameters without a gradient": "none",
}
ADVICE_3_1 = {
    "what was made": "inherit from nn.Module and call super().__init__() first",
    SHAPES: "two parameters and no others: lora_A (rank, width) and lora_B (width, rank)",
    B_START: "B is not zero: a fresh adapter would change the model it adapts",
    A_START: "A starts with random numbers of ordinary size, as nn.init.normal_ draws them",
}


def start_of(A: Tensor) -> str:
    """What an A at the start is like, in words."""
    if not A.any():
        return "all zero"
    if not A.isfinite().all():
        return "not all finite"
    if bool((A == A[:1]).all()):
        return "every row like the first"
    spread = A.std().item()
    return EXPECTED[A_START] if 1e-3 < spread < 10 else f"numbers that spread by {spread:.1g}"


def facts(adapter: nn.Module, another: nn.Module) -> dict[str, object]:
    """All that counts in a fresh adapter."""
    found = dict.fromkeys(EXPECTED, "")
    if not isinstance(adapter, nn.Module):
        return found | {"what was made": f"a {type(adapter).__name__}"}
    named = dict(adapter.named_parameters())
    found |= {
        "what was made": "an nn.Module",
        SHAPES: {n: tuple(p.shape) for n, p in named.items()},
    }
    if set(named) != {"lora_A", "lora_B"}:
        return found
    A, B = adapter.lora_A, adapter.lora_B
    values = (
        "other numbers" if B.any() else "all zero",
        start_of(A),
        "the same" if torch.equal(A, another.lora_A) else "other numbers",
        ", ".join(sorted({str(p.dtype) for p in (A, B)})),
        ", ".join(n for n, p in named.items() if not p.requires_grad) or "none",
    )
    return found | dict(zip(list(EXPECTED)[2:], values, strict=True))


def adapter_by(kind: Callable) -> Callable:
    """What a class makes of tokens with the pair A, B; without tokens, what it is like at the start."""

    def attempt(arguments: tuple, A=None, B=None, x=None):
        torch.manual_seed(0)
        adapter = kind(*arguments)
        if x is None:
            return facts(adapter, kind(*arguments))
        adapter.lora_A, adapter.lora_B = A, B
        return adapter(x)

    return attempt


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


@exercise(
    "3.1",
    "two named matrices, B zero and A not, the output of I + scale B A for tokens of any shape, and the "
    "gradients of x, A and B",
    {
        "A and B are swapped: A (r, d) leads down to the rank, B (d, r) back up": adapter_with(
            A=lambda rank, width: torch.randn(width, rank),
            B=lambda width, rank: torch.zeros(rank, width),
        ),
        ADVICE_3_1[B_START]: adapter_with(B=torch.randn),
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
            adapter_with(A=torch.eye),
        ),
        "a large A makes the first steps explode: numbers of ordinary size, as nn.init.normal_ draws": (
            adapter_with(A=lambda *size: 100 * torch.randn(size))
        ),
        "torch.empty holds anything, NaN and infinity too: draw random numbers": (
            adapter_with(A=lambda *size: torch.full(size, torch.inf))
        ),
        "the scale is fixed, a plain number: only A and B are learnt": (
            adapter_with(end=lambda a: setattr(a, "scale", nn.Parameter(torch.ones(()))))
        ),
        "plain tensors are not trained: wrap them in nn.Parameter": adapter_with(wrap=torch.clone),
        "nn.Linear keeps its matrix as .weight, which becomes a part of the name: use nn.Parameter": (
            adapter_with(wrap=lambda t: nn.Linear(t.shape[1], t.shape[0], bias=False))
        ),
        "the shapes come from the arguments: A (rank, width), B (width, rank)": adapter_with(
            A=lambda rank, width: torch.randn(4, width), B=lambda width, rank: torch.zeros(width, 4)
        ),
        "two parameters, named lora_A and lora_B: other tools find them by these names": (
            adapter_with(names=("down", "up"))
        ),
        "A and B are what is trained: leave requires_grad as nn.Parameter sets it": (
            adapter_with(end=lambda a: a.lora_A.requires_grad_(False))
        ),
        "adapters are float32, as torch.randn and torch.zeros make them: x is float32 too": (
            adapter_with(B=partial(torch.zeros, dtype=torch.float64))
        ),
        "x comes back unchanged: compute the product in forward, from lora_A and lora_B as they are then": (
            adapter_with(lambda x, A, B, s: x),
        ),
        "x itself is lost: return x plus the product": (
            adapter_with(lambda x, A, B, s: s * x @ A.T @ B.T)
        ),
        "the scale is forgotten": adapter_with(lambda x, A, B, s: x + x @ A.T @ B.T),
        "the scale multiplies x too: it belongs to the product alone": (
            adapter_with(lambda x, A, B, s: s * (x + x @ A.T @ B.T))
        ),
        "the product is subtracted: it is added": (
            adapter_with(lambda x, A, B, s: x - s * x @ A.T @ B.T)
        ),
        "A and B are swapped in the product": adapter_with(lambda x, A, B, s: x + s * x @ B @ A),
        "scale is divided by the rank: here it counts as it is": (
            adapter_with(lambda x, A, B, s: x + s / len(A) * x @ A.T @ B.T)
        ),
        "the default of scale is 1, so that nothing is hidden in it": adapter_with(default=2.0),
        "dropout is between A and B: here the adapter has none": (
            adapter_with(lambda x, A, B, s: x + s * F.dropout(x @ A.T, 0.5) @ B.T)
        ),
        "relu is between A and B: such a change cannot be merged": (
            adapter_with(lambda x, A, B, s: x + s * F.relu(x @ A.T) @ B.T)
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
    },
    through=adapter_by,
)
def serial_adapter() -> Iterator[Case]:
    """Names, shapes and start of the learner's module, then its forward pass and gradients."""
    for width, rank, scales in ((12, 3, (0.5,)), (8, 2, ())):
        arguments, scale = (width, rank, *scales), scales[0] if scales else 1.0
        shapes = {SHAPES: {"lora_A": (rank, width), "lora_B": (width, rank)}}
        what = f"an adapter of width {width} and rank {rank}"
        yield Case(what, (arguments,), Parts(EXPECTED | shapes), advice=ADVICE_3_1)
        for shape in ((2, 5, width), (3, width), (2, 3, 4, width)):
            A, B = nn.Parameter(torch.randn(rank, width)), nn.Parameter(torch.randn(width, rank))
            x = torch.randn(shape).requires_grad_(len(shape) != 3)
            said = f"scale {scale}" if scales else "the default scale"
            yield Case(
                f"the output for x of shape {shape} at rank {rank} and {said}",
                (arguments, A, B, x),
                adapted_tokens(x, A, B, scale),
                leaves=lambda _, A, B, x: (
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


@exercise(
    "3.2",
    "equal to a block whose q, k and v hold W (I + B A), and so are all gradients",
    {
        "that is place 1, on the stream: x + ... is adapted too": (
            lambda block, pair, x: block(pair(x)),
        ),
        "that is place 2, before the norm: the norm rescales what the pair did": (
            lambda block, pair, x: x + block.attention(block.norm(pair(x)))
        ),
        "that is place 5, behind attention: q, k and v never see the pair": (
            lambda block, pair, x: x + pair(block.attention(block.norm(x)))
        ),
        "that is place 6, on the block's whole output": lambda block, pair, x: pair(block(x)),
        "only q is adapted: k and v read the same adapted tokens": plain_in("k", "v"),
        "q reads plain tokens: q, k and v all read the adapted ones": plain_in("q"),
        "block(...) brings a norm and a residual of its own: call block.attention": (
            lambda block, pair, x: block(pair(block.norm(x)))
        ),
        "the stream is adapted as well: only attention reads adapted tokens": (
            lambda block, pair, x: pair(x) + block.attention(pair(block.norm(x)))
        ),
        "the residual is lost: add x, unadapted, at the end": (
            lambda block, pair, x: block.attention(pair(block.norm(x)))
        ),
        "the norm is left out": lambda block, pair, x: x + block.attention(pair(x)),
        "only the stream is adapted: attention reads the adapted tokens": (
            lambda block, pair, x: pair(x) + block.attention(block.norm(x))
        ),
        "the adapter acts twice: call it once": (
            lambda block, pair, x: x + block.attention(pair(pair(block.norm(x))))
        ),
        "the normed tokens go in twice: what the adapter returns holds them already": (
            lambda block, pair, x: x + block.attention(block.norm(x) + pair(block.norm(x)))
        ),
        "the adapter is never used": lambda block, pair, x: block(x),
        "the residual comes from the normed tokens: add x": (
            lambda block, pair, x: block.norm(x) + block.attention(pair(block.norm(x)))
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


# ----------------------------------------------------------------------------------- 3.4 a probe


def scaled(adapted: Faithful, weight: str, factor: float) -> Faithful:
    """The block with one of its weights made larger or smaller."""
    with torch.no_grad():
        adapted.get_parameter(weight).mul_(factor)
    return adapted


@torch.no_grad()
def filled(adapted: nn.Module) -> nn.Module:
    """A copy whose B is not zero."""
    other = copy.deepcopy(adapted)
    for name, parameter in other.named_parameters():
        if "lora_B" in name:
            parameter.fill_(0.3)
    return other


@torch.no_grad()
def silent(adapted: nn.Module, x: Tensor, fill=True, bias=True, tolerance=1e-6) -> bool:
    """Whether x passes when attention is silenced, with one thing changed."""
    quiet = filled(adapted) if fill else copy.deepcopy(adapted)
    quiet.block.out.weight.zero_()
    if bias:
        quiet.block.out.bias.zero_()
    return bool((quiet(x) - x).abs().max() < tolerance)


@torch.no_grad()
def judged(adapted: nn.Module, x: Tensor, judge: Callable) -> bool:
    """What somebody says of the difference that is left when attention is silenced."""
    quiet = filled(adapted)
    for parameter in quiet.block.out.parameters():
        parameter.zero_()
    return bool(judge(quiet(x) - x))


@torch.no_grad()
def without_method(adapted: nn.Module, x: Tensor) -> bool:
    """The method is replaced, which not every block calls."""
    quiet = filled(adapted)
    quiet.block.attention = torch.zeros_like
    return torch.equal(quiet(x), x)


@exercise(
    "3.4",
    "an adapter on the residual stream is told from one in front of attention",
    {
        "attention still adds something: set weight and bias of block.out to zero first": (
            lambda adapted, x: silent(adapted, x, bias=False),
            lambda adapted, x: torch.equal(adapted(x), x),
            lambda adapted, x: torch.equal(adapted(x), filled(adapted)(x)),
        ),
        "the stream is adapted here: fill B first, with copy_ or normal_ (p = ... only gives the name to "
        "another tensor), as a fresh adapter hides the change": (
            lambda adapted, x: silent(adapted, x, fill=False),
            lambda adapted, x: True,
        ),
        "the answer is turned round: True and False are exchanged": (
            lambda adapted, x: not silent(adapted, x)
        ),
        "the tolerance is too loose: this block's change is small, and a change all the same": (
            lambda adapted, x: silent(adapted, x, tolerance=10),
            lambda adapted, x: silent(adapted, x, tolerance=0.5),
        ),
        "entries that stay say little: compare every entry of every token with x": (
            lambda adapted, x: judged(adapted, x, lambda change: (change == 0).any()),
            lambda adapted, x: judged(adapted, x, lambda change: (change[:, 0] == 0).all()),
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
        "changes the stream of one token a little": scaled(OnOneToken(), "pair.lora_A", 0.01),
        "stands in front of attention": Faithful(),
        "is a pair for each of q, k and v": PairEach(),
    }
    for does, adapted in cases.items():
        expected = not isinstance(adapted, (OnTheStream, OnOneToken))
        what = f"keeps_residual on a block whose adapter {does}"
        yield Case(what, (adapted, torch.randn(2, 4, 8)), expected)


# ------------------------------------------------------------------------------ 3.5 inject itself

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
RETURNED, KNOWN, TRAINED, NAMES, OUTPUT, REACHED = (
    "the pairs that come back, by the shape of A",
    "how many lora_A the model's state dict holds",
    "the parameters of the model that ask for a gradient",
    "the model's own names in its state dict",
    "the model's output, once B is not zero",
    "how many A a gradient of the output reaches",
)
ADVICE_3_5 = {
    RETURNED: "one pair for each nn.MultiheadAttention that model.modules() finds, in that order",
    KNOWN: "assign each pair to a module of the model, such as layer.serial_lora = pair",
    TRAINED: "the pairs' A and B, and nothing else: freeze first, then register each pair",
    NAMES: "add to the model, and wrap nothing: its own weights keep their names",
    OUTPUT: "the hook gives attention the adapted tokens for q, k and v, each layer by its own pair",
    REACHED: "the tokens that the hook returns carry gradients: no detach, no no_grad",
}


def read_injected(returned: object, model: nn.Module, *_: object) -> dict[str, object]:
    """All that counts in an adapted model; its pairs get numbers first, each other ones."""
    if isinstance(returned, str):
        return dict.fromkeys(ADVICE_3_5, returned)
    pairs = list(returned) if isinstance(returned, (list, tuple, nn.ModuleList)) else []
    is_pair = [hasattr(pair, "lora_A") and hasattr(pair, "lora_B") for pair in pairs]
    require(
        any(is_pair) and all(is_pair), RETURNED, "a list", returned, "return the pairs, in a list"
    )
    for place, pair in enumerate(pairs):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(place)
            pair.lora_A.normal_()
            pair.lora_B.normal_()
    named = dict(model.named_parameters())
    with torch.enable_grad():
        output = model(X)
    reached = [None] * len(pairs)
    if output.requires_grad and all(pair.lora_A.requires_grad for pair in pairs):
        every_A = [pair.lora_A for pair in pairs]
        reached = torch.autograd.grad(output.sum(), every_A, allow_unused=True)
    return {
        RETURNED: [tuple(pair.lora_A.shape) for pair in pairs],
        KNOWN: sum(name.endswith("lora_A") for name in model.state_dict()),
        TRAINED: sorted(n.rpartition(".")[2] for n, p in named.items() if p.requires_grad),
        NAMES: [name for name in model.state_dict() if "lora" not in name],
        OUTPUT: output.detach(),
        REACHED: sum(gradient is not None for gradient in reached),
    }


def told(attempt: Callable) -> Callable:
    """An answer called once or twice on a model, with a ValueError as a result of it."""

    def run(model, adapter, rank, times):
        try:
            return [attempt(model, adapter, rank) for _ in range(times)][-1]
        except ValueError:
            return "a ValueError"

    return run


def attentions(model: nn.Module) -> list[nn.MultiheadAttention]:
    """All of a model's, in order."""
    return [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]


def three_times(layer, arguments):
    """A right hook: the layer's own pair, once, for q, k and v."""
    return (layer.pair(arguments[0]),) * 3


def injector(
    hook: Callable | None = three_times,
    found: Callable = attentions,
    freeze: str = "first",
    width: Callable = lambda layer: layer.embed_dim,
    register: bool = True,
    guards: tuple[str, ...] = ("none", "twice"),
    put: Callable = lambda layer, hook: layer.register_forward_pre_hook(hook),
) -> Callable:
    """An `inject` with one thing changed."""

    def attempt(model, adapter, rank):
        layers = found(model)
        if "none" in guards and not layers:
            raise ValueError("no attention")
        if "twice" in guards and any("lora_A" in name for name, _ in model.named_parameters()):
            raise ValueError("adapters already")
        if freeze == "first":
            model.requires_grad_(False)
        pairs = [adapter(width(layer), rank) for layer in layers]
        for layer, pair in zip(layers, pairs, strict=True):
            if register:
                layer.pair = pair
            else:
                object.__setattr__(layer, "pair", pair)
            if hook:
                put(layer, hook)
        if freeze == "last":
            model.requires_grad_(False)
        return pairs

    return attempt


def late_names(model, adapter, rank):
    """Every hook looks `pair` up when it runs."""
    pairs = []
    model.requires_grad_(False)
    for layer in attentions(model):
        pair = layer.pair = adapter(layer.embed_dim, rank)
        layer.register_forward_pre_hook(lambda layer, given: (pair(given[0]),) * 3)  # noqa: B023
        pairs.append(pair)
    return pairs


@exercise(
    "3.5",
    "a frozen base with its own names, one pair for each attention at any depth, q, k and v of each by its "
    "own pair, and no silence where nothing is found or adapters are there already",
    {
        "the base is not frozen: model.requires_grad_(False) does it": injector(freeze="never"),
        "the pairs are frozen too: freeze the model before they come in": injector(freeze="last"),
        "the model does not know its pairs: assign each to a module, such as layer.serial_lora = pair": (
            injector(register=False)
        ),
        "attention inside other modules is missed: model.modules() walks through all depths": (
            injector(found=lambda model: [model.second.mix])
        ),
        "only the first attention got a pair: is `return` inside the loop?": (
            injector(found=lambda model: attentions(model)[:1])
        ),
        "the width differs from layer to layer: layer.embed_dim says it": (
            injector(width=lambda layer: 8)
        ),
        "every hook uses the last pair, since Python looks a name up when the hook runs: let the hook take the "
        "pair from its layer, or bind it by pair=pair": late_names,
        "only q is adapted: the hook returns adapted tokens for k and v as well": (
            injector(lambda layer, given: (layer.pair(given[0]), *given[1:]))
        ),
        "a pre-hook returns all positional arguments of the call in a tuple: q, k and v": (
            injector(lambda layer, given: layer.pair(given[0])),
            injector(lambda layer, given: [layer.pair(given[0])] * 3),
        ),
        "the width comes first: adapter(layer.embed_dim, rank)": (
            lambda model, adapter, rank: injector()(model, lambda d, r: adapter(r, d), rank)
        ),
        "the hook changes nothing: it has to return the new arguments": (
            injector(lambda layer, given: None),
            injector(lambda layer, given: given),
            injector(None),
        ),
        "the tokens are detached, or made under no_grad: no pair would ever learn": injector(
            lambda layer, given: (layer.pair(given[0]).detach(),) * 3
        ),
        "that hook runs after attention and adapts what it found: a forward *pre*-hook runs before": injector(
            lambda layer, given, output: (layer.pair(output[0]), *output[1:]),
            put=lambda layer, hook: layer.register_forward_hook(hook),
        ),
        "with with_kwargs=True a hook returns two things, the arguments and the keywords": injector(
            lambda layer, given, named: three_times(layer, given),
            put=lambda layer, hook: layer.register_forward_pre_hook(hook, with_kwargs=True),
        ),
        "a model without attention passes in silence, and would train nothing: raise ValueError": (
            injector(guards=("twice",))
        ),
        "a second call adapts twice: raise ValueError if the model has adapters already": (
            injector(guards=("none",))
        ),
    },
    through=told,
)
def inject_pairs() -> Iterator[Case]:
    """Against weights that are merged one layer after another, and two calls that have to be refused."""
    model, rank = TwoTowers(), 2
    widths = [layer.embed_dim for layer in attentions(model)]
    merged = copy.deepcopy(model)
    with torch.no_grad():
        for place, layer in enumerate(attentions(merged)):
            torch.manual_seed(place)
            A, B = torch.randn(rank, layer.embed_dim), torch.randn(layer.embed_dim, rank)
            layer.in_proj_weight.copy_(adapted_tokens(layer.in_proj_weight, B.T, A.T, 1.0))
        output = merged(X)
    expected = {
        RETURNED: [(rank, width) for width in widths],
        KNOWN: len(widths),
        TRAINED: ["lora_A"] * len(widths) + ["lora_B"] * len(widths),
        NAMES: list(model.state_dict()),
        OUTPUT: output,
        REACHED: len(widths),
    }
    yield Case(
        f"a model with {len(widths)} attentions, {len(set(widths))} widths",
        (model, Pair, rank, 1),
        Parts(expected),
        read=read_injected,
        advice=ADVICE_3_5,
        form="the model fails when it runs: a pre-hook takes (layer, args) and returns (q, k, v)",
        may_change=True,
        tolerance=1e-4,
    )
    for what, refused, times in (
        ("a model without attention", nn.Sequential(nn.Linear(8, 8)), 1),
        ("a second call for the same model", TwoTowers(), 2),
    ):
        yield Case(
            what,
            (refused, Pair, rank, times),
            "a ValueError",
            read=lambda returned, *_: returned if isinstance(returned, str) else "no error",
            advice="raise ValueError(...) with a sentence that says what is the matter",
            error="an error, but of another kind: raise ValueError(...)",
            may_change=True,
        )
