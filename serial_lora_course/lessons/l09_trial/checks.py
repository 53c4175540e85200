"""Checks of the exercises on the paper's trial: two rivals, a search, stand-ins for W."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn

from serial_lora.layers import SerialLoRA
from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.message import CheckFailed
from serial_lora_course.checking.running import exercise


def sam_blocks(*widths: int) -> nn.ModuleList:
    """Two of SAM's own blocks or more, with relative positions, as they come: everything may learn."""
    return nn.ModuleList(Block(w, 2, use_rel_pos=True, input_size=(4, 4)) for w in widths)


@exercise(
    "9.1",
    "in blocks of segment-anything's the weights of the norms and all biases learn, and nothing else, "
    "whether all or nothing was frozen before",
)
def norms_and_biases() -> Iterator[Case]:
    """Against the kinds of the layers: a norm's parameters, and every layer's bias."""
    for frozen in (False, True):
        blocks = sam_blocks(8, 8).requires_grad_(not frozen)
        learning = set()
        for name, layer in blocks.named_modules():
            kept = layer.named_parameters(recurse=False)
            norm = isinstance(layer, nn.LayerNorm)
            learning |= {f"{name}.{own}" for own, _ in kept if norm or own == "bias"}
        yield Case(
            f"the parameters that learn, in blocks where {'nothing' if frozen else 'all'} did",
            (blocks,),
            learning,
            read=lambda _, blocks: {n for n, p in blocks.named_parameters() if p.requires_grad},
            may_change=True,
        )


def tokens_for(block: nn.Module) -> Tensor:
    width = len(block.norm1.weight)
    return torch.randn(2, 4, 4, width, generator=torch.Generator().manual_seed(width))


@torch.no_grad()
def filled_outputs(returned: object, blocks: nn.ModuleList, *_: object) -> list:
    """The shapes of A, how many the blocks own, and what each block makes of tokens once B is not zero."""
    pairs = list(returned) if isinstance(returned, (list, tuple, nn.ModuleList)) else []
    for place, pair in enumerate(pairs):
        pair.lora_B.copy_(torch.linspace(-place, 1, pair.lora_B.numel()).view_as(pair.lora_B))
    owned = sum(name.endswith("lora_A") for name, _ in blocks.named_parameters())
    return [
        [tuple(pair.lora_A.shape) for pair in pairs],
        owned,
        [block(tokens_for(block)) for block in blocks],
    ]


@exercise(
    "9.2",
    "each block has one pair of its own width, among its parameters, and its output is that of a feed-forward "
    "layer into which the pair is merged",
)
def before_feed_forward() -> Iterator[Case]:
    """Against W1 (I + B A) in a copy of each block's first feed-forward layer."""
    for widths, rank in (((8, 8, 8), 2), ((12, 8), 3)):
        blocks = sam_blocks(*widths)
        what = f"{len(widths)} blocks of width {', '.join(map(str, widths))}"
        yield Case(
            what,
            (blocks, seeded_pair, rank),
            Parts(
                {
                    f"the shapes of A in {what}": [(rank, width) for width in widths],
                    f"how many pairs {what} own": len(widths),
                    f"the outputs of {what}": [*merged_outputs(blocks, rank)],
                }
            ),
            read=filled_outputs,
            form="return the pairs, in a list",
            error="the pair reads what norm2 gives, and its width is that of the tokens",
            may_change=True,
            tolerance=1e-4,
        )


