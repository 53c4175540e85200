"""Checks of lesson 02: a pair, a model, what can be trained, and the ratio."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import torch
from torch import nn

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise


def numel_of(*shapes: tuple[int, int]) -> int:
    """The elements of tensors of these shapes, counted by PyTorch on the meta device."""
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


@exercise(
    "2.1",
    "the formula equals numel() for square and for rectangular matrices",
    {
        "the matrix is taken to be square: outputs can differ from inputs": (
            lambda i, o, r: 2 * i * r
        ),
        "the matrix is taken to be square: inputs can differ from outputs": (
            lambda i, o, r: 2 * o * r
        ),
        "only A is counted: B holds outputs x rank more": lambda i, o, r: i * r,
        "only B is counted: A holds rank x inputs more": lambda i, o, r: o * r,
        "that is the full matrix, not the pair": lambda i, o, r: i * o,
        "there is no bias in a pair": lambda i, o, r: r * (i + o) + o,
        "the scale is fixed, so it is no parameter": lambda i, o, r: r * (i + o) + 1,
        "that is the full matrix times the rank": lambda i, o, r: i * o * r,
        "the rank is left out": lambda i, o, r: i + o,
        "neither matrix of a pair has a bias: nn.Linear adds one": (
            lambda i, o, r: r * i + r + o * r + o
        ),
        "that is twice as much: each matrix counts once": lambda i, o, r: 2 * r * (i + o),
        "those are bytes: the number of elements is asked for": lambda i, o, r: 4 * r * (i + o),
    },
)
def pair_size() -> Iterator[Case]:
    """rank (inputs + outputs) against numel() of tensors with these shapes."""
    for inputs, outputs, rank in ((512, 2048, 8), (6, 3, 1), (768, 768, 32)):
        what = f"the size of a pair for {inputs} inputs, {outputs} outputs, rank {rank}"
        expected = numel_of((rank, inputs), (outputs, rank))
        yield Case(what, (inputs, outputs, rank), expected)


@exercise(
    "2.2",
    "one pair a block, summed over one, two and three towers, equals numel()",
    {
        "that is LoRA: Serial LoRA has one pair a block, not four": (
            lambda towers, r: sum(8 * r * w * d for w, d in towers)
        ),
        "a pair for each of q, k and v: they share one": (
            lambda towers, r: sum(6 * r * w * d for w, d in towers)
        ),
        "only one matrix of each pair is counted": (
            lambda towers, r: sum(r * w * d for w, d in towers)
        ),
        "only the first tower is counted": lambda towers, r: 2 * r * towers[0][0] * towers[0][1],
        "only the last tower is counted: add the towers up": (
            lambda towers, r: 2 * r * towers[-1][0] * towers[-1][1]
        ),
        "that is twice as much: each matrix counts once": (
            lambda towers, r: sum(4 * r * w * d for w, d in towers)
        ),
        "a tower's width goes with its own depth: multiply first": (
            lambda towers, r: 2 * r * sum(w for w, _ in towers) * sum(d for _, d in towers)
        ),
        "that is the size of a full matrix in each block, not of a pair": (
            lambda towers, r: sum(w * w * d for w, d in towers)
        ),
        "the depth is left out: every block has its own pair": (
            lambda towers, r: sum(2 * r * w for w, _ in towers)
        ),
    },
)
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
        what = f"Serial LoRA's parameters for towers {towers} at rank {rank}"
        yield Case(what, (towers, rank), expected)


class SharedPair(nn.Module):
    """Frozen and trainable parameters, one of them in two modules."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.frozen = nn.Linear(width, 3 * width).requires_grad_(False)
        self.lora_A = nn.Parameter(torch.zeros(rank, width))
        self.lora_B = nn.Parameter(torch.zeros(width, rank))
        self.other = nn.ParameterList([self.lora_A])  # the same tensor, in a second module


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a model that are trained, with their names."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


