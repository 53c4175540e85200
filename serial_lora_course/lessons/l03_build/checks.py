"""Checks of lesson 03: the merge, the place, a test of both, a whole model merged, and `inject` itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from serial_lora.layers import SerialLoRA
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import require
from serial_lora_course.checking.running import exercise
from serial_lora_course.lessons.l03_build.blocks import (
    Attending,
    Crossing,
    DenseBlock,
    Pair,
    TwoTowers,
    Wired,
    adapted_tokens,
    behind_attention,
    in_front,
    on_the_stream,
    one_each,
)

# --------------------------------------------------------------------------------- 3.1 the merge


def merge_by(kind: Callable) -> Callable:
    """What a class makes of a weight, and of tokens, with the pair A, B."""

    def attempt(width: int, rank: int, scale: float, A: Tensor, B: Tensor, weight: Tensor):
        adapter = kind(width, rank, scale)
        adapter.lora_A, adapter.lora_B = nn.Parameter(A), nn.Parameter(B)
        return adapter.merged(weight).detach()

    return attempt


@exercise(
    "3.1",
    "the merged weight equals adapting each token first, for square and rectangular W, and the old W is unchanged",
    through=merge_by,
)
def serial_adapter() -> Iterator[Case]:
    """W (I + scale B A), compared on tokens and without touching the weight that came in."""
    for outputs, width, rank, scale in ((6, 6, 3, 0.5), (9, 5, 2, 0.25)):
        weight, identity = torch.randn(outputs, width), torch.eye(width)
        A, B = torch.randn(rank, width), torch.randn(width, rank)
        rows = [adapted_tokens(row, A, B, scale) @ weight.T for row in identity]
        what = f"the merged weight for W {outputs}x{width}, rank {rank}, scale {scale}"
        yield Case(what, (width, rank, scale, A, B, weight), torch.stack(rows).T)


# ------------------------------------------------------------------- 3.2 its place


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


# --------------------------------------------------------------------- 3.3 a test, 3.4 the way back

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def into_qkv(block: DenseBlock, pairs: nn.ModuleList) -> None:
    """Write one pair, or one each, into the weights of q, k and v."""
    for place, layer in enumerate((block.q, block.k, block.v)):
        layer.weight.copy_(pairs[place % len(pairs)].merged(layer.weight))


@torch.no_grad()
def into_out(block: DenseBlock, pairs: nn.ModuleList) -> None:
    """Write a pair into the layer at the end of attention."""
    (pair,) = pairs
    block.out.weight.copy_(pair(block.out.weight.T).T)
    block.out.bias.copy_(pair(block.out.bias))


@torch.no_grad()
def doubled(block: DenseBlock, pairs: nn.ModuleList) -> None:
    """Write no pair, but a factor of two."""
    block.out.weight.mul_(2)
    block.out.bias.mul_(2)


@exercise(
    "3.3",
    "the answer is True where the written block computes the same, with one pair or several, and False "
    "where it does not, also for fresh pairs, small changes and a pair that is never called",
)
def can_be_merged() -> Iterator[Case]:
    """True for what can be written into the weights in this way."""
    for what, wired, write, expected in (
        ("in front of q, k and v, written into these", Wired(in_front), into_qkv, True),
        ("on the stream, written into q, k and v", Wired(on_the_stream), into_qkv, False),
        ("a small one on the stream", Wired(on_the_stream, size=0.01), into_qkv, False),
        ("one for each of q, k and v, each in its own", Wired(one_each, 3), into_qkv, True),
        ("behind attention, written into W_o", Wired(behind_attention), into_out, True),
        ("behind attention, written into q, k and v", Wired(behind_attention), into_qkv, False),
        ("never called", Wired(lambda block, _, x: block(x)), into_qkv, False),
        ("a factor of two, written into W_o", Wired(twice), doubled, True),
    ):
        yield Case(f"the answer for a pair: {what}", (wired, write, torch.randn(2, 4, 8)), expected)


def twice(block: DenseBlock, _: Pair, x: Tensor) -> Tensor:
    """What attention adds counts twice."""
    return x + 2 * block.attention(block.norm(x))


@exercise(
    "3.4",
    "the copy computes what the model would with a pair in front of each attention, holds the model's own "
    "tensors and no others, and the model is unchanged",
)
def merged_copy() -> Iterator[Case]:
    """Attentions at several depths, with the pairs called in a hook in place of a merge."""
    for model in (
        nn.Sequential(Attending(8), nn.Sequential(Attending(8), Attending(8))),
        TwoTowers(),
    ):
        layers = [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention)]
        pairs = [Pair(layer.embed_dim, 2, 0.5) for layer in layers]
        names, adapted = list(model.state_dict()), copy.deepcopy(model)
        hooked = [layer for layer in adapted.modules() if isinstance(layer, nn.MultiheadAttention)]
        for layer, pair in zip(hooked, pairs, strict=True):
            nn.init.normal_(pair.lora_B)
            layer.register_forward_pre_hook(lambda _, args, pair=pair: (pair(args[0]),) * 3)
        yield Case(
            f"a model with {len(layers)} attentions",
            (model, pairs),
            Parts({"its names in the state dict": names, "its output": adapted(X).detach()}),
            read=lambda returned, *_: [list(returned.state_dict()), returned(X).detach()],
            form="return the copy",
            tolerance=1e-4,
        )


# ------------------------------------------------------------------------------ 3.5 inject itself

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
