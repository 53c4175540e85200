"""Checks of lesson 02: the size of any LoRA, a layer that keeps little, and what autograd keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise


@exercise("2.1", "the formula equals numel() for one matrix and for several, square or not")
def lora_parameters() -> Iterator[Case]:
    """The formula against numel() of tensors with these shapes."""
    for shapes, rank in (
        ([(3, 3), (6, 3), (2, 5)], 2),
        ([(512, 2048)], 8),
        ([(6, 3), (3, 3)], 1),
        ([(768, 768)] * 4, 32),
    ):
        sizes = [size for i, o in shapes for size in ((rank, i), (o, rank))]
        counted = sum(torch.empty(size, device="meta").numel() for size in sizes)
        yield Case(f"the parameters of pairs of rank {rank} for {shapes}", (shapes, rank), counted)


def used(layer: type) -> Callable:
    """What a layer makes of x and W: its output, or the names of what it keeps."""

    def attempt(do: str, x: Tensor, W: Tensor) -> Tensor | list[str]:
        names, found = {x.data_ptr(): "x", W.data_ptr(): "W"}, set()

        def note(tensor: Tensor) -> Tensor:
            found.add(names.get(tensor.data_ptr(), "another tensor"))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            y = getattr(layer, "apply", layer)(x, W)
        return y if do == "run" else sorted(found)

    return attempt


@exercise(
    "2.2",
    "output and gradients are those of PyTorch's linear layer, and it keeps no more than needed",
    through=used,
)
def frugal_linear() -> Iterator[Case]:
    """PyTorch's own linear layer, and by hand what it may keep."""
    for size, for_x, for_W in product(((3, 3), (5, 3)), (True, False), (True, False)):
        W, x = torch.randn(size).requires_grad_(for_W), torch.randn(3, 3).requires_grad_(for_x)
        what = f"where x needs {'a' if for_x else 'no'} gradient and W {'one' if for_W else 'none'}"
        y, leaves = nn.functional.linear(x, W), lambda _, x, W: {"x": x, "W": W}
        yield Case(f"y {what}", ("run", x, W), y, leaves=leaves)
        yield Case(f"what is kept {what}", ("keep", x, W), ["W"] * for_x + ["x"] * for_W)


def product_of_thirds(model: nn.Module, x: Tensor) -> Tensor:
    """Three views of one output, multiplied."""
    one, two, three = model(x).chunk(3, dim=1)
    return one * two * three


def with_a_call(attempt: Callable) -> Callable:
    """An answer about a model and what is computed with it."""
    return lambda model, use, x: attempt(model, lambda: use(model, x))


@exercise(
    "2.3",
    "the bytes of each storage once, however many views are kept, without weights and buffers",
    through=with_a_call,
)
def kept() -> Iterator[Case]:
    """Counted by hand: rows times columns times the bytes of a number."""

    def layers(first: bool = True, second: bool = True) -> nn.Sequential:
        one, two = nn.Linear(3, 5).requires_grad_(first), nn.Linear(5, 2).requires_grad_(second)
        return nn.Sequential(one, nn.ReLU(), two)

    x, cut = torch.randn(4, 3), nn.Linear(3, 3)
    cut.register_buffer("mask", torch.rand(2))
    for what, model, use, size in (
        ("two layers, ReLU between them", layers(), nn.Module.__call__, 4 * (3 + 5) * 4),
        ("... the first one frozen", layers(first=False), nn.Module.__call__, 4 * 5 * 4),
        ("... both frozen", layers(False, False), nn.Module.__call__, 0),
        ("... and back", layers(), lambda m, x: m(x).sum().backward(), 4 * (3 + 5) * 4),
        ("... in float64", layers().double(), lambda m, x: m(x.double()), 4 * (3 + 5) * 8),
        ("three views of one output", nn.Linear(3, 15), product_of_thirds, 4 * (3 + 15 + 5) * 4),
        ("a part of a weight", cut, lambda m, x: m(x) @ m.weight[1:].T * m.mask, 4 * (3 + 3) * 4),
    ):
        yield Case(f"bytes: {what}", (model, use, x), size, may_change="back" in what)