def seeded_pair(width: int, rank: int) -> SerialLoRA:
    """A pair whose A is known from its shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(100 * width + rank)
        return SerialLoRA(width, rank)


@torch.no_grad()
def merged_outputs(blocks: nn.ModuleList, rank: int) -> Iterator[Tensor]:
    for place, block in enumerate(copy.deepcopy(blocks)):
        first = block.mlp.lin1
        width = first.in_features
        A = seeded_pair(width, rank).lora_A
        B = torch.linspace(-place, 1, width * rank).view(width, rank)
        first.weight += first.weight @ B @ A
        yield block(tokens_for(block))


ENDLESS = (
    "the search does not end: is the best the rate with the highest score, and is each rate new?"
)
FORM = "return a dictionary: each rate that was tried, and its score"


class Hill:
    """A ``score`` that trains nothing: it is best at one rate, and keeps which rates were tried."""

    def __init__(self, best: float) -> None:
        self.best, self.tried = best, []

    def __repr__(self) -> str:
        return f"an invented score, highest at {self.best:g}"

    def __call__(self, rate: float) -> float:
        """Falls to both sides, a little faster above."""
        self.tried.append(rate)
        if len(self.tried) > 20:
            raise CheckFailed("the tries", "an end", "20 and more", ENDLESS, sure=True)
        away = math.log(rate / self.best)
        return 80 - (1.1 * away if away > 0 else -away)


def read_search(found: Any, score: Hill, first: float) -> list:
    """The rates tried, their scores, and how often each was."""
    if not isinstance(found, dict):
        raise CheckFailed("the result", "a dictionary", found, FORM, sure=True)
    rates = sorted(found)
    return [
        rates,
        [found[rate] for rate in rates],
        sorted(f"{rate:.2g}" for rate in score.tried),
    ]


@exercise(
    "9.3",
    "rates on both sides of the best one, each three times the one before and tried once, wherever the best lies",
)
def search() -> Iterator[Case]:
    """The rates by their powers of three, from the first one beyond the best to the other side."""
    for best, first, low, high in (
        (0.0034, 0.003, -1, 1),
        (0.021, 0.003, -1, 3),
        (0.00004, 0.003, -5, 1),
        (0.5, 1.0, -2, 1),
    ):
        hill = Hill(best)
        rates = [first * 3.0**power for power in range(low, high + 1)]
        what = f"a search from {first:g} where {best:g} is best"
        yield Case(
            what,
            (hill, first),
            Parts(
                {
                    f"the rates of {what}": rates,
                    f"the scores of {what}": [Hill(best)(rate) for rate in rates],
                    f"each try of {what}": sorted(f"{rate:.2g}" for rate in rates),
                }
            ),
            read=read_search,
            form=FORM,
            may_change=True,  # a hill notes what was tried
        )


def twice(attempt: Callable) -> Callable:
    """What two calls draw."""

    def both(W: Tensor) -> tuple | None:
        first, second = attempt(W), attempt(W)
        return None if first is None else (first, second)

    return both


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two matrices point the same way, as random ones of this width hardly do."""
    return bool((one * other).sum().abs() > 0.7 * one.norm() * other.norm())


def stretched(values: Tensor, like: Tensor) -> Tensor:
    """Singular values (3, d), if they are some others times a number for each matrix; else nan."""
    times = values / like
    return (
        values if (times / times.mean(1, keepdim=True) - 1).abs().max() < 1e-3 else like * torch.nan
    )


def facts_of_stand_ins(found: tuple, W: Tensor) -> dict:
    """What makes matrices stand-ins for W, whatever was drawn."""
    first, second = ([*call] for call in found)
    shapes, told = [tuple(each.shape) for each in first], dict.fromkeys(STAND_INS)
    if shapes != [tuple(W.shape)] * 2:
        return told | {STAND_INS[0]: shapes}
    even, rotation = first
    U, S, Vh = torch.linalg.svd(W)
    size = S.square().mean(1, keepdim=True).sqrt()
    facts = (
        shapes,
        stretched(torch.linalg.svdvals(even), size.expand_as(S)) / size,
        all(map(alike, even, U @ Vh)),
        stretched(torch.linalg.svdvals(rotation), size.expand_as(S)) / size,
        any(map(alike, rotation, U @ Vh)),
        any(alike(each[i], each[j]) for each in first for i, j in ((0, 1), (0, 2), (1, 2))),
        any(map(alike, rotation, second[1])),
    )
    return dict(zip(STAND_INS, facts, strict=True))


STAND_INS = (
    "the two shapes",
    "how the first one stretches, over W's size",
    "whether the first one has W's directions",
    "how the second one stretches, over W's size",
    "whether the second one has W's directions",
    "whether q, k and v get the same",
    "whether another call draws the same again",
)


@exercise(
    "9.4",
    "the first one has W's directions, the second one random ones that every call draws anew; both stretch all "
    "alike, and are as large as their W",
    through=twice,
)
def stand_ins() -> Iterator[Case]:
    """By the singular values and directions of what comes back: what is drawn may be anything."""
    sizes = torch.tensor([1.0, 0.3, 4.0])[:, None, None]
    for width in (16, 24):
        W = sizes * torch.randn(3, width, width)
        even, shapes = torch.ones(3, width), [(3, width, width)] * 2
        expected = (shapes, even, True, even, False, False, False)
        yield Case(
            f"the stand-ins for W of shape {tuple(W.shape)}",
            (W,),
            Parts(zip(STAND_INS, expected, strict=True)),
            read=facts_of_stand_ins,
            form="return two tensors of W's shape: torch.stack makes one of three matrices",
            tolerance=1e-3,
        )
