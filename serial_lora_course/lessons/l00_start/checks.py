"""Checks of lesson 00: the adapter in one line, and a frozen model."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


@exercise(
    "0.1", "the output equals x (I + scale B A)ᵀ for tokens of any shape, and so do gradients"
)
def adapted() -> Iterator[Case]:
    """Tokens of three shapes, through one dense matrix."""
    for shape, rank, scale in (((2, 5, 12), 3, 0.5), ((4, 4), 4, 1.0), ((2, 3, 4, 8), 2, 3)):
        width = shape[-1]
        x, A, B = torch.randn(shape), torch.randn(rank, width), torch.randn(width, rank)
        for tensor in (x, A, B):
            tensor.requires_grad_()
        dense = torch.eye(width) + scale * torch.einsum("or,ri->oi", B, A)
        yield Case(
            f"tokens of shape {shape} at rank {rank} and scale {scale}",
            (x, A, B, scale),
            torch.einsum("...i,oi->...o", x, dense),
            leaves=lambda x, A, B, scale: {"x": x, "A": A, "B": B},
        )


STILL = "parameters that still require a gradient"
FROZEN = {
    "what the function returns": "the same model",
    "the names of the parameters": [],
    STILL: "none",
    "the parameters' values": "as before",
}


def state_of(returned, model: nn.Module, before: nn.Module) -> tuple:
    """What counts in a model after the call, in the order of ``FROZEN``."""
    state, then = model.state_dict(), before.state_dict()
    names = [name for name, _ in model.named_parameters()]
    still = [name for name, p in model.named_parameters() if p.requires_grad]
    if still and not model.training:
        still.append("in eval mode")
    if still and "requires_grad" in vars(model):
        still.append("and the model has an attribute requires_grad")
    copied = "another model" if isinstance(returned, nn.Module) else type(returned).__name__
    other = "nothing" if returned is None else copied
    same = list(state) == list(then) and all(torch.equal(state[n], then[n]) for n in then)
    return (
        "the same model" if returned is model else other,
        names,
        ", ".join(still) or "none",
        "as before" if same else "changed",
    )


@exercise("0.2", "no parameter of a nested model requires a gradient, and no value changed")
def freeze() -> Iterator[Case]:
    """No parameter, nested ones included, requires a gradient; values are as before."""
    for depth in (1, 3):
        model: nn.Module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        for _ in range(depth):
            model = nn.Sequential(model, nn.Linear(4, 4))
        names = [name for name, _ in model.named_parameters()]
        yield Case(
            f"a model of {len(names)} parameters",
            (model,),
            Parts(FROZEN | {"the names of the parameters": names}),
            read=lambda returned, now, before=model: state_of(returned, now, before),
            advice={
                "what the function returns": lambda got: (
                    f"{got} is returned: return the model that was passed in"
                ),
                STILL: "loop over model.parameters(), which has them all",
            },
            may_change=True,
        )
