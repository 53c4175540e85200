"""Checks of lesson 00: a low-rank product, a count, a frozen model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from serial_lora_course.checks.cases import Case, call
from serial_lora_course.checks.checking import exercise
from serial_lora_course.checks.failing import likely, require


@exercise(
    "0.1", "x Aᵀ Bᵀ equals an einsum, for vectors, matrices and batches, and so do the gradients"
)
def low_rank_product() -> Iterator[Case]:
    """x A^T B^T against a product written out with einsum, at three shapes of x."""
    for shape, rank in (((5, 6), 2), ((2, 1, 8), 3), ((7,), 1)):
        width = shape[-1]
        x, A, B = torch.randn(shape), torch.randn(rank, width), torch.randn(width, rank)
        trained = len(shape) == 3
        A.requires_grad_(trained), B.requires_grad_(trained)
        expected = torch.einsum("...i,ri,or->...o", x, A, B)
        causes = {
            "A and B are swapped: x meets A first, and each is transposed": x @ B @ A,
            "only A is there: B leads back from the rank to the width": x @ A.T,
            "x is added: here only the product is asked for": x + expected,
            "that is divided by the rank: only the product is asked for": expected / rank,
        }
        what = f"the product for x of shape {tuple(shape)} at rank {rank}"
        error = (
            "" if len(shape) == 2 else "x has any number of dimensions: @ takes the last, mm two"
        )
        leaves = (lambda x, A, B: {"lora_A": A, "lora_B": B}) if trained else None
        yield Case(what, (x, A, B), expected, causes, error=error, leaves=leaves)


@exercise("0.2", "width² - 2·width·rank equals numel() at four sizes, even where nothing is saved")
def numbers_saved() -> Iterator[Case]:
    """width² - 2 width rank against numel() of tensors that are really made."""
    for width, rank in ((64, 4), (768, 32), (10, 5), (12, 12)):
        pair = torch.empty(rank, width).numel() + torch.empty(width, rank).numel()
        square = torch.empty(width, width).numel()
        causes = {
            "that is what the pair holds: take it from what the square matrix holds": pair,
            "only one matrix of the pair is subtracted": square - pair // 2,
            "the sign is turned round: a saving is positive": pair - square,
            "that is how many times smaller the pair is, not how many numbers": square / pair,
            "that is a share; the number of numbers is asked for": 1 - pair / square,
            "a pair is not r x r: each matrix has one side of full width": square - 2 * rank * rank,
            "a matrix holds rows x columns, not rows + columns": square - 2 * (width + rank),
        }
        if square < pair:
            larger = "a pair can be larger than the square matrix: let the result be negative"
            causes = {larger: pair - square, f"{larger}, not 0": 0}
        what = f"numbers saved at width {width} and rank {rank}"
        yield Case(what, (width, rank), square - pair, causes)


@exercise("0.3")
def freeze(attempt) -> str:
    """Every parameter, nested ones too, asks for no gradient; values are as before."""
    for depth in (1, 3):
        model: nn.Module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        for _ in range(depth):
            model = nn.Sequential(model, nn.Linear(4, 4))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        returned = call(attempt, model)
        got = "nothing" if returned is None else "something else"
        cause = "return the model that came in, so that calls can be chained"
        require(returned is model, "what the function returns", "the same model", got, cause)
        names = [name for name, _ in model.named_parameters()]
        cause = "freeze the parameters, do not replace them"
        require(names == list(before), "the names of the parameters", list(before), names, cause)
        open_names = [name for name, p in model.named_parameters() if p.requires_grad]
        every = open_names == names
        norms = [
            n for n in names if isinstance(model.get_submodule(n[: n.rindex(".")]), nn.LayerNorm)
        ]
        conditions = {
            "model.requires_grad = False only sets an attribute that nobody reads: set it on every "
            "parameter": every and "requires_grad" in vars(model),
            "eval() changes dropout and norms, not what is trained": every and not model.training,
            "no parameter was frozen: set requires_grad of each to False": every,
            "only the first is frozen: `return` stands inside the loop": open_names == names[1:],
            "only weights are frozen: biases are parameters too": open_names
            == [name for name in names if name.endswith("bias")],
            "one kind of layer is left out: norms have parameters too": open_names == norms,
            "modules inside modules are skipped: model.parameters() visits them all": open_names
            == [name for name in names if name.count(".") > 1],
        }
        cause = likely(conditions, "some parameters are left out: go through model.parameters()")
        what = f"parameters that still ask for a gradient, of {len(before)}"
        require(not open_names, what, "none", ", ".join(open_names), cause)
        same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        cause = "freeze the parameters, do not change them"
        require(same, "the parameters' values", "as before", "changed", cause)
    return "no parameter of a nested model asks for a gradient, and no value changed"