@exercise(
    "2.3",
    "frozen parameters do not count, a shared tensor counts once, elements are counted",
    {
        "frozen parameters are counted too: ask each for its requires_grad": (
            lambda model: sum(p.numel() for p in model.parameters())
        ),
        "a tensor that two modules share is counted twice: parameters() counts it once": (
            lambda model: sum(
                p.numel()
                for module in model.modules()
                for p in module.parameters(recurse=False)
                if p.requires_grad
            )
        ),
        "only what is called lora_ is counted: ask every parameter for requires_grad": (
            lambda model: sum(p.numel() for n, p in model.named_parameters() if "lora" in n)
        ),
        "nested modules are visited again: model.parameters() visits all": (
            lambda model: sum(p.numel() for module in model.modules() for _, p in trained(module))
        ),
        "tensors are counted, not their elements: use numel()": lambda model: len(trained(model)),
        "parameters of one name are taken for one: two norms have two biases": (
            lambda model: sum({n.rpartition(".")[2]: p.numel() for n, p in trained(model)}.values())
        ),
        "tensors of one size are taken for one: add up a list, not a set": (
            lambda model: sum({p.numel() for _, p in trained(model)})
        ),
        "those are bytes: the number of elements is asked for": (
            lambda model: sum(p.nbytes for _, p in trained(model))
        ),
        "nothing is found: nested modules hold parameters too, and before a backward pass grad is "
        "None everywhere": lambda model: sum(
            p.numel() for p in model.parameters() if p.grad is not None
        ),
        "all tensors are counted, and not their elements": (
            lambda model: len(list(model.parameters()))
        ),
        "that is what is frozen: turn the condition round": (
            lambda model: sum(p.numel() for p in model.parameters() if not p.requires_grad)
        ),
    },
)
def count_trainable() -> Iterator[Case]:
    """Elements of trainable parameters, a shared tensor once."""
    for width, rank in ((8, 2), (12, 5)):
        model = nn.Sequential(SharedPair(width, rank), nn.LayerNorm(width), nn.LayerNorm(width))
        for norm in model[1:]:
            norm.weight.requires_grad_(False)  # its bias stays trainable
        what = f"trainable elements: a pair of rank {rank} and two open biases, at width {width}"
        yield Case(what, (model,), numel_of((rank, width), (width, rank)) + 2 * width)
    half = nn.Linear(3, 2)
    half.weight.requires_grad_(False)
    yield Case("trainable elements of one linear layer with a frozen weight", (half,), 2)


def right_ratio(shapes, width):
    """In floating-point numbers."""
    return sum(i + o for i, o in shapes) / (2 * width)


@exercise(
    "2.4",
    "exact for square and rectangular placements; the rank cancels",
    {
        "it was rounded on the way: give Fraction two integers": (
            lambda shapes, width: Fraction(right_ratio(shapes, width))
        ),
        "it was rounded to a near fraction: give Fraction two integers": (
            lambda shapes, width: Fraction(right_ratio(shapes, width)).limit_denominator()
        ),
        "division with / rounds: Fraction(numerator, denominator) stays exact": right_ratio,
        "// rounds down to a whole number: a ratio may lie between two": (
            lambda shapes, width: sum(map(sum, shapes)) // (2 * width)
        ),
        "the fraction is upside down: LoRA's size comes first": (
            lambda shapes, width: Fraction(2 * width, sum(map(sum, shapes)))
        ),
        "pairs are counted, but a rectangular pair has another size": (
            lambda shapes, width: Fraction(len(shapes))
        ),
        "only inputs are counted: B has as many rows as outputs": (
            lambda shapes, width: Fraction(sum(i for i, _ in shapes), width)
        ),
        "only outputs are counted: A has as many columns as inputs": (
            lambda shapes, width: Fraction(sum(o for _, o in shapes), width)
        ),
        "only the first matrix is counted": (
            lambda shapes, width: Fraction(sum(shapes[0]), 2 * width)
        ),
        "Serial LoRA's pair has two matrices: 2 x width below the line": (
            lambda shapes, width: Fraction(sum(map(sum, shapes)), width)
        ),
        "full matrices are compared, not pairs": (
            lambda shapes, width: Fraction(sum(i * o for i, o in shapes), width * width)
        ),
        "inputs and outputs are multiplied: a pair adds them": (
            lambda shapes, width: Fraction(sum(i * o for i, o in shapes), 2 * width)
        ),
        "always four: look at the shapes that came in": lambda shapes, width: Fraction(4),
    },
)
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
        yield Case(f"the ratio for LoRA on {name}", (shapes, width), expected)
