"""Checks of lesson 00: a low-rank product, and a frozen model."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from serial_lora_course.checking.case import Case, Parts
from serial_lora_course.checking.running import exercise


@exercise(
    "0.1",
    "x Aᵀ Bᵀ equals an einsum, for vectors, matrices and batches, and so do the gradients",
    {
        "A and B are swapped: x meets A first, and each is transposed": lambda x, A, B: x @ B @ A,
        "only A is there: B leads back from the rank to the width": lambda x, A, B: x @ A.T,
        "x is added: here only the product is asked for": lambda x, A, B: x + x @ A.T @ B.T,
        "that is divided by the rank: only the product is asked for": (
            lambda x, A, B: x @ A.T @ B.T / len(A)
        ),
        "x has any number of dimensions: @ takes the last, mm two": (
            lambda x, A, B: x.mm(A.T).mm(B.T)
        ),
        "dimensions of size 1 are dropped: leave squeeze() away": (
            lambda x, A, B: (x @ A.T @ B.T).squeeze()
        ),
        "two matrices do not fit: nn.Linear transposes its weight, @ does not": (
            lambda x, A, B: x @ A @ B
        ),
    },
)
def low_rank_product() -> Iterator[Case]:
    """x A^T B^T against a product written out with einsum, at three shapes of x."""
    for shape, rank in (((5, 6), 2), ((2, 1, 8), 3), ((7,), 1)):
        width = shape[-1]
        x, A, B = torch.randn(shape), torch.randn(rank, width), torch.randn(width, rank)
        trained = len(shape) == 3
        A.requires_grad_(trained), B.requires_grad_(trained)
        yield Case(
            f"the product for x of shape {tuple(shape)} at rank {rank}",
            (x, A, B),
            torch.einsum("...i,ri,or->...o", x, A, B),
            leaves=(lambda x, A, B: {"lora_A": A, "lora_B": B}) if trained else None,
        )


def freeze_where(wanted):
    """A wrong answer that freezes the parameters whose module and name are ``wanted``."""

    def attempt(model):
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if wanted(module, name):
                    parameter.requires_grad = False
        return model

    return attempt


def set_an_attribute(model):
    """A plain attribute of that name is read by nobody."""
    model.requires_grad = False
    return model


def freeze_own_children_only(model):
    """Modules inside modules are skipped."""
    for module in model:
        for parameter in module._parameters.values():
            parameter.requires_grad = False
    return model


def freeze_the_first(model):
    """``return`` stands inside the loop."""
    for parameter in model.parameters():
        parameter.requires_grad = False
        return model


def turn_into_buffers(model):
    """Parameters are replaced."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            del module._parameters[name]
            module.register_buffer(name, parameter.detach())
    return model


def zero_the_weights(model):
    """Values are changed too."""
    for parameter in model.requires_grad_(False).parameters():
        parameter.zero_()
    return model


def state_of(returned, model: nn.Module, before: nn.Module) -> tuple:
    """What counts in a model after the call."""
    state, then = model.state_dict(), before.state_dict()
    names = [name for name, _ in model.named_parameters()]
    still = [name for name, p in model.named_parameters() if p.requires_grad]
    if still and not model.training:
        still.append("in eval mode")
    if still and "requires_grad" in vars(model):
        still.append("and the model has an attribute requires_grad")
    other = "nothing" if returned is None else "something else"
    same = list(state) == list(then) and all(torch.equal(state[n], then[n]) for n in then)
    return (
        "the same model" if returned is model else other,
        names,
        ", ".join(still) or "none",
        "as before" if same else "changed",
    )


STILL = "parameters that still ask for a gradient"
PARTS = (
    "what the function returns",
    "the names of the parameters",
    STILL,
    "the parameters' values",
)
ADVICE = {STILL: "some parameters are left out: go through model.parameters()"}


@exercise(
    "0.2",
    "no parameter of a nested model asks for a gradient, and no value changed",
    {
        "no parameter was frozen: set requires_grad of each to False": lambda model: model,
        "model.requires_grad = False only sets an attribute that nobody reads: set it on every "
        "parameter": set_an_attribute,
        "eval() changes dropout and norms, not what is trained": lambda model: model.eval(),
        "only the first is frozen: `return` stands inside the loop": freeze_the_first,
        "only weights are frozen: biases are parameters too": (
            freeze_where(lambda module, name: name == "weight")
        ),
        "one kind of layer is left out: norms have parameters too": (
            freeze_where(lambda module, name: isinstance(module, nn.Linear))
        ),
        "modules inside modules are skipped: model.parameters() visits them all": (
            freeze_own_children_only
        ),
        "freeze the parameters, do not replace them": turn_into_buffers,
        "freeze the parameters, do not change them": zero_the_weights,
        "return the model that came in, so that calls can be chained": (
            lambda model: model.requires_grad_(False) and None
        ),
        "return the model that came in, not a copy of it": (
            lambda model: copy.deepcopy(model).requires_grad_(False)
        ),
    },
)
def freeze() -> Iterator[Case]:
    """Every parameter, nested ones too, asks for no gradient; values are as before."""
    for depth in (1, 3):
        model: nn.Module = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        for _ in range(depth):
            model = nn.Sequential(model, nn.Linear(4, 4))
        names = [name for name, _ in model.named_parameters()]
        yield Case(
            f"a model of {len(names)} parameters",
            (model,),
            Parts(dict(zip(PARTS, ("the same model", names, "none", "as before"), strict=True))),
            read=lambda returned, now, before=model: state_of(returned, now, before),
            advice=ADVICE,
            may_change=True,
        )
