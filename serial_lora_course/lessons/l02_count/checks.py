"""Checks of lesson 02: the size of any LoRA, what no training moves, and what autograd keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from serial_lora import LoRAConfig, inject
from serial_lora_course.checking.case import Case
from serial_lora_course.checking.running import exercise
from serial_lora_course.lessons.l02_count.measure import MODELS, picture_loss


def numel_of(shapes: list[tuple[int, int]], rank: int) -> int:
    """The elements of all pairs, counted by PyTorch on the meta device."""
    sizes = [size for i, o in shapes for size in ((rank, i), (o, rank))]
    return sum(torch.empty(size, device="meta").numel() for size in sizes)


@exercise("2.1", "the formula equals numel() for one matrix and for several, square or not")
def lora_parameters() -> Iterator[Case]:
    """The formula against numel() of tensors with these shapes."""
    for shapes, rank in (
        ([(3, 3), (6, 3), (2, 5)], 2),
        ([(512, 2048)], 8),
        ([(4, 6)], 9),  # a rank above both sides
        ([(6, 3), (3, 3)], 1),
        ([(768, 768)] * 4, 32),
        ([(768, 2304), (768, 768)], 5),
    ):
        what = f"the parameters of pairs of rank {rank} for {shapes}"
        yield Case(what, (shapes, rank), numel_of(shapes, rank))


class Paired(nn.Module):
    """A frozen layer with a fresh pair, and a shift that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).requires_grad_(False)
        self.lora_A, self.lora_B = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(4, 2))
        self.shift = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.lora_A.T @ self.lora_B.T


def seeded(attempt: Callable) -> Callable:
    """An answer that draws the same numbers in every call."""
    return lambda *given: (torch.manual_seed(0), attempt(*given))[1]


@exercise(
    "2.2",
    "fresh pairs whose B is zero are told from those that no gradient reaches",
    through=seeded,
)
def never_reached() -> Iterator[Case]:
    """Known by how each loss is made."""
    x, both = torch.randn(5, 4), LoRAConfig(2, stream="both")
    lost = [f"transformer_blocks.4.lora_q_text.lora_{factor}" for factor in "AB"]
    for what, model, loss, names in (
        ("a fresh pair and a shift, all used", Paired(), lambda m: (m(x) + m.shift).norm(), []),
        ("a shift that nothing reads", Paired(), lambda m: m(x).norm(), ["shift"]),
        ("a shift times zero", Paired(), lambda m: (m(x) + 0 * m.shift).norm(), ["shift"]),
        ("a part of a shift", Paired(), lambda m: (m(x)[:, :2] + m.shift[:2]).norm(), []),
        ("a difference", Paired(), lambda m: (m(x) * (1 + m.shift - m.shift.mean())).norm(), []),
        ("a shift alone", Paired(), lambda m: m.shift.norm(), ["lora_A", "lora_B"]),
        ("a small SD3", inject(MODELS["small SD3"](), both), picture_loss, lost),
    ):
        yield Case(what, (model, loss), names, read=lambda found, *_: sorted(found))


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
        ("a layer, twice", nn.Linear(3, 3), lambda m, x: m(m(x)), 2 * 4 * 3 * 4),
        ("three views of one output", nn.Linear(3, 15), product_of_thirds, 4 * (3 + 15 + 5) * 4),
        ("a part of a weight", cut, lambda m, x: m(x) @ m.weight[1:].T * m.mask, 4 * (3 + 3) * 4),
    ):
        yield Case(f"bytes: {what}", (model, use, x), size, may_change="back" in what)
