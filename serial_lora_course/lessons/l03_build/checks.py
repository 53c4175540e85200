"""Checks of lesson 03: the adapter, its place, its merge, a diagnostic, `inject` itself, and the way back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from serial_lora.layers import SerialLoRA
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.fresh import A_START, B_START, TRAINED, facts_of, fresh_pair
from serial_lora_course.checking.message import require
from serial_lora_course.checking.running import exercise
from serial_lora_course.lessons.l03_build.blocks import (
    Crossing,
    DenseBlock,
    Faithful,
    OnTheStream,
    PairEach,
    TwoTowers,
    adapted_tokens,
)

# ------------------------------------------------------------------------------- 3.1 the adapter


def adapter_by(kind: Callable) -> Callable:
    """What a class makes of tokens with the pair A, B; without tokens, what it is like at the start."""

    def attempt(arguments: tuple, A=None, B=None, x=None):
        torch.manual_seed(0)
        adapter = kind(*arguments)
        if x is None:
            return facts_of(adapter, kind(*arguments))
        adapter.lora_A, adapter.lora_B = A, B
        return adapter(x)

    return attempt


@exercise(
    "3.1",
    "two named matrices, of which B starts at zero and A does not; the output equals I + scale B A for "
    "tokens of any shape, and so do the gradients of x, A and B",
    through=adapter_by,
)
def serial_adapter() -> Iterator[Case]:
    """Names, shapes and start of the learner's module, then its forward pass and gradients."""
    advice = {
        TRAINED: "the adapter has exactly two parameters: lora_A (rank, width) and lora_B (width, rank)",
        B_START: "B does not start at zero, so a fresh adapter would change the model it adapts",
        A_START: "A has to start with random numbers of ordinary size, as nn.init.normal_ draws them",
    }
    for width, rank, scales in ((12, 3, (0.5,)), (8, 2, ())):
        arguments, scale = (width, rank, *scales), scales[0] if scales else 1.0
        what = f"an adapter of width {width} and rank {rank}"
        yield Case(what, (arguments,), fresh_pair((rank, width), (width, rank)), advice=advice)
        for shape in ((2, 5, width), (3, width), (2, 3, 4, width)):
            A, B = nn.Parameter(torch.randn(rank, width)), nn.Parameter(torch.randn(width, rank))
            x = torch.randn(shape).requires_grad_(len(shape) != 3)
            said = f"scale {scale}" if scales else "the default scale"
            yield Case(
                f"the output for x of shape {shape} at rank {rank} and {said}",
                (arguments, A, B, x),
                adapted_tokens(x, A, B, scale),
                leaves=lambda _, A, B, x: {"x": x, "lora_A": A, "lora_B": B},
            )


# ------------------------------------------------------------------- 3.2 its place, 3.3 its merge


@exercise(
    "3.2", "the output and all gradients equal those of a block whose q, k and v hold W (I + B A)"
)
def adapted_forward() -> Iterator[Case]:
    """The adapter sits after the norm, before q, k and v, and outside the residual stream."""
    for width, rank, heads in ((8, 2, 2), (12, 3, 3)):
        block, pair = DenseBlock(width, heads), SerialLoRA(width, rank)
        nn.init.normal_(pair.lora_B)
        x = torch.randn(2, 4, width).requires_grad_(heads == 3)
        dense = torch.eye(width) + pair.lora_B @ pair.lora_A
        merged = {f"{p}.weight": getattr(block, p).weight.detach() @ dense for p in "qkv"}
        yield Case(
            f"the block's output at width {width}, rank {rank}, {heads} heads",
            (block, pair, x),
            torch.func.functional_call(block, merged, (x,)),  # without any adapter
            leaves=lambda _, pair, x: {"x": x, "lora_A": pair.lora_A, "lora_B": pair.lora_B},
            tolerance=1e-4,
        )


@exercise(
    "3.3",
    "the merged weight equals adapting each token first, for square and rectangular W, and the old W is unchanged",
)
def merged_weight() -> Iterator[Case]:
    """W (I + scale B A), compared on tokens and without touching the weight that came in."""
    for outputs, width, rank, scale in ((6, 6, 3, 0.5), (9, 5, 2, 0.25)):
        weight, identity = torch.randn(outputs, width), torch.eye(width)
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        rows = [adapted_tokens(row, A, B, scale) @ weight.T for row in identity]
        what = f"the merged weight for W {outputs}x{width}, rank {rank}, scale {scale}"
        yield Case(what, (weight, A, B, scale), torch.stack(rows).T)


