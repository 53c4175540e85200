"""Checks of lesson 00: a low-rank product, a count, a frozen model."""

from __future__ import annotations

import torch
from torch import nn

from serial_lora_course.checks.checking import call, exercise, require, require_close, require_equal


@exercise("0.1")
def low_rank_product(attempt) -> str:
    """x A^T B^T against a product written out with einsum, at three shapes of x."""
    for shape, rank in (((5, 6), 2), ((2, 3, 8), 3), ((7,), 1)):
        x = torch.randn(shape)
        width = shape[-1]
        lora_A, lora_B = torch.randn(rank, width), torch.randn(width, rank)
        expected = torch.einsum("...i,ri,or->...o", x, lora_A, lora_B)
        require_close(
            f"the product for x of shape {tuple(shape)} at rank {rank}",
            call(attempt, x, lora_A, lora_B),
            expected,
            suspects={
                "A and B are swapped: x meets A first, and each is transposed": x @ lora_B @ lora_A,
                "only A is there: B leads back from the rank to the width": x @ lora_A.T,
                "x is added: here only the product is asked for": x + expected,
                "the transposes are in the wrong order: A comes first, then B": (
                    x @ (lora_A.T @ lora_B.T).T
                ),
            },
        )
    return "x Aᵀ Bᵀ equals an einsum written another way, for vectors, matrices and batches"


def _negative_slips(saved: int) -> dict[str, int]:
    """What hides that a pair can be the larger one; nothing where it saves something."""
    if saved >= 0:
        return {}
    cause = "a pair can be larger than the square matrix: let the result be negative"
    return {cause: abs(saved), f"{cause}, not 0": 0}


@exercise("0.2")
def numbers_saved(attempt) -> str:
    """width² - 2 width rank against numel() of tensors that are really made."""
    for width, rank in ((64, 4), (768, 32), (10, 5), (12, 12)):
        pair = torch.empty(rank, width).numel() + torch.empty(width, rank).numel()
        square = torch.empty(width, width).numel()
        require_equal(
            f"numbers saved at width {width} and rank {rank}",
            call(attempt, width, rank),
            square - pair,
            suspects={
                **_negative_slips(square - pair),
                "that is what the pair holds: take it from what the square matrix holds": pair,
                "only one matrix of the pair is subtracted": square - pair // 2,
                "the sign is turned round: a saving is positive": pair - square,
                "that is how many times smaller the pair is, not how many numbers": square / pair,
                "that is a share; the number of numbers is asked for": 1 - pair / square,
                "a pair is not r x r: each of its matrices has one side of the full width": (
                    square - 2 * rank * rank
                ),
            },
        )
    return "width² - 2·width·rank equals numel() at four sizes, even where nothing is saved"


@exercise("0.3")
def freeze(attempt) -> str:
    """Every parameter, nested ones too, asks for no gradient; values are as before."""
    for depth in (1, 3):
        model: nn.Module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        for _ in range(depth):
            model = nn.Sequential(model, nn.Linear(4, 4))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        returned = call(attempt, model)
        require(
            returned is model,
            "what the function returns",
            "the same model",
            "nothing" if returned is None else "something else",
            "return the model that came in, so that calls can be chained",
        )
        open_names = [name for name, p in model.named_parameters() if p.requires_grad]
        everything = len(before)
        if len(open_names) == everything and "requires_grad" in vars(model):
            cause = (
                "model.requires_grad = False only sets an attribute that nobody reads: "
                "set it on every parameter"
            )
        elif len(open_names) == everything and not model.training:
            cause = "eval() changes dropout and norms, not what is trained"
        elif len(open_names) == everything:
            cause = "no parameter was frozen: set requires_grad of each to False"
        elif open_names and all("." in name for name in open_names):
            cause = "modules inside modules are skipped: model.parameters() visits them all"
        else:
            cause = "some parameters are left out: go through model.parameters()"
        require(
            not open_names,
            f"parameters that still ask for a gradient, of {everything}",
            "none",
            ", ".join(open_names),
            cause,
        )
        same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        require(
            same, "the parameters' values", "as before", "changed", "freeze, do not change, them"
        )
    return "no parameter of a nested model asks for a gradient, and no value changed"
