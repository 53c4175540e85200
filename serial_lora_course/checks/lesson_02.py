"""Checks of lesson 02: a pair, a model, what can be trained, and the ratio."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import nn

from serial_lora_course.checks.checking import call, exercise, require, require_equal


def _numbers(*shapes: tuple[int, int]) -> int:
    """The elements of tensors of these shapes, counted by PyTorch on the meta device."""
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


@exercise("2.1")
def pair_size(attempt) -> str:
    """rank (inputs + outputs) against numel() of tensors with these shapes."""
    for inputs, outputs, rank in ((512, 2048, 8), (6, 3, 1), (768, 768, 32)):
        expected = _numbers((rank, inputs), (outputs, rank))
        require_equal(
            f"the size of a pair for {inputs} inputs, {outputs} outputs, rank {rank}",
            call(attempt, inputs, outputs, rank),
            expected,
            suspects={
                "the matrix is taken to be square: outputs can differ from inputs": (
                    2 * inputs * rank
                ),
                "the matrix is taken to be square: inputs can differ from outputs": (
                    2 * outputs * rank
                ),
                "only A is counted: B holds outputs x rank more": inputs * rank,
                "only B is counted: A holds rank x inputs more": outputs * rank,
                "that is the full matrix, not the pair": inputs * outputs,
                "there is no bias in a pair": expected + outputs,
                "the scale is fixed, so it is no parameter": expected + 1,
                "that is the full matrix times the rank": inputs * outputs * rank,
            },
        )
    return "the formula equals numel() for square and for rectangular matrices"


@exercise("2.2")
def serial_lora_total(attempt) -> str:
    """One pair a block over towers of different widths and depths."""
    cases = (
        ([(768, 12)], 64),
        ([(768, 12), (512, 12)], 32),
        ([(1024, 24), (768, 12), (64, 2)], 4),
    )
    for towers, rank in cases:
        blocks = [(width, rank) for width, depth in towers for _ in range(depth)]
        expected = sum(_numbers((r, width), (width, r)) for width, r in blocks)
        first_width, first_depth = towers[0]
        require_equal(
            f"Serial LoRA's parameters for towers {towers} at rank {rank}",
            call(attempt, towers, rank),
            expected,
            suspects={
                "that is LoRA: Serial LoRA has one pair a block, not four": 4 * expected,
                "a pair for each of q, k and v: they share one": 3 * expected,
                "only one matrix of each pair is counted": expected // 2,
                "only the first tower is counted": 2 * first_width * rank * first_depth,
                "each tower's width goes with its own depth: multiply first, then add": (
                    2 * rank * sum(w for w, _ in towers) * sum(depth for _, depth in towers)
                ),
                "that is the size of a full matrix in each block, not of a pair": sum(
                    width * width * depth for width, depth in towers
                ),
                "the depth is left out: every block has its own pair": sum(
                    2 * width * rank for width, _ in towers
                ),
            },
        )
    return "one pair a block, summed over one, two and three towers, equals numel()"


class _Shared(nn.Module):
    """Frozen and trainable parameters, one of them used in two places, one not named lora_."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.frozen = nn.Linear(width, 3 * width).requires_grad_(False)
        self.lora_A = nn.Parameter(torch.zeros(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        self.also_A = self.lora_A


@exercise("2.3")
def count_trainable(attempt) -> str:
    """Elements of trainable parameters, a shared tensor once."""
    for width, rank in ((8, 2), (12, 5)):
        model = nn.Sequential(_Shared(width, rank), nn.LayerNorm(width))
        model[1].weight.requires_grad_(False)  # its bias stays trainable
        pair = _numbers((rank, width), (width, rank))
        expected = pair + width
        everything = sum(p.numel() for p in model.parameters())
        require_equal(
            f"trainable elements: a pair of rank {rank} and one open bias, at width {width}",
            call(attempt, model),
            expected,
            suspects={
                "frozen parameters are counted too: ask each whether it requires a gradient": (
                    everything
                ),
                "a tensor that two modules share is counted twice: parameters() counts it once": (
                    expected + rank * width
                ),
                "only what is called lora_ is counted: ask every parameter for requires_grad": pair,
                "nested modules are visited again: model.parameters() goes through all of them": (
                    2 * expected
                ),
                "tensors are counted, not their elements: use numel()": 3,
                "all tensors are counted, and not their elements": len(list(model.parameters())),
                "that is what is frozen: turn the condition round": everything - expected,
            },
        )
    frozen = nn.Linear(3, 3).requires_grad_(False)
    require_equal("trainable elements in a frozen model", call(attempt, frozen), 0)
    return "frozen parameters do not count, a shared tensor counts once, elements are counted"


@exercise("2.4")
def size_ratio(attempt) -> str:
    """LoRA's size over Serial LoRA's as an exact fraction, for placements of every kind."""
    width = 768
    placements = {
        "q, k, v and out": [(width, width)] * 4,
        "q, k and v": [(width, width)] * 3,
        "fused qkv": [(width, 3 * width)],
        "a matrix that widens the tokens by two thirds": [(width, width * 5 // 3)],
        "out from a half as wide attention": [(width, width // 2)] * 3 + [(width // 2, width)],
    }
    for name, shapes in placements.items():
        rank = 16
        lora = _numbers(*((rank, i) for i, _ in shapes), *((o, rank) for _, o in shapes))
        expected = Fraction(lora, _numbers((rank, width), (width, rank)))
        got = call(attempt, shapes, width)
        rounded = Fraction(float(expected))
        cause_of_rounding = "it was rounded on the way: give Fraction two integers, not a quotient"
        require(
            isinstance(got, (Fraction, int, type(None))),
            f"the kind of number for LoRA on {name}",
            "a Fraction (exact)",
            f"{got!r}, a {type(got).__name__}",
            "division with / rounds: Fraction(numerator, denominator) stays exact",
        )
        require_equal(
            f"the ratio for LoRA on {name}",
            got,
            expected,
            suspects={
                **({cause_of_rounding: rounded} if rounded != expected else {}),
                "the fraction is upside down: LoRA's size comes first": 1 / expected,
                "pairs are counted, but a rectangular pair has another size": Fraction(len(shapes)),
                "Serial LoRA's pair has two matrices: 2 x width below the line": 2 * expected,
                "full matrices are compared, not pairs": Fraction(
                    sum(i * o for i, o in shapes), width * width
                ),
                "inputs and outputs are multiplied: a pair holds r x (inputs + outputs)": Fraction(
                    sum(i * o for i, o in shapes), 2 * width
                ),
                "always four: look at the shapes that came in": Fraction(4),
            },
        )
    return "exact for square and rectangular placements; the rank cancels"
