"""Checks of lesson 02: a pair, a model, what can be trained, and the ratio."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import floor

import torch
from torch import nn

from serial_lora_course.checks.cases import Case
from serial_lora_course.checks.checking import exercise


def numel_of(*shapes: tuple[int, int]) -> int:
    """The elements of tensors of these shapes, counted by PyTorch on the meta device."""
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


@exercise("2.1", "the formula equals numel() for square and for rectangular matrices")
def pair_size() -> Iterator[Case]:
    """rank (inputs + outputs) against numel() of tensors with these shapes."""
    for inputs, outputs, rank in ((512, 2048, 8), (6, 3, 1), (768, 768, 32)):
        expected = numel_of((rank, inputs), (outputs, rank))
        causes = {
            "the matrix is taken to be square: outputs can differ from inputs": 2 * inputs * rank,
            "the matrix is taken to be square: inputs can differ from outputs": 2 * outputs * rank,
            "only A is counted: B holds outputs x rank more": inputs * rank,
            "only B is counted: A holds rank x inputs more": outputs * rank,
            "that is the full matrix, not the pair": inputs * outputs,
            "there is no bias in a pair": expected + outputs,
            "the scale is fixed, so it is no parameter": expected + 1,
            "that is the full matrix times the rank": inputs * outputs * rank,
            "the rank is left out": inputs + outputs,
            "neither matrix of a pair has a bias: nn.Linear adds one": expected + rank + outputs,
            "that is twice as much: each matrix counts once": 2 * expected,
            "those are bytes: the number of elements is asked for": 4 * expected,
        }
        what = f"the size of a pair for {inputs} inputs, {outputs} outputs, rank {rank}"
        yield Case(what, (inputs, outputs, rank), expected, causes)


@exercise("2.2", "one pair a block, summed over one, two and three towers, equals numel()")
def serial_lora_total() -> Iterator[Case]:
    """One pair a block over towers of different widths and depths."""
    cases = (
        ([(768, 12)], 64),
        ([(768, 12), (512, 12)], 32),
        ([(1024, 24), (768, 12), (64, 2)], 4),
    )
    for towers, rank in cases:
        blocks = [width for width, depth in towers for _ in range(depth)]
        expected = sum(numel_of((rank, width), (width, rank)) for width in blocks)
        first_width, first_depth = towers[0]
        widths, depths = (sum(side) for side in zip(*towers, strict=True))
        causes = {
            "that is LoRA: Serial LoRA has one pair a block, not four": 4 * expected,
            "a pair for each of q, k and v: they share one": 3 * expected,
            "only one matrix of each pair is counted": expected // 2,
            "only the first tower is counted": 2 * first_width * rank * first_depth,
            "only the last tower is counted: add the towers up": 2
            * towers[-1][0]
            * rank
            * towers[-1][1],
            "that is twice as much: each matrix counts once": 2 * expected,
            "a tower's width goes with its own depth: multiply first": 2 * rank * widths * depths,
            "that is the size of a full matrix in each block, not of a pair": sum(
                width * width for width in blocks
            ),
            "the depth is left out: every block has its own pair": 2 * rank * widths,
        }
        what = f"Serial LoRA's parameters for towers {towers} at rank {rank}"
        yield Case(what, (towers, rank), expected, causes)


class SharedPair(nn.Module):
    """Frozen and trainable parameters, one of them in two modules."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.frozen = nn.Linear(width, 3 * width).requires_grad_(False)
        self.lora_A = nn.Parameter(torch.zeros(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        self.other = nn.ParameterList([self.lora_A])  # the same tensor, in a second module


@exercise(
    "2.3", "frozen parameters do not count, a shared tensor counts once, elements are counted"
)
def count_trainable() -> Iterator[Case]:
    """Elements of trainable parameters, a shared tensor once."""
    for width, rank in ((8, 2), (12, 5)):
        model = nn.Sequential(SharedPair(width, rank), nn.LayerNorm(width), nn.LayerNorm(width))
        for norm in model[1:]:
            norm.weight.requires_grad_(False)  # its bias stays trainable
        pair = numel_of((rank, width), (width, rank))
        expected = pair + 2 * width
        everything = sum(p.numel() for p in model.parameters())
        causes = {
            "frozen parameters are counted too: ask each for its requires_grad": everything,
            "a tensor that two modules share is counted twice: parameters() counts it once": (
                expected + rank * width
            ),
            "only what is called lora_ is counted: ask every parameter for requires_grad": pair,
            "nested modules are visited again: model.parameters() visits all": (
                2 * expected + rank * width
            ),
            "tensors are counted, not their elements: use numel()": 4,
            "parameters of one name are taken for one: two norms have two biases": pair + width,
            "tensors of one size are taken for one: add up a list, not a set": rank * width + width,
            "those are bytes: the number of elements is asked for": 4 * expected,
            "nothing is found: nested modules hold parameters too, and before a backward pass "
            "grad is None everywhere": 0,
            "all tensors are counted, and not their elements": len(list(model.parameters())),
            "that is what is frozen: turn the condition round": everything - expected,
        }
        what = f"trainable elements: a pair of rank {rank} and two open biases, at width {width}"
        yield Case(what, (model,), expected, causes)
    half = nn.Linear(3, 2)
    half.weight.requires_grad_(False)
    yield Case("trainable elements of one linear layer with a frozen weight", (half,), 2)


@exercise("2.4", "exact for square and rectangular placements; the rank cancels")
def size_ratio() -> Iterator[Case]:
    """LoRA's size over Serial LoRA's as an exact fraction, for placements of every kind."""
    rank = 16
    placements = {
        "q, k, v and out": (768, [(768, 768)] * 4),
        "q, k and v": (768, [(768, 768)] * 3),
        "fused qkv": (768, [(768, 2304)]),
        "a matrix that widens the tokens by two thirds": (768, [(768, 1280)]),
        "out from a half as wide attention": (768, [(768, 384)] * 3 + [(384, 768)]),
        "a very wide token, where rounding shows": (2_000_003, [(2_000_003, 1)]),
    }
    for name, (width, shapes) in placements.items():
        lora = numel_of(*((rank, i) for i, _ in shapes), *((o, rank) for _, o in shapes))
        expected = Fraction(lora, numel_of((rank, width), (width, rank)))
        products = sum(inputs * outputs for inputs, outputs in shapes)
        causes = {
            "it was rounded on the way: give Fraction two integers": Fraction(float(expected)),
            "it was rounded to a near fraction: give Fraction two integers": Fraction(
                float(expected)
            ).limit_denominator(),
            "// rounds down to a whole number: a ratio may lie between two": floor(expected),
            "the fraction is upside down: LoRA's size comes first": 1 / expected,
            "pairs are counted, but a rectangular pair has another size": Fraction(len(shapes)),
            "only inputs are counted: B has as many rows as outputs": Fraction(
                sum(inputs for inputs, _ in shapes), width
            ),
            "only outputs are counted: A has as many columns as inputs": Fraction(
                sum(outputs for _, outputs in shapes), width
            ),
            "only the first matrix is counted": Fraction(sum(shapes[0]), 2 * width),
            "Serial LoRA's pair has two matrices: 2 x width below the line": 2 * expected,
            "full matrices are compared, not pairs": Fraction(products, width * width),
            "inputs and outputs are multiplied: a pair adds them": Fraction(products, 2 * width),
            "always four: look at the shapes that came in": Fraction(4),
        }
        what = f"the ratio for LoRA on {name}"
        yield Case(what, (shapes, width), expected, causes)