# ------------------------------------------------------------------------------ 3.4 a diagnostic


@exercise(
    "3.4",
    "the answer is True for adapters in front of attention and False for those on the residual stream",
)
def keeps_residual() -> Iterator[Case]:
    """True when x itself passes the block unadapted."""
    for does, adapted in {
        "changes the stream a little": OnTheStream(size=0.01),
        "changes the stream a lot": OnTheStream(size=1e4),
        "changes the stream of one token a little": OnTheStream(size=0.01, first=-1),
        "is in front of attention": Faithful(),
        "is a pair for each of q, k and v": PairEach(),
    }.items():
        what = f"keeps_residual on a block whose adapter {does}"
        yield Case(what, (adapted, torch.randn(2, 4, 8)), not isinstance(adapted, OnTheStream))


# ------------------------------------------------------------------------------ 3.5 inject itself

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
RETURNED = "the pairs that come back, by the shape of A"
ADVICE_3_5 = {
    RETURNED: "one pair for each nn.MultiheadAttention that model.modules() finds, in that order",
    "how many lora_A the model's state dict holds": (
        "assign each pair to a module of the model, such as layer.serial_lora = pair"
    ),
    "the parameters of the model that require a gradient": lambda found: (
        "each attention gets a pair of its own, which is put in after the model was frozen"
        if {*found} <= {"lora_A", "lora_B"}
        else "only A and B of the pairs may be trained: freeze the model first, then register each pair"
    ),
    "the model's own names in its state dict": (
        "do not wrap the model's modules: its own weights must keep their names"
    ),
    "the model's output, once B is not zero": (
        "the hook gives attention the adapted tokens for q, k and v, each layer by its own pair"
    ),
    "how many A a gradient of the output reaches": (
        "the tokens that the hook returns must carry gradients: leave out detach and no_grad"
    ),
}


@torch.no_grad()
def fill(A: Tensor, B: Tensor, place: int) -> None:
    """Give a pair the numbers that belong to its place in the model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(place)
        A.normal_()
        B.normal_()


def read_injected(returned: object, model: nn.Module, *_: object) -> list:
    """What counts in an adapted model, in the order of the advice; its pairs get numbers first, each other ones."""
    if isinstance(returned, str):
        return [returned] * len(ADVICE_3_5)
    pairs = list(returned) if isinstance(returned, (list, tuple, nn.ModuleList)) else []
    good = pairs and all(hasattr(pair, "lora_A") and hasattr(pair, "lora_B") for pair in pairs)
    require(good, RETURNED, "a list", returned, "return the pairs, in a list")
    for place, pair in enumerate(pairs):
        fill(pair.lora_A, pair.lora_B, place)
    every_A, reached = [pair.lora_A for pair in pairs], []
    with torch.enable_grad():
        output = model(X)
    if output.requires_grad and all(A.requires_grad for A in every_A):
        reached = torch.autograd.grad(output.sum(), every_A, allow_unused=True)
    names, named = list(model.state_dict()), model.named_parameters()
    return [
        [tuple(A.shape) for A in every_A],
        sum(name.endswith("lora_A") for name in names),
        sorted(name.rpartition(".")[2] for name, p in named if p.requires_grad),
        [name for name in names if "lora" not in name],
        output.detach(),
        sum(gradient is not None for gradient in reached),
    ]


def told(attempt: Callable) -> Callable:
    """An answer called once or twice on a model, which may then run, with a ValueError as a result of it."""

    def run(model, adapter, rank, times, tokens=None):
        try:
            returned = [attempt(model, adapter, rank) for _ in range(times)][-1]
            if tokens is not None:
                model(tokens)
            return returned
        except ValueError:
            return "a ValueError"

    return run


@exercise(
    "3.5",
    "the base is frozen and keeps its names, each attention at any depth gets one pair of its own for q, k "
    "and v, and a ValueError is raised where there is no attention, where there are adapters already, and "
    "where q, k and v are not the same tokens",
    through=told,
)
def inject_pairs() -> Iterator[Case]:
    """Against weights that are merged one layer after another, and what has to be refused."""
    model, rank = TwoTowers(), 2
    merged = copy.deepcopy(model)
    layers = [layer for layer in merged.modules() if isinstance(layer, nn.MultiheadAttention)]
    widths = [layer.embed_dim for layer in layers]
    for place, layer in enumerate(layers):
        A, B = torch.empty(rank, layer.embed_dim), torch.empty(layer.embed_dim, rank)
        fill(A, B, place)
        layer.in_proj_weight.data = adapted_tokens(layer.in_proj_weight.data, B.T, A.T, 1.0)
    expected = (
        [(rank, width) for width in widths],
        len(layers),
        ["lora_A"] * len(layers) + ["lora_B"] * len(layers),
        list(model.state_dict()),
        merged(X).detach(),
        len(layers),
    )
    yield Case(
        f"a model with {len(layers)} attentions, {len(set(widths))} widths",
        (model, SerialLoRA, rank, 1),
        Parts(zip(ADVICE_3_5, expected, strict=True)),
        read=read_injected,
        advice=ADVICE_3_5,
        form="the model fails when it runs: a pre-hook takes (layer, args) and returns (q, k, v)",
        may_change=True,
        tolerance=1e-4,
    )
    for what, refused, *how in (
        ("a model without attention", nn.Sequential(nn.Linear(8, 8)), 1),
        ("a second call for the same model", TwoTowers(), 2),
        ("a run of attention whose k and v are other tokens than q", Crossing(8, keys=True), 1, X),
        ("a run of attention whose v is other tokens than q and k", Crossing(8, keys=False), 1, X),
    ):
        yield Case(
            what,
            (refused, SerialLoRA, rank, *how),
            "a ValueError",
            read=lambda returned, *_: returned if isinstance(returned, str) else "no error",
            advice="raise ValueError(...) with a sentence that says what is wrong",
            error="this raises another kind of error: raise ValueError(...)",
            may_change=True,
        )


# ------------------------------------------------------------------------------- 3.6 the way back

ADVICE_3_6 = {
    "how many hooks the copy has": "copy the base, which has none, and only write merged weights into it",
    "the names in the copy's state dict": "a merged model has the base's names, and no lora_A or lora_B",
    "the copy's output": "each attention's in_proj_weight becomes what merge returns for it and its own pair",
}


def merged_by_rows(weight: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float) -> Tensor:
    """W (I + scale B A): a row of W meets the transposed change, as a token meets the change."""
    return adapted_tokens(weight, lora_B.T, lora_A.T, scale)


def read_merged(returned: object, *_: object) -> list:
    """What counts in a merged copy, in the order of the advice."""
    good = isinstance(returned, nn.Module)
    require(good, "what comes back", "a model", returned, "return the copy of the base")
    with torch.no_grad():
        output = returned(X)
    hooks = (len(m._forward_pre_hooks) + len(m._forward_hooks) for m in returned.modules())
    return [sum(hooks), list(returned.state_dict()), output]


@exercise(
    "3.6",
    "the copy gives what tokens that each pair adapts give, at any depth and width; it has the base's names and "
    "no hook, and the base is as it was",
)
def merged_copy() -> Iterator[Case]:
    """Against a model whose attentions read adapted tokens."""
    model, rank, pairs = TwoTowers(), 2, []
    adapted = copy.deepcopy(model)
    for layer in adapted.modules():
        if isinstance(layer, nn.MultiheadAttention):
            pair = SerialLoRA(layer.embed_dim, rank)
            fill(pair.lora_A, pair.lora_B, len(pairs))
            pairs.append(pair)
            layer.register_forward_pre_hook(
                lambda _, args, pair=pair: (
                    (adapted_tokens(args[0], pair.lora_A, pair.lora_B, 1),) * 3
                )
            )
    expected = (0, list(model.state_dict()), adapted(X).detach())
    yield Case(
        f"a model with {len(pairs)} attentions of two widths",
        (model, pairs, merged_by_rows),
        Parts(zip(ADVICE_3_6, expected, strict=True)),
        read=read_merged,
        advice=ADVICE_3_6,
        tolerance=1e-4,
    )
